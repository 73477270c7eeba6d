"""What is checked and arranged alike whichever file a graph came from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from jaxmodels.data.graph_files import Graph, Split


def checked_split(train: Any, val: Any, test: Any, *, num: int, where: str) -> Split:
    """Three lists of indices as a split of `num` nodes or graphs.

    Raises:
        ValueError: an index outside [0, num), one that occurs twice, or nothing to train on.
    """
    split = Split(*(np.asarray(part, np.int64).reshape(-1) for part in (train, val, test)))
    for name, part in zip(Split._fields, split, strict=True):
        if len(part) and not (0 <= part.min() and part.max() < num):
            found = part.max() if part.max() >= num else part.min()
            raise ValueError(f"{where}: {name} index {found}; expected 0 to {num - 1}")
        if len(np.unique(part)) < len(part):
            raise ValueError(f"{where}: {name} lists an index twice")
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = np.intersect1d(getattr(split, first), getattr(split, second))
        if len(shared):
            raise ValueError(f"{where}: {first} and {second} share {len(shared)} indices, the first is {shared[0]}")
    if not len(split.train):
        raise ValueError(f"{where}: nothing to train on")
    return split


def split_of_masks(train: np.ndarray, val: np.ndarray, test: np.ndarray, *, num: int, where: str) -> Split:
    """Three masks (num,) of 0 and 1 as a split."""
    for name, mask in zip(Split._fields, (train, val, test), strict=True):
        if mask.shape != (num,) or mask.dtype.kind not in "bui" or not np.isin(mask, (0, 1)).all():
            raise ValueError(f"{where}: expected a {name} mask ({num},) of 0 and 1, found {mask.dtype} {mask.shape}")
    return checked_split(*(np.flatnonzero(mask) for mask in (train, val, test)), num=num, where=where)


def tidy_edges(
    senders: Any, receivers: Any, num: int, where: str, *, reverse: bool, loops: bool, features: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Edges without duplicates, sorted by sender, then receiver.

    Args:
        senders: (E,) integers.
        receivers: (E,) integers.
        num: number of nodes.
        where: file, for messages.
        reverse: add the reverse of every edge.
        loops: keep edges from a node to itself.
        features: (E, k) of the edges, or None; of duplicates the first one's stay, and a reverse edge has its edge's.

    Returns:
        senders and receivers (int32), and the features.

    Raises:
        ValueError: a node outside [0, num); its edge is named.
    """
    ends = np.stack([np.asarray(senders, np.int64), np.asarray(receivers, np.int64)])
    outside = np.flatnonzero(((ends < 0) | (ends >= num)).any(axis=0))
    if len(outside):
        edge = outside[0]
        raise ValueError(f"{where}: edge {edge} is ({ends[0, edge]}, {ends[1, edge]}); expected nodes 0 to {num - 1}")
    kept = np.arange(ends.shape[1])
    if reverse:
        ends, kept = np.concatenate([ends, ends[::-1]], axis=1), np.concatenate([kept, kept])
    if not loops:
        proper = ends[0] != ends[1]
        ends, kept = ends[:, proper], kept[proper]
    _, first = np.unique(ends[0] * num + ends[1], return_index=True)
    out, into = ends[:, first].astype(np.int32)
    return out, into, None if features is None else np.asarray(features)[kept[first]]


def checked_features(x: Any, where: str) -> Any:
    """Features as float32, dense or CSR.

    Raises:
        ValueError: a value that is not finite; its row is named.
    """
    x = x.astype(np.float32)
    values = x.data if scipy.sparse.issparse(x) else x
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values))[0] if values.ndim == 1 else np.argwhere(~np.isfinite(values))[0]
        row = np.searchsorted(x.indptr, bad, side="right") - 1 if scipy.sparse.issparse(x) else np.ravel(bad)[0]
        raise ValueError(f"{where}: features of row {row} hold NaN or infinity")
    return x


def checked_classes(labels: Any, num: int, where: str) -> tuple[np.ndarray, int]:
    """Class numbers (N,) as int32, and the number of classes (the largest plus one).

    Raises:
        ValueError: another shape or type, or a negative class.
    """
    labels = np.asarray(labels)
    if labels.shape != (num,) or labels.dtype.kind not in "iu":
        raise ValueError(f"{where}: expected ({num},) integer labels, found {labels.dtype} {labels.shape}")
    if not num:
        raise ValueError(f"{where}: expected at least one node")
    if labels.min() < 0:
        raise ValueError(f"{where}: row {labels.argmin()} has label {labels.min()}; expected 0 or more")
    return labels.astype(np.int32), int(labels.max()) + 1


def cut_graphs(
    x: np.ndarray, senders: np.ndarray, receivers: np.ndarray, edge_features: np.ndarray | None, ends: np.ndarray
) -> list[Graph]:
    """One graph of many components, edges sorted by sender, as many graphs.

    Args:
        x: (N, d).
        senders: (E,).
        receivers: (E,).
        edge_features: (E, k) or None.
        ends: (G,), the first node after each graph.
    """
    starts = np.concatenate([[0], ends[:-1]])
    firsts, lasts = np.searchsorted(senders, starts), np.searchsorted(senders, ends)
    graphs = []
    for start, end, first, last in zip(starts, ends, firsts, lasts, strict=True):
        of_edges = None if edge_features is None else edge_features[first:last]
        shift = np.int32(start)
        graphs.append(Graph(x[start:end], senders[first:last] - shift, receivers[first:last] - shift, of_edges))
    return graphs


def categories(values: np.ndarray) -> np.ndarray:
    """Columns of integers (n, c) as one-hot columns of the distinct values of each, in rising order, side by side."""
    columns = [np.unique(column, return_inverse=True) for column in values.T]
    return np.concatenate([one_hot(numbers, len(known)) for known, numbers in columns], axis=1)


def degree_features(senders: np.ndarray, num: int) -> np.ndarray:
    """One-hot degrees (num, largest degree + 1), as for graphs whose nodes have no features."""
    degrees = np.bincount(senders, minlength=num)
    return one_hot(degrees, int(degrees.max()) + 1)


def one_hot(values: np.ndarray, num: int) -> np.ndarray:
    """(n,) integers in [0, num) as (n, num) float32."""
    out = np.zeros((len(values), num), np.float32)
    out[np.arange(len(values)), values] = 1
    return out


def described(name: str, shape: tuple[int, ...], edges: int, what: str) -> str:
    """The one line of a node-level data set."""
    num, width = shape
    return f"{name}: {num} nodes, {width} features, {edges} directed edges ({what})"


def found_file(folder: Path, names: Sequence[str], what: str) -> Path:
    """The first of `names` that is in the folder.

    Raises:
        ValueError: none is; says what was expected.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder}: expected {' or '.join(names)} ({what}), found {_held(folder)}")


def _held(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:6]) + (f", ... ({len(names)} entries)" if len(names) > 6 else "") or "nothing"
