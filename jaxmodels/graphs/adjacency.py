"""Sums over the edges of a padded graph, with the self loops that it lacks; linear in nodes and edges.

A missing self loop is a weight on its node, not an edge: sizes stay static and nothing is copied. Duplicate edges count
each time, in the degrees and in the sums.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from jraph import GraphsTuple


class Adjacency(NamedTuple):
    """A weighted adjacency matrix: entries at (receiver, sender), and a diagonal that is added to them.

    Attributes:
        senders: (E,).
        receivers: (E,).
        weights: (E,), one per edge.
        loops: (N,), weight of each node's added self loop; 0 where the entries already hold one.
    """

    senders: Int[Array, "e"]
    receivers: Int[Array, "e"]
    weights: Float[Array, "e"]
    loops: Float[Array, "n"]

    def __matmul__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The matrix times node values: what every node receives."""
        sent = x[self.senders] * self.weights[:, None]
        return jax.ops.segment_sum(sent, self.receivers, x.shape[0]) + x * self.loops[:, None]


def missing_loops(graph: GraphsTuple) -> Float[Array, "n"]:
    """1 for every node without a self loop, else 0."""
    rows = jax.tree.leaves(graph.nodes)[0].shape[0]
    own = (graph.senders == graph.receivers).astype(jnp.result_type(float))
    return (jax.ops.segment_sum(own, graph.receivers, rows) == 0).astype(own.dtype)


def symmetric(graph: GraphsTuple, *, one_loop: bool = False) -> Adjacency:
    """D^-1/2 (A + missing loops) D^-1/2 (Kipf and Welling 2017, arXiv 1609.02907), D the degrees of the receivers.

    Args:
        graph: padded or not.
        one_loop: a node has one loop however often it is listed, as in PyG's GCNConv; else loops count each time, as
            other duplicate edges always do.
    """
    if one_loop:
        loops = jnp.ones(jax.tree.leaves(graph.nodes)[0].shape[0], jnp.result_type(float))
        counted = (graph.senders != graph.receivers).astype(loops.dtype)
    else:
        loops = missing_loops(graph)
        counted = jnp.ones(graph.receivers.shape, loops.dtype)
    degree = jax.ops.segment_sum(counted, graph.receivers, loops.shape[0]) + loops
    # A node without edges still has its loop, so no degree is 0.
    root = jax.lax.rsqrt(jnp.maximum(degree, 1.0))
    weights = counted * root[graph.receivers] * root[graph.senders]
    return Adjacency(graph.senders, graph.receivers, weights, loops * root**2)


def edge_sums(graph: GraphsTuple) -> Float[Array, "n d"]:
    """Sum of the attributes of the edges that each node receives; an added self loop has the attribute 1."""
    loops = missing_loops(graph)
    received = jax.ops.segment_sum(jnp.asarray(graph.edges), graph.receivers, loops.shape[0])
    return received + loops[:, None].astype(received.dtype)


class Chunks(NamedTuple):
    """Entries of a matrix by rows: `senders` and `weights` (C, c) of the chunks, and the row of each, `owner` (C,)."""

    senders: Int[Array, "C c"]
    weights: Float[Array, "C c"]
    owner: Int[Array, "C"]


