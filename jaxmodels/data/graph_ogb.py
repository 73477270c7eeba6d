"""Data sets of the Open Graph Benchmark (Hu et al. 2020, arXiv 2005.00687) as their archives unpack.

`<folder>/raw/` holds tables without headers, as .csv or .csv.gz: `edge`, `num-node-list`, `num-edge-list`, `node-label`
or `graph-label` and, where the data set has them, `node-feat`, `edge-feat`, `node_species`.
`<folder>/split/<kind>/{train,valid,test}` list the nodes or graphs of its split.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmodels.data.graph_checks import (
    categories,
    checked_features,
    checked_split,
    cut_graphs,
    described,
    found_file,
    tidy_edges,
)
from jaxmodels.data.graph_files import GraphData, NodeData, Split
from jaxmodels.data.tables import table

OF_CLASSES = ("accuracy", "f1", "f1_micro")  # metrics of one column of classes
OF_TASKS = ("roc_auc", "average_precision", "average_precision_micro")  # of columns of 0 and 1
METRICS = (*OF_CLASSES, *OF_TASKS, "mae")


def ogb_nodes(
    folder: Path | str, *, metric: str, reverse: bool, split: str | None = None, categorical: bool = False
) -> NodeData:
    """One node-level data set (ogbn-arxiv, ogbn-proteins, ...).

    Args:
        folder: e.g. `ogbn_arxiv`, with `raw` and `split`.
        metric: by which it is reported, one of `METRICS`; it says what the labels are, see below.
        reverse: add the reverse of every edge, as OGB does for undirected sets (ogbn-proteins: yes, ogbn-arxiv: no).
        split: name of the folder below `split`; None takes the only one.
        categorical: features are category numbers, kept as int32; else float32.

    Returns:
        the graph, features from `node-feat`, else the one-hot species; self loops stay. Targets of 'mae' are (N, T)
        numbers. Otherwise one column is (N,) classes; several are (N, T) tasks of 0 and 1, and so is one with rows that
        are unlabelled (empty or NaN, as everywhere in OGB) where the metric is one of 0 and 1.

    Raises:
        ValueError: a missing file, a line that is no row of it (named), numbers of rows that do not fit, an edge to no
            node, features that are not finite, a label that is none (its row is named), parts of the split that
            overlap.
    """
    raw = _Raw.read(Path(folder), metric, "node-label", categorical, reverse)
    if len(raw.ends) != 1:
        raise ValueError(f"{folder}: expected one graph, found {len(raw.ends)}")
    return NodeData(
        x=raw.x,
        labels=raw.labels,
        senders=raw.senders,
        receivers=raw.receivers,
        splits=[_split(Path(folder), split, len(raw.labels))],
        num_classes=raw.num_classes,
        metric=metric,
        description=described(
            Path(folder).name, raw.x.shape, len(raw.senders), "both directions" if reverse else "as in the file"
        ),
        edge_features=raw.edge_features,
    )


def ogb_graphs(
    folder: Path | str, *, metric: str, reverse: bool, split: str | None = None, categorical: bool = False
) -> GraphData:
    """One graph-level data set (ogbg-molpcba, ogbg-molhiv, ...).

    Args:
        folder: e.g. `ogbg_molpcba`, with `raw` and `split`.
        metric: as of `ogb_nodes`.
        reverse: add the reverse of every edge (molecules: yes).
        split: name of the folder below `split`; None takes the only one.
        categorical: features of nodes and edges are category numbers (molecules), kept as int32; else float32.

    Raises:
        ValueError: as of `ogb_nodes`; and a graph without nodes.
    """
    raw = _Raw.read(Path(folder), metric, "graph-label", categorical, reverse)
    sizes = f"{len(raw.ends)} graphs, {len(raw.x)} nodes, {raw.x.shape[1]} features, {len(raw.senders)} directed edges"
    return GraphData(
        graphs=cut_graphs(raw.x, raw.senders, raw.receivers, raw.edge_features, raw.ends),
        labels=raw.labels,
        splits=[_split(Path(folder), split, len(raw.labels))],
        num_classes=raw.num_classes,
        metric=metric,
        description=f"{Path(folder).name}: {sizes}",
    )


class _Raw(NamedTuple):
    """The tables: all graphs as one, `ends` the first node after each."""

    x: np.ndarray
    labels: np.ndarray
    num_classes: int
    senders: np.ndarray
    receivers: np.ndarray
    edge_features: np.ndarray | None
    ends: np.ndarray

    @classmethod
    def read(cls, folder: Path, metric: str, labels: str, categorical: bool, reverse: bool) -> "_Raw":
        if metric not in METRICS:
            raise ValueError(f"metric='{metric}': expected one of {', '.join(METRICS)}")
        raw = folder / "raw"
        sizes, edge_sizes = _sizes(raw)
        ends, kind = np.cumsum(sizes), np.int32 if categorical else np.float64
        of_rows = int(ends[-1]) if labels == "node-label" else len(sizes)
        values, num_classes = _labels(raw, labels, of_rows, metric)
        edges = _table(raw, "edge", np.int64, int(edge_sizes.sum()), 2)
        graph = np.repeat(np.arange(len(sizes)), edge_sizes)
        outside = np.flatnonzero(((edges < 0) | (edges >= sizes[graph][:, np.newaxis])).any(axis=1))
        if len(outside):
            row = outside[0]
            found = f"edge {edges[row, 0]},{edges[row, 1]} of graph {graph[row]}, which has {sizes[graph[row]]} nodes"
            raise ValueError(f"{_file(raw, 'edge')}:{row + 1}: {found}")
        edges = edges + (ends - sizes)[graph][:, np.newaxis]
        of_edges = _features(raw, "edge-feat", kind, len(edges)) if _has(raw, "edge-feat") else None
        senders, receivers, of_edges = tidy_edges(
            edges[:, 0], edges[:, 1], int(ends[-1]), str(raw), reverse=reverse, loops=True, features=of_edges
        )
        return cls(_nodes(raw, kind, int(ends[-1])), values, num_classes, senders, receivers, of_edges, ends)


def _sizes(raw: Path) -> tuple[np.ndarray, np.ndarray]:
    nodes = _table(raw, "num-node-list", np.int64, None, 1)[:, 0]
    edges = _table(raw, "num-edge-list", np.int64, len(nodes), 1)[:, 0]
    for name, counts, least in (("num-node-list", nodes, 1), ("num-edge-list", edges, 0)):
        if not len(counts) or counts.min() < least:
            what = f"graph {counts.argmin()} has {counts.min()}" if len(counts) else "no graphs"
            raise ValueError(f"{_file(raw, name)}: {what}; expected at least {least} in every graph")
    return nodes, edges


def _nodes(raw: Path, kind: type, rows: int) -> np.ndarray:
    if not _has(raw, "node-feat") and _has(raw, "node_species"):
        return categories(_table(raw, "node_species", np.int64, rows, 1))
    return _features(raw, "node-feat", kind, rows)


def _features(raw: Path, name: str, kind: type, rows: int) -> np.ndarray:
    found = _table(raw, name, kind, rows, None)
    return found if found.dtype == np.int32 else checked_features(found, str(_file(raw, name)))


def _labels(raw: Path, name: str, rows: int, metric: str) -> tuple[np.ndarray, int]:
    values = _table(raw, name, np.float64, rows, None, blank_is_nan=True)
    file, unknown, one = _file(raw, name), np.isnan(values), values.shape[1] == 1
    if metric == "mae":
        _refuse(values, np.isinf(values), file, "a number or nothing")
        return values.astype(np.float32), values.shape[1]
    whole = np.isfinite(values) & (values >= 0) & (values == np.floor(values))
    if one and (whole.all() or metric in OF_CLASSES):
        _refuse(values, ~whole, file, "a class (0, 1, 2, ...)")
        return values[:, 0].astype(np.int32), int(values.max()) + 1
    _refuse(values, ~(unknown | (values == 0) | (values == 1)), file, "0, 1 or nothing (unlabelled)")
    return values.astype(np.float32), values.shape[1]


def _refuse(values: np.ndarray, wrong: np.ndarray, file: Path, expected: str) -> None:
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        found = "nothing" if np.isnan(values[row, column]) else f"{values[row, column]:g}"
        raise ValueError(f"{file}: row {row} holds {found}, expected {expected}")


def _split(folder: Path, name: str | None, num: int) -> Split:
    split = folder / "split"
    known = sorted(entry.name for entry in split.iterdir() if entry.is_dir()) if split.is_dir() else []
    if name is None and len(known) == 1:
        name = known[0]
    if name not in known:
        asked = f"found no '{name}'" if name else "found several" if known else "found none"
        raise ValueError(f"{split}: expected the folder of one split; {asked}, of {', '.join(known) or 'nothing'}")
    parts = [_table(split / name, part, np.int64, None, 1)[:, 0] for part in ("train", "valid", "test")]
    return checked_split(*parts, num=num, where=str(split / name))


def _has(folder: Path, name: str) -> bool:
    return any((folder / f"{name}{suffix}").is_file() for suffix in (".csv.gz", ".csv"))


def _file(folder: Path, name: str) -> Path:
    return found_file(folder, [f"{name}.csv.gz", f"{name}.csv"], "of the extracted OGB archive")


def _table(
    folder: Path, name: str, kind: type, rows: int | None, columns: int | None, *, blank_is_nan: bool = False
) -> np.ndarray:
    found = table(_file(folder, name), kind, columns=columns, blank_is_nan=blank_is_nan)
    if rows is not None and len(found) != rows:
        raise ValueError(f"{_file(folder, name)}: expected {rows} rows, found {len(found)}")
    return found
