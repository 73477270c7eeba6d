"""How graphs travel: `jraph.GraphsTuple`s of NumPy arrays, several in one, padded to sizes that repeat.

One convention for directions, in every model of this package: **messages flow from senders to receivers**; edge e
carries something from `senders[e]` into `receivers[e]`, and a node's degree is the number of edges it receives. An
`edge_index` of PyTorch Geometric is (senders, receivers). The released code of N2 reads the very same array the other
way round (it aggregates from `edge_index[1]` into `edge_index[0]`): to repeat its runs on directed graphs, pass
`senders=edge_index[1], receivers=edge_index[0]`. An undirected edge is stored twice, once in each direction.

Padding follows jraph: behind the real graphs stands one graph that owns all padding nodes (at least one) and edges, and
then empty graphs. Self loops are never stored by us; models add the missing ones (`jaxmodels.graphs.adjacency`).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Bool, Int
from jraph import GraphsTuple


def make_graph(nodes: Any, senders: Any, receivers: Any, *, edges: Any = None) -> GraphsTuple:
    """One graph from arrays, checked.

    Args:
        nodes: features (N, d), or a dict of arrays with N rows each (`x` and what an encoder reads); N may be 0.
        senders: (E,) node that each edge comes from.
        receivers: (E,) node that each edge goes to.
        edges: attributes (E, d_e), or None.

    Returns:
        An unpadded `GraphsTuple` of NumPy arrays.

    Raises:
        ValueError: an index outside the nodes, NaN or infinity among the features, or shapes that disagree.

    >>> graph = make_graph(np.ones((3, 2)), senders=[0, 1], receivers=[1, 2])
    >>> graph.n_node, graph.n_edge
    (array([3], dtype=int32), array([2], dtype=int32))
    """
    nodes = jax.tree.map(np.asarray, nodes)
    count = _rows(nodes, "nodes")
    senders, receivers = _indices(senders, "senders", count), _indices(receivers, "receivers", count)
    if senders.shape != receivers.shape:
        raise ValueError(f"receivers: found {receivers.size} edges, expected {senders.size} as in senders")
    if edges is not None:
        edges = np.asarray(edges)
        if edges.ndim != 2 or edges.shape[0] != senders.size:
            raise ValueError(f"edges: found the shape {edges.shape}, expected ({senders.size}, d_e), one row per edge")
        _finite(edges, "edges")
    _finite(nodes["x"] if isinstance(nodes, dict) and "x" in nodes else nodes, "nodes")
    sizes = np.array([count], np.int32), np.array([senders.size], np.int32)
    return GraphsTuple(nodes, edges, receivers, senders, None, *sizes)


def bucket(size: int, *, least: int = 32, growth: float = 1.5) -> int:
    """The smallest of least, least*growth, least*growth^2, ... that holds `size`.

    Sizes from 1 to a million fall into 27 buckets, at most a third of which is padding, so a data set compiles a
    handful of programs. Buckets are multiples of 8, which eight devices can share.

    Raises:
        ValueError: growth of 1 or less.

    >>> [bucket(size) for size in (3, 32, 33, 50, 1000)]
    [32, 32, 48, 72, 1296]
    """
    if growth <= 1.0 or least < 1:
        raise ValueError(f"bucket: found growth {growth} and least {least}, expected growth > 1 and least >= 1")
    room = 8 * math.ceil(least / 8)
    while room < size:
        room = 8 * math.ceil(room * growth / 8)
    return room


def batch_graphs(
    graphs: Sequence[GraphsTuple], *, nodes: int | None = None, edges: int | None = None, count: int | None = None
) -> GraphsTuple:
    """Several graphs as one padded `GraphsTuple`.

    Args:
        graphs: from `make_graph`, all with the same kinds of features.
        nodes: node rows, more than the graphs have together (padding needs one); the next `bucket` unless given.
        edges: edge rows; the next `bucket` unless given.
        count: graph rows, more than len(graphs); len(graphs) + 1 unless given.

    Returns:
        A `GraphsTuple` of NumPy arrays with static sizes.

    Raises:
        ValueError: no graphs, features that disagree, or sizes too small to hold them.

    >>> one = make_graph(np.ones((3, 2)), [0, 1], [1, 2])
    >>> batch = batch_graphs([one, one], nodes=8, edges=6)
    >>> batch.n_node.tolist(), batch.receivers.tolist()
    ([3, 3, 2], [1, 2, 4, 5, 6, 6])
    """
    if not graphs:
        raise ValueError("graphs: found none, expected at least one")
    _same_features(graphs)
    n_node = np.concatenate([graph.n_node for graph in graphs])
    n_edge = np.concatenate([graph.n_edge for graph in graphs])
    real_nodes, real_edges = int(n_node.sum()), int(n_edge.sum())
    nodes = bucket(real_nodes + 1) if nodes is None else nodes
    edges = bucket(real_edges) if edges is None else edges
    count = len(n_node) + 1 if count is None else count
    for name, room, least in (
        ("nodes", nodes, real_nodes + 1),
        ("edges", edges, real_edges),
        ("count", count, len(n_node) + 1),
    ):
        if room < least:
            raise ValueError(f"{name}: found {room}, expected at least {least} for these {len(n_node)} graphs")
    # Within an already batched tuple the indices count from its own first node.
    sizes = [int(graph.n_node.sum()) for graph in graphs]
    starts = np.cumsum([0, *sizes[:-1]])

    def indices(name: str) -> np.ndarray:
        real = np.concatenate([getattr(g, name) + start for g, start in zip(graphs, starts, strict=True)])
        return np.concatenate([real, np.full(edges - real_edges, real_nodes)]).astype(np.int32)

    def padded(total: int, *leaves: np.ndarray) -> np.ndarray:
        real = np.concatenate(leaves)
        return np.concatenate([real, np.zeros((total - len(real), *real.shape[1:]), real.dtype)])

    empty = [0] * (count - len(n_node) - 1)
    return GraphsTuple(
        nodes=jax.tree.map(lambda *leaves: padded(nodes, *leaves), *[graph.nodes for graph in graphs]),
        edges=None if graphs[0].edges is None else padded(edges, *[graph.edges for graph in graphs]),
        receivers=indices("receivers"),
        senders=indices("senders"),
        globals=None,
        n_node=np.array([*n_node, nodes - real_nodes, *empty], np.int32),
        n_edge=np.array([*n_edge, edges - real_edges, *empty], np.int32),
    )


def node_mask(graph: GraphsTuple) -> Bool[Array, "n"]:
    """True for real nodes of a padded graph; a graph that is not padded has no such mask (use `batch_graphs`)."""
    return jraph.get_node_padding_mask(graph._replace(n_node=jnp.asarray(graph.n_node)))


def graph_mask(graph: GraphsTuple) -> Bool[Array, "g"]:
    """True for real graphs of a padded batch, those without nodes included."""
    return jraph.get_graph_padding_mask(graph._replace(n_node=jnp.asarray(graph.n_node)))


def node_graph(graph: GraphsTuple) -> Int[Array, "n"]:
    """The graph that each node belongs to."""
    rows = jax.tree.leaves(graph.nodes)[0].shape[0]
    sizes = jnp.asarray(graph.n_node)
    return jnp.repeat(jnp.arange(sizes.shape[0]), sizes, total_repeat_length=rows)


def _rows(nodes: Any, name: str) -> int:
    leaves = jax.tree.leaves(nodes)
    shapes = ", ".join(str(leaf.shape) for leaf in leaves)
    if not leaves or any(leaf.ndim < 2 for leaf in leaves) or len({leaf.shape[0] for leaf in leaves}) > 1:
        raise ValueError(f"{name}: found the shapes {shapes or 'of nothing'}, expected (N, ...) with one N")
    return leaves[0].shape[0]


def _indices(array: Any, name: str, count: int) -> np.ndarray:
    array = np.asarray(array)
    if array.size == 0:
        return np.zeros(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{name}: found {array.dtype} of the shape {array.shape}, expected integers (E,)")
    if array.min() < 0 or array.max() >= count:
        worst = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"{name}: found node {worst}, expected 0 to {count - 1}, as there are {count} nodes")
    return array.astype(np.int32)


def _finite(tree: Any, name: str) -> None:
    for leaf in jax.tree.leaves(tree):
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            at = tuple(np.argwhere(~np.isfinite(leaf))[0])
            found = "NaN" if np.isnan(leaf[at]) else "infinity"
            raise ValueError(f"{name}: found {found} in row {int(at[0])}, expected numbers")


def _same_features(graphs: Sequence[GraphsTuple]) -> None:
    def kind(graph: GraphsTuple) -> Any:
        return jax.tree.map(lambda leaf: leaf.shape[1:], (graph.nodes, graph.edges)), jax.tree.structure(graph.nodes)

    for i, graph in enumerate(graphs):
        if kind(graph) != kind(graphs[0]):
            raise ValueError(f"graph {i}: found features {kind(graph)[0]}, expected {kind(graphs[0])[0]} as in graph 0")
