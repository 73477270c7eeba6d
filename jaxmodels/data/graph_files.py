"""What every reader of graph files returns, and how nodes and graphs without fixed splits are divided.

Edges run from `senders` to `receivers`. Readers keep the directions of the files and add the reverse edges only where
the data set is an undirected one by convention; each says which it does. Edges come without duplicates, sorted by
sender, then receiver.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold


class Split(NamedTuple):
    """Indices (int64) of nodes or graphs; the three parts share none, and may leave some out.

    Attributes:
        train: to learn from.
        val: to choose by; empty where the data set has none.
        test: to report on.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


class NodeData(NamedTuple):
    """One graph whose nodes are classified.

    Attributes:
        x: features, (N, d) float32 (int32 where they are categories), or scipy CSR.
        labels: (N,) int32, or (N, T) float32 of T binary tasks with NaN where unknown.
        senders: (E,) int32.
        receivers: (E,) int32.
        splits: at least one.
        num_classes: classes, or tasks where labels are (N, T).
        metric: 'accuracy' or 'roc_auc', by which the data set is reported.
        description: one line: sizes, and what was done to the edges.
        edge_features: (E, k) float32 (int32 where they are categories), or None.
    """

    x: Any
    labels: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    splits: list[Split]
    num_classes: int
    metric: str
    description: str
    edge_features: np.ndarray | None = None


class Graph(NamedTuple):
    """One graph of many: x (n, d), senders (e,) int32, receivers (e,) int32, edge_features (e, k) or None."""

    x: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    edge_features: np.ndarray | None = None


class GraphData(NamedTuple):
    """Graphs that are classified, or given T targets each.

    Attributes:
        graphs: in the order of the file.
        labels: (G,) int32, or (G, T) float32 of T tasks with NaN where unknown.
        splits: folds of cross validation or the data set's own splits.
        num_classes: classes, or tasks where labels are (G, T).
        metric: by which the data set is reported.
        description: one line: sizes and features.
    """

    graphs: list[Graph]
    labels: np.ndarray
    splits: list[Split]
    num_classes: int
    metric: str
    description: str


def random_split(num: int, seed: int, *, share: float = 0.2) -> Split:
    """`share` for validation and as much for test, rounded down, from the front of one permutation; the rest trains.

    >>> [len(part) for part in random_split(14, seed=0)]
    [10, 2, 2]
    """
    if not 0 < share < 0.5:
        raise ValueError(f"share={share}: expected one between 0 and 0.5, as validation and test take one each")
    order, cut = np.random.default_rng(seed).permutation(num), int(num * share)
    return Split(train=order[2 * cut :], val=order[:cut], test=order[cut : 2 * cut])


def stratified_folds(labels: np.ndarray, *, folds: int = 10, seed: int = 42) -> list[Split]:
    """Cross validation with every class in every fold; each fold is tested once, on a fit to the others.

    There is no validation part, as is usual for these data sets (Xu et al. 2019, arXiv 1810.00826, choose the epoch by
    the mean over the folds).

    Args:
        labels: (G,) classes.
        folds: how many.
        seed: of the shuffle.

    Raises:
        ValueError: a class has fewer members than there are folds.
    """
    fewest = int(np.unique(labels, return_counts=True)[1].min())
    if not 2 <= folds <= fewest:
        raise ValueError(f"folds={folds}: expected 2 to {fewest}, the size of the smallest class")
    cuts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)
    return [Split(train, np.zeros(0, np.int64), test) for train, test in cuts]
