"""Sums over the edges of a padded graph, with the self loops that it lacks; linear in nodes and edges.

A missing self loop is a weight on its node, not an edge: sizes stay static and nothing is copied. Duplicate edges count
each time, in the degrees and in the sums.
"""

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
        loops: (N,), weight of each node's added self loop; 0 where the graph already has one.
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


def symmetric(graph: GraphsTuple) -> Adjacency:
    """D^-1/2 (A + missing loops) D^-1/2 (Kipf and Welling 2017, arXiv 1609.02907), D the degrees of the receivers."""
    loops = missing_loops(graph)
    ones = jnp.ones(graph.receivers.shape, loops.dtype)
    degree = jax.ops.segment_sum(ones, graph.receivers, loops.shape[0]) + loops
    # A node without edges still has its loop, so no degree is 0.
    root = jax.lax.rsqrt(jnp.maximum(degree, 1.0))
    weights = root[graph.receivers] * root[graph.senders]
    return Adjacency(graph.senders, graph.receivers, weights, loops * root**2)


def edge_sums(graph: GraphsTuple) -> Float[Array, "n d"]:
    """Sum of the attributes of the edges that each node receives; an added self loop has the attribute 1."""
    loops = missing_loops(graph)
    received = jax.ops.segment_sum(jnp.asarray(graph.edges), graph.receivers, loops.shape[0])
    return received + loops[:, None].astype(received.dtype)
