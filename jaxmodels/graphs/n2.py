"""N2: message passing over pathways that pseudo nodes learn (Sun et al. 2024, arXiv 2410.23686).

Where the paper and the released code (sunjss/N2) differ, this follows the code; the step is in
`jaxmodels.graphs.n2_step`. Cost per step: O(E (2D + q) + N k p (q + D)), linear in nodes and edges.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jraph import GraphsTuple

from jaxmodels.graphs.adjacency import chunked, edge_sums, symmetric
from jaxmodels.graphs.blocks import blocks_of
from jaxmodels.graphs.layers import SAVED, Dropout, Encode, linear, norm
from jaxmodels.graphs.n2_step import Layout, Options, State, Step, Weights
from jaxmodels.graphs.proximity import PATHWAYS, proximity
from jaxmodels.rules import nearest

LEVELS = ("node", "graph")


class ClassNodes(nn.Module):
    """Scores by proximity to learnable class nodes (c, q) of one piece or k pieces.

    Attributes:
        outputs: c.
        pieces: k, the number of weights.
        class_pieces: 1 or k.
    """

    outputs: int
    pieces: int
    class_pieces: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n q"]) -> Float[Array, "n c"]:
        """Logits; the clip of `proximity` runs over the classes."""
        shape = (self.class_pieces, self.outputs, x.shape[-1])
        nodes = self.param("class_nodes", nn.initializers.normal(1.0), shape)
        return proximity(Weights(self.pieces, name="weights")(), x[:, None], nodes.swapaxes(0, 1))


class N2(nn.Module):
    """N2 for node and graph tasks; call it on a padded `GraphsTuple` (`batch_graphs`).

    The graph's edge attributes, where it has some, are summed into the nodes that receive them and used nowhere else.

    Attributes:
        outputs: c, classes, labels or targets.
        level: 'node' reads the final node states, 'graph' the final pseudo nodes.
        steps: L, how often the step is applied.
        width: D, of messages.
        state_width: q, of states.
        pieces: k.
        pseudo_nodes: p.
        class_pieces: 1, or k as for ogbg-molpcba.
        dropout: behind every encoder and update: two at the input, six in a step, one in the graph head.
        input_dropout: of the features, before the encoders; ours, as peers have it (the released code has none).
        head: 'classes' scores by proximity; 'linear' is ours, for regression, whose released head cannot run.
        norm: layer norms within steps; the released code leaves them out for regression.
        shared: one step applied L times; False gives every step its own parameters ("Lp = L", better beyond 8 steps).
        remat: recompute steps in the backward pass: memory of one step instead of L. Models of level 'graph' recompute
            the pathways of matrix order even without it.
        linear_order: form psi V as a (b^T V), equal up to rounding; memory then is independent of N p.
        block: nodes per block of a batch of several graphs, see `jaxmodels.graphs.blocks`.
        adaptation: False: pseudo nodes do not move before the local step, which then carries no query signal.
        local: False: the adjacency is the identity.
        exchange: False: no global message passing; for graphs not together with adaptation=False.
        messages: False: states are passed instead of messages (our reading of "w/o messages": no messages exist,
            and h = A [I, Q]).
        dense: True: no pseudo nodes; nodes answer each other in linear order, C = linear(psi(Qh, Qh) h / n), and a
            graph is read from the mean of its node states (our reading). Not with adaptation or exchange False.
        pathway: 'proximity', 'attention' (softmax of the unclipped psi) or 'uniform'.
    """

    outputs: int
    level: str = "node"
    steps: int = 4
    width: int = 128
    state_width: int = 64
    pieces: int = 8
    pseudo_nodes: int = 256
    class_pieces: int = 1
    dropout: float = 0.0
    input_dropout: float = 0.0
    head: str = "classes"
    norm: bool = True
    shared: bool = True
    remat: bool = False
    linear_order: bool = False
    block: int = 16
    adaptation: bool = True
    local: bool = True
    exchange: bool = True
    messages: bool = True
    dense: bool = False
    pathway: str = "proximity"

    def setup(self):
        """Checks the options and makes the parts; those that an ablation leaves out get no parameters."""
        self._check()
        options = Options(
            adaptation=self.adaptation, local=self.local, exchange=self.exchange, messages=self.messages,
            dense=self.dense, pathway=self.pathway, linear_order=self.linear_order,
        )  # fmt: skip
        step = Step
        if self.remat:
            step = nn.remat(Step)
        elif self.level == "graph" and not self.linear_order:
            # Of many small graphs, pathways are many arrays of few operations: cheaper to compute again than to keep.
            policy = jax.checkpoint_policies.save_only_these_names(SAVED)
            step = nn.remat(Step, policy=policy, prevent_cse=False)
        if self.input_dropout:  # else no module: the released network has none there
            self.drop_inputs = Dropout(self.input_dropout)
        self.state_in = Encode(self.state_width, self.dropout)
        self.message_in = Encode(self.width, self.dropout)
        if not self.dense:
            self.pseudo = self.param("pseudo", nn.initializers.normal(1.0), (self.pseudo_nodes, self.state_width))
        self.step = step(self.pieces, self.dropout, self.norm, options)
        if self.level == "graph":
            self.pool, self.pool_norm = Encode(1, self.dropout), norm()
        if self.head == "classes":
            self.scores = ClassNodes(self.outputs, self.pieces, self.class_pieces)
        else:
            self.scores = linear(self.outputs, self.state_width)

    def __call__(self, graph: GraphsTuple) -> Float[Array, "rows c"]:
        """Raw outputs (N, c) or (G, c), padding rows included."""
        state, layout = self.encode(graph)

        def body(step, state, _):
            return step(state, layout), None

        own = dict(variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True})
        one = dict(variable_broadcast="params", split_rngs={"params": False, "dropout": True})
        state, _ = nn.scan(body, length=self.steps, **(one if self.shared else own))(self.step, state, None)
        return self.decode(state, layout)

    def encode(self, graph: GraphsTuple) -> tuple[State, Layout]:
        """States and messages before the first step, and the layout of the nodes."""
        blocks, adjacency = blocks_of(graph, size=self.block), symmetric(graph)
        x = jnp.asarray(graph.nodes)
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))  # sums of edges are none
        x = x if graph.edges is None else jnp.concatenate([x, edge_sums(graph).astype(x.dtype)], -1)
        x = self.drop_inputs(x) if self.input_dropout else x
        x, mask = blocks.spread(x), blocks.mask.astype(x.dtype)
        slots = blocks.spread(adjacency.loops[:, None]).reshape(-1)
        joined = adjacency._replace(
            senders=blocks.slot[adjacency.senders], receivers=blocks.slot[adjacency.receivers], loops=slots
        )
        nodes, graphs = self.state_in(x) * mask, blocks.nodes.shape[0]
        messages = self.message_in(x) * mask if self.messages else jnp.zeros((*x.shape[:2], 0), nodes.dtype)
        if self.dense:
            pseudo = jnp.zeros((graphs, 0, self.pieces, self.state_width), nodes.dtype)
        else:
            # Equal pieces are the same as the one piece that pseudo nodes start with.
            shape = (graphs, self.pseudo_nodes, self.pieces, self.state_width)
            pseudo = jnp.broadcast_to(self.pseudo[:, None], shape)
        return State(nodes, messages, pseudo), Layout(blocks, chunked(joined))

    def advance(self, state: State, layout: Layout) -> State:
        """One step, for looking at what happens between steps; `shared` steps only."""
        return self.step(state, layout)

    def decode(self, state: State, layout: Layout) -> Float[Array, "rows c"]:
        """Outputs (N, c) from the node states, or (G, c) from the pseudo nodes."""
        blocks = layout.blocks
        if self.level == "node":
            return self.scores(blocks.gather(state.nodes))
        if self.dense:
            pooled = blocks.total(state.nodes.sum(1)) / blocks.nodes[:, None].astype(state.nodes.dtype)
        else:
            m, p, k, q = state.pseudo.shape
            pooled = self.pool(state.pseudo.transpose(0, 3, 2, 1).reshape(m, q, k * p))[..., 0]
        scores = self.scores(self.pool_norm(pooled))
        return jnp.pad(scores, ((0, 1), (0, 0)))  # the last graph of a tuple is always padding

    def _check(self):
        for name, value, known in (
            ("level", self.level, LEVELS),
            ("head", self.head, ("classes", "linear")),
            ("pathway", self.pathway, PATHWAYS),
        ):
            if value not in known:
                raise ValueError(f"{name}: found '{value}', expected {' or '.join(known)}{nearest(value, known)}")
        for name in ("outputs", "steps", "width", "state_width", "pieces", "pseudo_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected at least 1")
        for name in ("dropout", "input_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 0 <= {name} < 1")
        if self.class_pieces not in (1, self.pieces):
            raise ValueError(f"class_pieces: found {self.class_pieces}, expected 1 or pieces = {self.pieces}")
        if self.linear_order and self.pathway != "proximity":
            raise ValueError(f"linear_order: found the pathway '{self.pathway}', expected 'proximity', which has one")
        if self.dense and self.pathway == "attention":
            raise ValueError("dense: found the pathway 'attention', expected one that needs no n x n matrix")
        left = [name for name in ("adaptation", "exchange") if not getattr(self, name)]
        if self.dense and left:
            raise ValueError(f"dense: found {left[0]}=False, expected True: it is of pseudo nodes, which are not there")
        if self.level == "graph" and len(left) == 2:
            raise ValueError(
                "exchange: found adaptation=False and exchange=False, expected one of them for graphs: these are read "
                "from pseudo nodes, which then see no node"
            )
