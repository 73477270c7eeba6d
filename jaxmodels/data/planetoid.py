"""Citation graphs in the Planetoid layout (Yang et al. 2016, arXiv 1603.08861): cora, citeseer, pubmed.

`<folder>/ind.<name>.{y,tx,allx,ty,ally,graph}` are pickles of Python 2, `ind.<name>.test.index` is text: row i of tx is
the node on line i of it, row i of allx is node i. Nodes of the graph that are in neither (15 in citeseer) get zero
features and class 0, and are in no split.
"""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from jaxmodels.data.graph_checks import (
    checked_features,
    checked_split,
    described,
    found_file,
    split_of_masks,
    tidy_edges,
)
from jaxmodels.data.graph_files import NodeData, Split
from jaxmodels.data.restricted_pickle import load_pickle
from jaxmodels.data.tables import npz_arrays, table

VAL = 500  # nodes of the public split, after those of training


def planetoid(folder: Path | str, name: str, *, splits: str = "public", dense: bool = True) -> NodeData:
    """One citation graph; undirected, so every edge comes in both directions; self loops are dropped.

    Args:
        folder: holds the files.
        name: 'cora', 'citeseer' or 'pubmed'.
        splits: 'public', the one of 20 nodes per class, 500 and 1,000; or 'geom-gcn', the ten of about 48/32/20 percent
            of Pei et al. 2020 (arXiv 2002.05287), from `<name>_split_0.6_0.2_<i>.npz`.
        dense: features as an array; else as the CSR matrix of the file.

    Raises:
        ValueError: a file is missing or damaged, sizes do not fit each other, or parts of a split overlap.
    """
    if splits not in ("public", "geom-gcn"):
        raise ValueError(f"splits='{splits}': expected public or geom-gcn")
    folder = Path(folder)
    parts = {part: _part(folder, name, part) for part in ("y", "tx", "allx", "ty", "ally", "graph")}
    file = found_file(folder, [f"ind.{name}.test.index"], "one node per line")
    test = table(file, np.int64, columns=1)[:, 0]
    x, labels = _stacked(parts, test, file)
    senders, receivers = _edges(parts["graph"], len(labels), folder / f"ind.{name}.graph")
    x = checked_features(x, str(folder / f"ind.{name}.allx"))
    if splits == "public":
        train = len(parts["y"])
        chosen = [checked_split(range(train), range(train, train + VAL), test, num=len(labels), where=str(file))]
    else:
        chosen = _fixed(folder, name, len(labels))
    return NodeData(
        x=x.toarray() if dense else x,
        labels=labels,
        senders=senders,
        receivers=receivers,
        splits=chosen,
        num_classes=parts["ally"].shape[1],
        metric="accuracy",
        description=described(name, x.shape, len(senders), "both directions, without self loops"),
    )


def _part(folder: Path, name: str, part: str) -> Any:
    file = found_file(folder, [f"ind.{name}.{part}"], "a pickle of the Planetoid layout")
    found = load_pickle(file, arrays=True)
    if part == "graph":
        if not isinstance(found, dict):
            raise ValueError(f"{file}: expected node -> neighbours, found {type(found).__name__}")
    elif part.endswith("y"):
        if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in "iubf":
            raise ValueError(f"{file}: expected labels (nodes, classes), found {type(found).__name__}")
    elif not scipy.sparse.issparse(found):
        raise ValueError(f"{file}: expected a CSR matrix, found {type(found).__name__}")
    return found


def _stacked(parts: dict, test: np.ndarray, file: Path) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """Features and classes of all nodes, in the order of the nodes."""
    tx, ty, allx, ally = (parts[part] for part in ("tx", "ty", "allx", "ally"))
    start = allx.shape[0]
    if not (len(test) == tx.shape[0] == ty.shape[0] and start == ally.shape[0]):
        raise ValueError(
            f"{file}: {len(test)} test nodes, {tx.shape[0]} rows of tx, {ty.shape[0]} of ty; "
            f"{start} rows of allx, {ally.shape[0]} of ally; expected equal numbers"
        )
    if tx.shape[1] != allx.shape[1] or ty.shape[1] != ally.shape[1]:
        raise ValueError(f"{file}: widths of tx and allx, or of ty and ally, differ")
    if len(np.unique(test)) < len(test) or test.min() != start:
        raise ValueError(f"{file}: expected distinct nodes from {start} on, the first after allx; found {test.min()}")
    rows = int(test.max()) + 1
    source = np.full(rows, start + len(test))  # the row after all others, of zeros
    source[:start] = np.arange(start)
    source[test] = start + np.arange(len(test))
    empty = scipy.sparse.csr_matrix((1, allx.shape[1]), dtype=allx.dtype)
    x = scipy.sparse.csr_matrix(scipy.sparse.vstack([allx, tx, empty]))[source]
    y = np.concatenate([ally, ty, np.zeros((1, ally.shape[1]), ally.dtype)])[source]
    return x, y.argmax(axis=1).astype(np.int32)


def _edges(graph: dict, num: int, file: Path) -> tuple[np.ndarray, np.ndarray]:
    pairs = []
    for node, neighbours in graph.items():
        if type(node) is not int or not isinstance(neighbours, list) or {type(other) for other in neighbours} - {int}:
            raise ValueError(
                f"{file}: expected node -> list of nodes, found {str(node)[:40]} -> {str(neighbours)[:40]}"
            )
        pairs += [(node, other) for other in neighbours]
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    senders, receivers, _ = tidy_edges(ends[:, 0], ends[:, 1], num, str(file), reverse=True, loops=False)
    return senders, receivers


def _fixed(folder: Path, name: str, num: int) -> list[Split]:
    files = [found_file(folder, [f"{name}_split_0.6_0.2_{i}.npz"], "a split of geom-gcn") for i in range(10)]
    masks = ("train_mask", "val_mask", "test_mask")
    return [split_of_masks(*npz_arrays(file, masks).values(), num=num, where=str(file)) for file in files]
