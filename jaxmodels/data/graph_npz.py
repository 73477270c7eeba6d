"""Node-level data sets that are one .npz file each: the heterophilous graphs and those of gnn-benchmark."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxmodels.data.graph_checks import checked_classes, checked_features, described, split_of_masks, tidy_edges
from jaxmodels.data.graph_files import NodeData, random_split
from jaxmodels.data.pickled_values import csr_of
from jaxmodels.data.tables import npz_arrays

MASKS = ("train_masks", "val_masks", "test_masks")


def heterophilous(file: Path | str, *, undirected: bool = True) -> NodeData:
    """A graph of Platonov et al. 2023 (arXiv 2302.11640): minesweeper, tolokers, questions, amazon_ratings, texas, ...

    The file holds node_features (N, d), node_labels (N,), edges (E, 2) in one direction, and train_masks, val_masks,
    test_masks (S, N): all S splits are returned. Self loops are kept. Two classes are reported by ROC-AUC, more by
    accuracy, as there.

    Args:
        file: `<name>.npz`.
        undirected: add the reverse edges; without it edges stay as in the file.

    Raises:
        ValueError: a missing or damaged file, sizes that do not fit, an edge to no node, parts of a split that overlap,
            features that are not finite.
    """
    file = Path(file)
    found = npz_arrays(file, ("node_features", "node_labels", "edges", *MASKS))
    x, edges = found["node_features"], found["edges"]
    if x.ndim != 2 or edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "iu":
        raise ValueError(
            f"{file}: expected node_features (N, d) and integer edges (E, 2), found {x.shape} and {edges.shape}"
        )
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{file}: node_features: found {x.dtype}, expected real numbers")
    labels, num_classes = checked_classes(found["node_labels"], len(x), str(file))
    masks = [found[name] for name in MASKS]
    if len({mask.shape for mask in masks}) != 1 or masks[0].ndim != 2 or not len(masks[0]):
        raise ValueError(f"{file}: expected masks (splits, {len(x)}), found {', '.join(str(m.shape) for m in masks)}")
    senders, receivers, _ = tidy_edges(edges[:, 0], edges[:, 1], len(x), str(file), reverse=undirected, loops=True)
    what = "both directions" if undirected else "as in the file"
    return NodeData(
        x=checked_features(x, str(file)),
        labels=labels,
        senders=senders,
        receivers=receivers,
        splits=[
            split_of_masks(*parts, num=len(x), where=f"{file}: split {i}")
            for i, parts in enumerate(zip(*masks, strict=True))
        ],
        num_classes=num_classes,
        metric="roc_auc" if num_classes == 2 else "accuracy",
        description=described(file.stem, x.shape, len(senders), what),
    )


def gnn_benchmark(file: Path | str, *, seeds: Sequence[int] = (0,), dense: bool = True) -> NodeData:
    """A graph of Shchur et al. 2018 (arXiv 1811.05868): amazon_electronics_photo, ms_academic_cs, ...

    The file holds CSR pieces adj_{data,indices,indptr,shape} and attr_{data,indices,indptr,shape}, and labels (N,).
    Features become 0 or 1 (what is above 0), edges get their reverse and lose self loops, as PyTorch Geometric does.
    The files have no split: one random 60/20/20 per seed.

    Args:
        file: `<name>.npz`.
        seeds: of the splits.
        dense: features as an array; else as a CSR matrix.

    Raises:
        ValueError: a missing or damaged file, CSR pieces that do not fit, or features that are not finite.
    """
    file = Path(file)
    if not seeds:
        raise ValueError("seeds: expected at least one")
    pieces = [f"{matrix}_{part}" for matrix in ("adj", "attr") for part in ("data", "indices", "indptr", "shape")]
    found = npz_arrays(file, (*pieces, "labels"))
    adjacency, x = (_matrix(found, name, file) for name in ("adj", "attr"))
    num = x.shape[0]
    if adjacency.shape != (num, num):
        raise ValueError(f"{file}: expected adjacency ({num}, {num}) of {num} nodes, found {adjacency.shape}")
    labels, num_classes = checked_classes(found["labels"], num, str(file))
    x = checked_features(x, str(file))
    x.data = (x.data > 0).astype(np.float32)
    x.eliminate_zeros()
    edges = adjacency.tocoo()
    senders, receivers, _ = tidy_edges(edges.row, edges.col, num, str(file), reverse=True, loops=False)
    return NodeData(
        x=x.toarray() if dense else x,
        labels=labels,
        senders=senders,
        receivers=receivers,
        splits=[random_split(num, seed) for seed in seeds],
        num_classes=num_classes,
        metric="accuracy",
        description=described(file.stem, x.shape, len(senders), "both directions, without self loops"),
    )


def _matrix(found: dict[str, np.ndarray], name: str, file: Path):
    data, indices, indptr, shape = (found[f"{name}_{part}"] for part in ("data", "indices", "indptr", "shape"))
    flat = all(part.ndim == 1 for part in (data, indices, indptr)) and indices.dtype.kind + indptr.dtype.kind == "ii"
    if not flat or data.dtype.kind not in "biuf" or shape.shape != (2,):
        raise ValueError(f"{file}: expected the pieces of a CSR matrix in {name}_data, _indices, _indptr, _shape")
    try:
        return csr_of(data, indices, indptr, shape=(int(shape[0]), int(shape[1])))
    except ValueError as error:
        raise ValueError(f"{file}: {name}: {error}") from None
