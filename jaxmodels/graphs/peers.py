"""The classic networks beside N2: GCN, GAT, GIN, GraphSAGE and an MLP, all one module over a padded graph."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jraph import GraphsTuple

from jaxmodels.graphs.convolutions import GATConv, GCNConv, GINConv, NodeLinear, SAGEConv
from jaxmodels.graphs.graph import node_graph, node_mask
from jaxmodels.graphs.layers import Dropout, linear, norm
from jaxmodels.rules import nearest

PEERS = ("gcn", "gat", "gin", "sage", "mlp")


class Peer(nn.Module):
    """Layers of one kind with ReLU between them (ELU in 'gat'); edge attributes are not read.

    For nodes the last layer gives the outputs: dropout, layer, activation, ..., dropout, layer. With `residual` a
    linear layer leads in, every layer is x + dropout(activation(layer(LayerNorm(x)))), and LayerNorm and a linear layer
    lead out. Graphs are scored by linear layers on the pooled nodes after every layer, summed (Xu et al. 2019).

    Attributes:
        kind: one of 'gcn', 'gat', 'gin', 'sage', 'mlp'.
        outputs: classes, labels or targets.
        level: 'node' or 'graph'.
        depth: layers.
        width: hidden features, of all heads together.
        dropout: before every layer, or within every residual one; for graphs on the pooled nodes.
        input_dropout: of the features, before all else.
        residual: see above; nodes only.
        heads: of 'gat'; the output layer has one.
        pool: 'sum' or 'mean' over the nodes of a graph.
    """

    kind: str
    outputs: int
    level: str = "node"
    depth: int = 2
    width: int = 64
    dropout: float = 0.0
    input_dropout: float = 0.0
    residual: bool = False
    heads: int = 8
    pool: str = "sum"

    @nn.compact
    def __call__(self, graph: GraphsTuple) -> Float[Array, "rows c"]:
        """Raw outputs (N, c) or (G, c), padding rows included."""
        self._check()
        x = jnp.asarray(graph.nodes)
        if self.input_dropout:
            x = Dropout(self.input_dropout, name="drop_inputs")(x)
        if self.level == "graph":
            return self._graphs(graph, x)
        return self._residual(graph, x) if self.residual else self._plain(graph, x)

    def _plain(self, graph: GraphsTuple, x: Array) -> Array:
        for i in range(self.depth - 1):
            x = self._activation(self._layer(i)(graph, Dropout(self.dropout)(x)))
        return self._layer(self.depth - 1, last=True)(graph, Dropout(self.dropout)(x))

    def _residual(self, graph: GraphsTuple, x: Array) -> Array:
        x = linear(self.width, x.shape[-1], name="inward")(x)
        for i in range(self.depth):
            moved = self._activation(self._layer(i)(graph, norm(f"norm{i}")(x)))
            x = x + Dropout(self.dropout)(moved)
        return linear(self.outputs, self.width, name="outward")(norm("norm")(x))

    def _graphs(self, graph: GraphsTuple, x: Array) -> Array:
        graphs, owner = graph.n_node.shape[0], node_graph(graph)
        real = node_mask(graph)[:, None].astype(x.dtype)
        count = jnp.maximum(jnp.asarray(graph.n_node), 1).astype(x.dtype)[:, None]

        def scores(i: int, x: Array) -> Array:
            pooled = jax.ops.segment_sum(x * real, owner, graphs)
            pooled = pooled / count if self.pool == "mean" else pooled
            return linear(self.outputs, x.shape[-1], name=f"scores{i}")(Dropout(self.dropout)(pooled))

        out = scores(0, x)
        for i in range(self.depth):
            x = self._activation(self._layer(i)(graph, x))
            out = out + scores(i + 1, x)
        return out

    def _layer(self, i: int, *, last: bool = False) -> nn.Module:
        features, name = self.outputs if last else self.width, f"layer{i}"
        if self.kind == "gat":
            heads = 1 if last else self.heads
            return GATConv(features // heads, heads, concat=not last, dropout=self.dropout, name=name)
        layers = {"gcn": GCNConv, "gin": GINConv, "sage": SAGEConv, "mlp": NodeLinear}
        return layers[self.kind](features, name=name)

    def _activation(self, x: Array) -> Array:
        return nn.elu(x) if self.kind == "gat" else nn.relu(x)

    def _check(self):
        for name, value, known in (
            ("kind", self.kind, PEERS),
            ("level", self.level, ("node", "graph")),
            ("pool", self.pool, ("sum", "mean")),
        ):
            if value not in known:
                raise ValueError(f"{name}: found '{value}', expected one of {', '.join(known)}{nearest(value, known)}")
        if self.depth < 1:
            raise ValueError(f"depth: found {self.depth}, expected at least 1")
        for name in ("dropout", "input_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 0 <= {name} < 1")
        if self.kind == "gat" and self.width % self.heads:
            raise ValueError(f"width: found {self.width}, expected a multiple of heads = {self.heads}")
        if self.residual and self.level == "graph":
            raise ValueError("residual: found level 'graph', expected 'node'")
