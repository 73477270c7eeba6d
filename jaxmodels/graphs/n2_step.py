"""One recurrent step of N2: pseudo-node adaptation, local message passing, global message passing.

Sun et al. 2024, arXiv 2410.23686, equations 5 and 8 to 10, in the order and with the norms of the released code.
Shapes: M graphs, K blocks of c nodes (`jaxmodels.graphs.blocks`), k pieces, p pseudo nodes, states of width q, messages
of width D.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.graphs.adjacency import Adjacency, Chunked
from jaxmodels.graphs.blocks import Blocks
from jaxmodels.graphs.layers import Encode, linear, norm, saved
from jaxmodels.graphs.proximity import collect, collect_linear, dense_linear, diffuse, diffuse_linear, proximity


class State(NamedTuple):
    """What a step moves.

    Attributes:
        nodes: states of the graph nodes (K, c, q).
        messages: their messages (K, c, D).
        pseudo: pieces of the pseudo nodes' states (M, p, k, q).
    """

    nodes: Float[Array, "K c q"]
    messages: Float[Array, "K c d"]
    pseudo: Float[Array, "m p k q"]


class Layout(NamedTuple):
    """Where nodes are and how they are joined; senders and receivers of `adjacency` are slots."""

    blocks: Blocks
    adjacency: Adjacency | Chunked


class Options(NamedTuple):
    """What the ablations switch; see `N2`."""

    adaptation: bool = True
    local: bool = True
    exchange: bool = True
    messages: bool = True
    dense: bool = False
    pathway: str = "proximity"
    linear_order: bool = False


class Weights(nn.Module):
    """The weights lambda (k,) of one proximity, N(0, 1) at first."""

    pieces: int

    @nn.compact
    def __call__(self) -> Float[Array, "k"]:
        """The parameter."""
        return self.param("lam", nn.initializers.normal(1.0), (self.pieces,))


class Communicator(nn.Module):
    """Pseudo nodes of one graph exchange what they gathered (equation 5): displacements and values from psi(R, R) G.

    Attributes:
        pieces: k of the displacement.
        features: width of the values; 0 leaves them out.
        dropout: behind both layers.
        pathway: see `proximity`.
    """

    pieces: int
    features: int
    dropout: float = 0.0
    pathway: str = "proximity"

    @nn.compact
    def __call__(
        self, pseudo: Float[Array, "m p i q"], gathered: Float[Array, "m p g"]
    ) -> tuple[Float[Array, "m p k q"], Float[Array, "m p d"]]:
        """Displacements (M, p, k, q) and values (M, p, d)."""
        weights = Weights(self.pieces, name="weights")()
        mixed = saved(proximity(weights, pseudo, pseudo, pathway=self.pathway).astype(gathered.dtype) @ gathered)
        q = pseudo.shape[-1]
        moved = Encode(q * self.pieces, self.dropout, name="displacement")(mixed)
        # The flat axis has q as its major index and k as its minor one.
        moved = moved.reshape(*moved.shape[:2], q, self.pieces).mT
        return moved, Encode(self.features, self.dropout, name="value")(mixed)


class Step(nn.Module):
    """(Q, F, R) -> (Q', F', R').

    Attributes:
        pieces: k.
        dropout: at six places.
        norm: layer norms, of states, messages and pseudo nodes.
        options: ablations.
    """

    pieces: int
    dropout: float = 0.0
    norm: bool = True
    options: Options = Options()

    @nn.compact
    def __call__(self, state: State, layout: Layout) -> State:
        """One step; empty slots stay 0."""
        if self.options.dense:
            return self._dense(state, layout)
        blocks, (q, f, r) = layout.blocks, state
        f = f if self.options.messages else q
        signal, shared = jnp.zeros_like(f), jnp.zeros((*r.shape[:2], f.shape[-1]), f.dtype)
        if self.options.adaptation:
            moved, shared = self._refine("refine1", r, self._diffuse("diffuse1", r, q, f, blocks), f.shape[-1])
            r = self._norm("norm_pseudo1", r + moved)
            signal = self._collect("inspect", q, r, shared, blocks)
        parts = (f, signal, q) if self.options.messages else (signal, q)
        h, hidden = self._local(jnp.concatenate(parts, -1), q, layout)
        c = jnp.zeros_like(hidden)
        if self.options.exchange:
            gathered = jnp.concatenate([self._diffuse("diffuse2", r, hidden, h, blocks), shared], -1)
            moved, values = self._refine("refine2", r, gathered, q.shape[-1])
            r = self._norm("norm_pseudo2", r + moved)
            c = self._collect("dispatch", hidden, r, values, blocks)
        return self._move(state, hidden, c, blocks)._replace(pseudo=r)

    def _dense(self, state: State, layout: Layout) -> State:
        """Without pseudo nodes: graph nodes answer each other, C = linear(psi(Qh, Qh) h / n)."""
        q, f, blocks = state.nodes, state.messages, layout.blocks
        h, hidden = self._local(jnp.concatenate([f, q] if self.options.messages else [q], -1), q, layout)
        count = blocks.share(blocks.nodes)[:, None, None].astype(h.dtype)
        if self.options.pathway == "uniform":
            answer = jnp.broadcast_to(blocks.share(blocks.total((h * blocks.mask).sum(1)))[:, None] / count, h.shape)
        else:
            answer = dense_linear(Weights(self.pieces, name="diffuse2")(), hidden, h, blocks)
        c = linear(q.shape[-1], h.shape[-1], name="dense")(answer.astype(h.dtype) / count)
        return self._move(state, hidden, c, blocks)

    def _local(self, sent: Array, q: Array, layout: Layout) -> tuple[Array, Array]:
        """What arrives over the edges, and the states after it."""
        if self.options.local:
            sent = (layout.adjacency @ sent.reshape(-1, sent.shape[-1])).reshape(sent.shape).astype(sent.dtype)
        sent = saved(sent)
        moved = Encode(q.shape[-1], self.dropout, name="state_update")(sent)
        return sent, self._norm("norm_state1", moved + q) * layout.blocks.mask.astype(q.dtype)

    def _move(self, state: State, hidden: Array, c: Array, blocks: Blocks) -> State:
        mask, f = blocks.mask.astype(hidden.dtype), state.messages
        if self.options.messages:
            f = Encode(f.shape[-1], self.dropout, name="message_update")(c) + f
            f = self._norm("norm_message", f) * mask
        return State(self._norm("norm_state2", hidden + c) * mask, f, state.pseudo)

    def _norm(self, name: str, x: Array) -> Array:
        return norm(name)(x) if self.norm else x

    def _refine(self, name: str, r: Array, gathered: Array, features: int) -> tuple[Array, Array]:
        module = Communicator(self.pieces, features, self.dropout, self.options.pathway, name=name)
        return module(r, gathered)

    def _diffuse(self, name: str, r: Array, q: Array, values: Array, blocks: Blocks) -> Array:
        """Mean over the nodes of each graph of psi(R, Q) values."""
        weights, count = Weights(self.pieces, name=name)(), blocks.nodes[:, None, None].astype(values.dtype)
        if self.options.linear_order:
            return diffuse_linear(weights, r, q, values, blocks).astype(values.dtype) / count
        psi = diffuse(weights, r, q, blocks, pathway=self.options.pathway)
        self.sow("intermediates", f"{name}_matrix", psi)
        return blocks.total(psi.astype(values.dtype) @ values) / count

    def _collect(self, name: str, q: Array, r: Array, values: Array, blocks: Blocks) -> Array:
        """Sum over pseudo nodes of psi(Q, R) values."""
        weights = Weights(self.pieces, name=name)()
        if self.options.linear_order:
            return collect_linear(weights, q, r, values, blocks).astype(values.dtype)
        psi = collect(weights, q, r, blocks, pathway=self.options.pathway)
        self.sow("intermediates", f"{name}_matrix", psi)
        return psi.astype(values.dtype) @ blocks.share(values)
