"""Batches of many small graphs in a few sizes, so that a data set compiles a few programs and pads little."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jraph import GraphsTuple

from jaxmodels.graphs.rows import EIGHT, graph_rows, round_up

SAMPLED, MARGIN = 20, 1.1  # epochs from which sizes are taken, and what the largest has beyond them
CANDIDATES = 64  # quantiles of the sizes among which the buckets' are chosen


class Size(NamedTuple):
    """Rows of a padded batch: nodes, edges, graphs."""

    nodes: int
    edges: int
    graphs: int


class Bucketed:
    """batches[step]: each epoch all graphs once in a new order, a pure function of the step and the seed.

    The sizes come from batches of the whole data set, so folds and seeds share programs, and are those that pad such
    batches least. The last holds every batch of the run; all are known beforehand.

    Attributes:
        per_epoch: steps of an epoch; the last batch of one may hold fewer graphs.
        sizes: the buckets, small to large, of which some batch is.
        padding: share of node rows that are padding, over the batches of the run.
    """

    def __init__(
        self,
        graphs: Sequence[GraphsTuple],
        labels: np.ndarray,
        members: np.ndarray,
        *,
        batch_size: int,
        epochs: int,
        seed: int = 0,
        buckets: int = 3,
        shards: int = 1,
        others: Sequence[np.ndarray] = (),
    ):
        """Plans the batches.

        Args:
            graphs: the whole data set, from `make_graph`.
            labels: a row per graph.
            members: indices of the graphs to train on.
            batch_size: graphs per step.
            epochs: of the run.
            seed: of the order.
            buckets: sizes of batches, at most.
            shards: parts into which rows must be divisible.
            others: indices of graphs for which `inorder` will be asked; their batches fit in the same sizes.

        Raises:
            ValueError: no graphs, a batch size or number of buckets below 1.
        """
        if not len(members):
            raise ValueError("graphs: found none to train on, expected at least one")
        if batch_size < 1 or buckets < 1:
            raise ValueError(f"batch_size {batch_size}, buckets {buckets}: expected at least 1")
        self._graphs, self._labels, members = graphs, np.asarray(labels), np.asarray(members)

        @functools.lru_cache(maxsize=2)  # the two epochs between which batches are read ahead
        def order(epoch: int) -> np.ndarray:
            return np.random.default_rng((seed, epoch)).permutation(members)

        self._order = order
        self._batch_size = min(batch_size, len(members))
        self.per_epoch = -(-len(members) // self._batch_size)
        each = np.array([(int(g.n_node.sum()), len(g.senders)) for g in graphs])
        asked = [part for epoch in range(epochs) for part in self._parts(self._order(epoch))]
        asked += [part for other in others for part in self._parts(np.asarray(other))]
        needed = np.array([each[part].sum(0) for part in asked])
        multiple, count = math.lcm(EIGHT, shards), round_up(self._batch_size + 1, shards)
        held = _held(each, self._batch_size, buckets)
        held[-1] = np.maximum(held[-1], needed.max(0))
        sizes = [Size(round_up(int(n) + 1, multiple), round_up(int(e), multiple), count) for n, e in held]
        self.sizes = list(dict.fromkeys(sizes))
        rows = sum(self._size(int(n), int(e)).nodes for n, e in needed)
        self.padding = 1.0 - float(needed[:, 0].sum()) / rows

    def __getitem__(self, step: int) -> dict[str, Any]:
        """The batch of a step."""
        epoch, part = divmod(step, self.per_epoch)
        return self._batch(self._parts(self._order(epoch))[part])

    def inorder(self, members: np.ndarray) -> list[dict[str, Any]]:
        """Batches of these graphs in this order; real rows of their outputs, one after the other, are the graphs'."""
        return [self._batch(part) for part in self._parts(np.asarray(members))]

    def _batch(self, part: np.ndarray) -> dict[str, Any]:
        graphs = [self._graphs[i] for i in part]
        nodes, edges = (sum(int(sizes.sum()) for sizes in column) for column in _columns(graphs))
        size = self._size(nodes, edges)
        return graph_rows(graphs, self._labels[part], nodes=size.nodes, edges=size.edges, count=size.graphs)

    def _size(self, nodes: int, edges: int) -> Size:
        return next(size for size in self.sizes if nodes < size.nodes and edges <= size.edges)

    def _parts(self, order: np.ndarray) -> list[np.ndarray]:
        return [order[i : i + self._batch_size] for i in range(0, len(order), self._batch_size)]


def _held(each: np.ndarray, batch_size: int, buckets: int) -> np.ndarray:
    """What the buckets must hold (buckets, 2), from batches of all graphs: the same for every fold and seed."""
    random, found = np.random.default_rng(0), []
    for _ in range(SAMPLED):
        order = each[random.permutation(len(each))]
        found += [order[i : i + batch_size].sum(0) for i in range(0, len(order), batch_size)]
    needed = np.array(found)
    # A batch is as large as its nodes or its edges are, whichever is more unusual.
    load = (needed / np.maximum(needed.mean(0, keepdims=True), 1.0)).max(1)
    held = np.array([needed[load <= bound].max(0) for bound in least_bounds(load, buckets)])
    held[-1] = np.ceil(held[-1] * MARGIN)
    return held


def least_bounds(load: np.ndarray, buckets: int) -> np.ndarray:
    """At most so many upper bounds, rising to the largest load, whose sum over all loads is least.

    The best among `CANDIDATES` quantiles of the loads; of fewer loads than that, the best of all.

    >>> least_bounds(np.array([1.0, 1.1, 1.2, 3.0, 3.1]), 2).tolist()
    [1.2, 3.1]
    """
    bounds = np.unique(np.quantile(load, np.linspace(0, 1, CANDIDATES), method="higher"))
    under = np.searchsorted(np.sort(load), bounds, side="right")  # loads that a bound holds
    least, chosen = under * bounds, [[i] for i in range(len(bounds))]  # with one bucket, by its bound
    for _ in range(buckets - 1):
        # One bucket more: all sums of what the buckets up to bound i take and what the last, of bound j, takes.
        sums = least[:, None] + (under[None] - under[:, None]) * bounds[None]
        before = np.where(np.tri(len(bounds), k=-1, dtype=bool).T, sums, np.inf).argmin(0)
        better = sums[before, np.arange(len(bounds))] < least
        chosen = [[*chosen[before[j]], j] if better[j] else chosen[j] for j in range(len(bounds))]
        least = np.where(better, sums[before, np.arange(len(bounds))], least)
    return bounds[chosen[-1]]


def _columns(graphs: Sequence[GraphsTuple]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [graph.n_node for graph in graphs], [graph.n_edge for graph in graphs]
