"""Training on parts of one large graph: each epoch its nodes fall at random into a few, with the edges inside of each.

These are the random parts of N2's released code (`nbatch`). Of p parts each keeps about 1/p^2 of the edges: memory and
time of a step fall, and so does what a node hears of its neighbours, so as few parts as memory allows are best.
"""

import functools
import math
from typing import Any

import jax
import numpy as np
from jraph import GraphsTuple

from jaxmodels.graphs.graph import make_graph
from jaxmodels.graphs.rows import EIGHT, node_rows, round_up

SAMPLED, MARGIN = 20, (1.1, 1.5)  # epochs from which the number of edges is taken, and what sizes have beyond it


class NodeParts:
    """batches[step]: one part, a pure function of the step and the seed; an epoch has every node once.

    Attributes:
        per_epoch: parts of an epoch.
        sizes: numbers of edge rows, small to large; nearly every part fits in the first, the last holds all edges.
    """

    def __init__(self, graph: GraphsTuple, label: Any, mask: Any, *, parts: int, seed: int = 0, shards: int = 1):
        """Takes the graph.

        Args:
            graph: one unpadded graph, from `make_graph`.
            label: a row per node.
            mask: (N,), 1 for the nodes that count.
            parts: into which an epoch divides the nodes.
            seed: of the parts.
            shards: into which rows must be divisible.

        Raises:
            ValueError: fewer than one part, or more parts than nodes.
        """
        count = int(graph.n_node.sum())
        if not 1 <= parts <= max(1, count):
            raise ValueError(f"parts: found {parts}, expected 1 to {count}, the number of nodes")
        self._graph, self._label, self._mask = graph, np.asarray(label), np.asarray(mask, np.float32)
        self._count, self._seed, self._shards, self.per_epoch = count, seed, shards, parts
        self._part_of = functools.lru_cache(maxsize=2)(self._divided)  # the two epochs between which is read ahead
        multiple = math.lcm(EIGHT, shards)
        self._nodes = round_up(-(-count // parts) + 1, multiple)
        most = max(int(self._held(epoch).max(initial=0)) for epoch in range(SAMPLED))
        whole = len(graph.senders)
        self.sizes = sorted(
            {round_up(min(whole, math.ceil(m * most)), multiple) for m in MARGIN} | {round_up(whole, multiple)}
        )

    def __getitem__(self, step: int) -> dict[str, Any]:
        """The rows of a step's part, as `node_rows` gives them."""
        epoch, part = divmod(step, self.per_epoch)
        of = self._part_of(epoch)
        own = np.flatnonzero(of == part)
        number = np.full(self._count, -1)
        number[own] = np.arange(len(own))
        senders, receivers = number[self._graph.senders], number[self._graph.receivers]
        inside = (senders >= 0) & (receivers >= 0)
        edges = None if self._graph.edges is None else self._graph.edges[inside]
        nodes = jax.tree.map(lambda leaf: leaf[own], self._graph.nodes)
        graph = make_graph(nodes, senders[inside], receivers[inside], edges=edges)
        room = next(size for size in self.sizes if size >= len(graph.senders))
        return node_rows(graph, self._label[own], self._mask[own], shards=self._shards, room=(self._nodes, room))

    def _divided(self, epoch: int) -> np.ndarray:
        """The part of each node."""
        order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
        part = np.empty(self._count, np.int64)
        part[order] = np.arange(self._count) % self.per_epoch
        return part

    def _held(self, epoch: int) -> np.ndarray:
        """Edges inside of each part."""
        of = self._divided(epoch)
        ends = of[self._graph.senders], of[self._graph.receivers]
        return np.bincount(ends[0][ends[0] == ends[1]], minlength=self.per_epoch)
