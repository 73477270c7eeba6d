"""The layout in which graph nodes meet pseudo nodes: blocks of nodes, every block inside one graph.

Pseudo nodes belong to a graph, so sums run over the nodes of each graph. With a flat list of nodes that is either an
outer product per node or a loop over graphs. Here each graph occupies whole blocks of c slots: one batched product per
block and a sum over blocks, linear in the nodes, with at most c - 1 empty slots per graph. A single big graph is one
block, and then the sums are plain matrix products; graphs of at most c nodes are one block each.

Shapes: N nodes, G graphs in the padded tuple, M = G - 1 graphs with pseudo nodes (the padding graph needs none), K
blocks of c slots.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from jraph import GraphsTuple

from jaxmodels.graphs.graph import node_graph, node_mask


class Blocks(NamedTuple):
    """Where every node is, and whose every block is.

    Attributes:
        slot: (N,), slot of each node among all K c.
        owner: (K,), graph of each block.
        mask: (K, c, 1), 1 for real nodes, else 0.
        nodes: (M,), real nodes per graph, at least 1.
    """

    slot: Int[Array, "n"]
    owner: Int[Array, "k"]
    mask: Float[Array, "k c 1"]
    nodes: Float[Array, "m"]

    def spread(self, x: Float[Array, "n d"]) -> Float[Array, "k c d"]:
        """Node rows put into their slots; empty slots are 0."""
        blocks, size, _ = self.mask.shape
        return jnp.zeros((blocks * size, x.shape[1]), x.dtype).at[self.slot].set(x).reshape(blocks, size, -1)

    def gather(self, x: Float[Array, "k c d"]) -> Float[Array, "n d"]:
        """The inverse of `spread`."""
        return x.reshape(-1, x.shape[-1])[self.slot]

    def total(self, x: Float[Array, "k *rest"]) -> Float[Array, "m *rest"]:
        """Sum over the blocks of each graph."""
        return x if len(self.owner) == 1 else jax.ops.segment_sum(x, self.owner, len(self.nodes))

    def largest(self, x: Float[Array, "k *rest"]) -> Float[Array, "m *rest"]:
        """Maximum over the blocks of each graph."""
        return x if len(self.owner) == 1 else jax.ops.segment_max(x, self.owner, len(self.nodes))

    def share(self, x: Float[Array, "m *rest"]) -> Float[Array, "k *rest"]:
        """Every graph's value at each of its blocks."""
        return x if len(self.owner) == 1 else x[self.owner]


def blocks_of(graph: GraphsTuple, *, size: int = 16) -> Blocks:
    """The layout of a padded graph.

    Args:
        graph: from `batch_graphs`.
        size: c; a tuple of one real graph is a single block whatever it says.

    Raises:
        ValueError: a size below 1, or a graph that is not padded.
    """
    graphs, rows = graph.n_node.shape[0], jax.tree.leaves(graph.nodes)[0].shape[0]
    if size < 1:
        raise ValueError(f"block: found {size}, expected at least 1")
    if graphs < 2:
        raise ValueError("graph: found one graph without a padding graph behind it, expected what batch_graphs gives")
    sizes = jnp.asarray(graph.n_node)
    real = node_mask(graph).astype(jnp.result_type(float))
    count = jnp.maximum(sizes[:-1], 1).astype(real.dtype)
    if graphs == 2:
        return Blocks(jnp.arange(rows), jnp.zeros(1, jnp.int32), real[None, :, None], count)
    blocks = (rows + graphs * (size - 1)) // size  # at least the sum of ceil(n / size), whatever the sizes are
    used = -(-sizes // size)
    # Every node moves by the slots that the graphs before its own leave empty.
    moved = (jnp.cumsum(used) - used) * size - (jnp.cumsum(sizes) - sizes)
    slot = jnp.arange(rows) + moved[node_graph(graph)]
    owner = jnp.repeat(jnp.arange(graphs), used, total_repeat_length=blocks)
    mask = jnp.zeros(blocks * size, real.dtype).at[slot].set(real)
    return Blocks(slot, jnp.minimum(owner, graphs - 2), mask.reshape(blocks, size, 1), count)