class Chunked(NamedTuple):
    """An adjacency matrix whose products gather on a CPU, which is twice as fast there as scattering.

    The entries of each row are put into chunks of c slots, the last one filled up with zeros. A chunk is a sum of c
    gathered rows in one pass, which leaves about an eighth of the edges' rows to be added at their receivers. The
    transposed matrix is chunked as well, for the gradient; entries and weights themselves get none. Programs for other
    platforms scatter and make no chunks; what a program is compiled for decides, not where it is compiled.

    Attributes:
        matrix: the entries.
        rows: chunks of the matrix.
        columns: chunks of its transpose.
    """

    matrix: Adjacency
    rows: Chunks
    columns: Chunks

    def __matmul__(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The matrix times node values, as `Adjacency` gives it up to rounding."""
        x = x.astype(jnp.result_type(x, self.matrix.weights))
        return _multiply(self, x) + x * self.matrix.loops[:, None]


def chunked(adjacency: Adjacency, *, size: int = 8) -> Chunked:
    """The same matrix in chunks of `size` slots.

    Edges are sorted by receiver and by sender, unless they lie in that order: it pays for several products.
    """
    senders, receivers, weights, loops = jax.tree.map(jnp.asarray, adjacency)
    weights = jax.lax.stop_gradient(weights)
    rows = loops.shape[0]
    chunks = rows + receivers.shape[0] // size  # at least the sum of ceil(degree / size), whatever the degrees are

    def none(senders: Array, receivers: Array, weights: Array) -> Chunks:
        slots = (chunks, size)
        return Chunks(jnp.zeros(slots, senders.dtype), jnp.zeros(slots, weights.dtype), jnp.zeros(chunks, jnp.int32))

    into = functools.partial(_chunks, rows=rows, chunks=chunks, size=size)
    choose = functools.partial(jax.lax.platform_dependent, cpu=into, default=none)
    matrix = Adjacency(senders, receivers, weights, loops)
    return Chunked(matrix, choose(senders, receivers, weights), choose(receivers, senders, weights))


def _chunks(senders: Array, receivers: Array, weights: Array, *, rows: int, chunks: int, size: int) -> Chunks:
    edges = receivers.shape[0]
    by_row = functools.partial(jax.lax.sort, num_keys=1)
    ordered = (receivers[1:] >= receivers[:-1]).all()
    entries = receivers, senders, weights
    receivers, senders, weights = jax.lax.cond(ordered, lambda x: x, by_row, entries)
    degree = jnp.zeros(rows, jnp.int32).at[receivers].add(1)
    used = -(-degree // size)
    # Every edge moves by the slots that the rows before its own leave empty.
    moved = (jnp.cumsum(used) - used) * size - (jnp.cumsum(degree) - degree)
    slot = jnp.arange(edges) + moved[receivers]
    owner = jnp.repeat(jnp.arange(rows, dtype=jnp.int32), used, total_repeat_length=chunks)
    return Chunks(
        jnp.zeros(chunks * size, senders.dtype).at[slot].set(senders).reshape(chunks, size),
        jnp.zeros(chunks * size, weights.dtype).at[slot].set(weights).reshape(chunks, size),
        owner,
    )


@jax.custom_vjp
def _multiply(chunked: Chunked, x: Array) -> Array:
    senders, receivers, weights, _ = chunked.matrix
    return _product(chunked.rows, senders, receivers, weights, x)


def _product(chunks: Chunks, senders: Array, receivers: Array, weights: Array, x: Array) -> Array:
    def scattered(chunks: Chunks, x: Array) -> Array:
        return jax.ops.segment_sum(x[senders] * weights[:, None], receivers, x.shape[0])

    return jax.lax.platform_dependent(chunks, x, cpu=_gathered, default=scattered)


def _gathered(chunks: Chunks, x: Array) -> Array:
    # Without the barrier XLA computes what x is made of once per gather.
    x = jax.lax.optimization_barrier(x)
    # One gather per slot and not one of all: their sum then is a single pass that keeps nothing.
    total = x[chunks.senders[:, 0]] * chunks.weights[:, 0, None]
    for j in range(1, chunks.senders.shape[1]):
        total = total + x[chunks.senders[:, j]] * chunks.weights[:, j, None]
    return jax.ops.segment_sum(total, chunks.owner, x.shape[0], indices_are_sorted=True)


def _multiply_keep(chunked: Chunked, x: Array) -> tuple[Array, Chunked]:
    return _multiply(chunked, x), chunked


def _multiply_pull(chunked: Chunked, pulled: Array) -> tuple[None, Array]:
    senders, receivers, weights, _ = chunked.matrix
    return None, _product(chunked.columns, receivers, senders, weights, pulled)


_multiply.defvjp(_multiply_keep, _multiply_pull)
