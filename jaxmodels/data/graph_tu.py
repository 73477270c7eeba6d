"""Graph-level data sets as TUDataset hands them out (Morris et al. 2020, arXiv 2007.08663): one text file per property.

`<NAME>_A.txt` lists edges "i, j" of nodes numbered from 1 over all graphs, `<NAME>_graph_indicator.txt` each node's
graph from 1, `<NAME>_graph_labels.txt` each graph's class; `_node_labels`, `_node_attributes` and `_edge_labels` are
optional.
"""

from pathlib import Path

import numpy as np

from jaxmodels.data.graph_checks import (
    categories,
    checked_features,
    cut_graphs,
    degree_features,
    found_file,
    tidy_edges,
)
from jaxmodels.data.graph_files import GraphData, stratified_folds
from jaxmodels.data.tables import table


def tu_graphs(
    folder: Path | str, *, name: str | None = None, attributes: bool = False, edge_labels: bool = False, folds: int = 10
) -> GraphData:
    """One data set; node features are its one-hot node labels, or one-hot degrees where it has none.

    Edges keep the directions of the file (which lists both); self loops stay. Classes are numbered in rising order of
    the file's. The folds are `stratified_folds` with seed 42.

    Args:
        folder: holds the files; a folder `raw` in it will do.
        name: how the files begin; None takes the folder's name.
        attributes: append the node attributes to the features.
        edge_labels: one-hot edge labels as edge features; else there are none.
        folds: number of folds.

    Raises:
        ValueError: a missing file, a line that is no row of it (named), nodes that are not listed graph by graph, a
            graph without nodes, an edge to no node or between two graphs, or attributes that are not finite.
    """
    folder = Path(folder)
    name = name or folder.name
    if (folder / "raw" / f"{name}_A.txt").is_file():
        folder = folder / "raw"

    def read(part: str, dtype: type, columns: int | None, rows: int | None = None) -> np.ndarray:
        file = found_file(folder, [f"{name}_{part}.txt"], "of the TU text format")
        found = table(file, dtype, columns=columns)
        if rows is not None and len(found) != rows:
            raise ValueError(f"{file}: expected {rows} lines, found {len(found)}")
        return found

    edges, indicator, classes = (
        read("A", np.int64, 2),
        read("graph_indicator", np.int64, 1),
        read("graph_labels", np.int64, 1),
    )
    ends = _ends(indicator[:, 0], len(classes), folder / f"{name}_graph_indicator.txt")
    num, where = len(indicator), str(folder / f"{name}_A.txt")
    _check_edges(edges, indicator[:, 0], where)
    of_edges = categories(read("edge_labels", np.int64, None, len(edges))) if edge_labels else None
    senders, receivers, of_edges = tidy_edges(
        edges[:, 0] - 1, edges[:, 1] - 1, num, where, reverse=False, loops=True, features=of_edges
    )
    if (folder / f"{name}_node_labels.txt").is_file():
        x = categories(read("node_labels", np.int64, None, num))
    else:
        x = degree_features(senders, num)
    if attributes:
        values = read("node_attributes", np.float64, None, num)
        x = np.concatenate([x, checked_features(values, str(folder / f"{name}_node_attributes.txt"))], axis=1)
    known, labels = np.unique(classes[:, 0], return_inverse=True)
    return GraphData(
        graphs=cut_graphs(x, senders, receivers, of_edges, ends),
        labels=labels.astype(np.int32),
        splits=stratified_folds(labels, folds=folds),
        num_classes=len(known),
        metric="accuracy",
        description=f"{name}: {len(classes)} graphs, {num} nodes, {x.shape[1]} features, {len(senders)} directed edges",
    )


def _check_edges(edges: np.ndarray, indicator: np.ndarray, where: str) -> None:
    outside = np.flatnonzero(((edges < 1) | (edges > len(indicator))).any(axis=1))
    if len(outside):
        row = outside[0]
        raise ValueError(
            f"{where}:{row + 1}: edge {edges[row, 0]}, {edges[row, 1]}; expected nodes 1 to {len(indicator)}"
        )
    crossing = np.flatnonzero(np.diff(indicator[edges - 1], axis=1)[:, 0])
    if len(crossing):
        row = crossing[0]
        raise ValueError(f"{where}:{row + 1}: edge {edges[row, 0]}, {edges[row, 1]}; its nodes are of two graphs")


def _ends(indicator: np.ndarray, graphs: int, file: Path) -> np.ndarray:
    """The first node after each graph."""
    falls = np.flatnonzero(np.diff(indicator) < 0)
    if len(falls):
        raise ValueError(f"{file}:{falls[0] + 2}: graph {indicator[falls[0] + 1]} after {indicator[falls[0]]}")
    wrong = np.flatnonzero((indicator < 1) | (indicator > graphs))
    if len(wrong):
        raise ValueError(f"{file}:{wrong[0] + 1}: graph {indicator[wrong[0]]}; expected 1 to {graphs}")
    sizes = np.bincount(indicator, minlength=graphs + 1)[1:]
    if not graphs or not sizes.all():
        which = f"graph {int(sizes.argmin()) + 1} has no nodes" if graphs else "no graphs"
        raise ValueError(f"{file}: {which}")
    return np.cumsum(sizes)
