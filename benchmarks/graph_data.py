"""Data sets of the graph benchmarks, read once: one padded batch per node set, masks per split."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.data.graph_files import NodeData, Split
from jaxmodels.data.graph_npz import heterophilous
from jaxmodels.data.planetoid import planetoid
from jaxmodels.graphs.graph import batch_graphs, make_graph

PLANETOID = ("cora", "citeseer")
NODE_SETS = (
    *PLANETOID, "actor", "chameleon_filtered", "squirrel_filtered", "minesweeper", "texas", "cornell", "wisconsin",
)  # fmt: skip


class Nodes(NamedTuple):
    """A node set: what the reader gave, and the padded graph with labels that every split shares."""

    data: NodeData
    batch: dict[str, Any]

    def masks(self, split: int) -> dict[str, np.ndarray]:
        """Rows of the padded graph in each part of a split, 1 or 0."""
        parts: Split = self.data.splits[split]
        rows = np.arange(len(self.batch["label"]))
        named = zip(("train", "val", "test"), parts, strict=True)
        return {name: np.isin(rows, part).astype(np.float32) for name, part in named}


@functools.cache
def node_set(data_dir: Path, name: str) -> Nodes:
    """A node set; the rows of cora's and citeseer's features sum to 1, for every method."""
    folder = data_dir / name
    if name in PLANETOID:
        data = planetoid(folder, name, splits="geom-gcn")
        data = data._replace(x=data.x / np.maximum(data.x.sum(1, keepdims=True), 1.0))
    else:
        data = heterophilous(folder / f"{name}.npz")
    order = np.lexsort((data.senders, data.receivers))  # by receiver, which spares N2 a sort
    graph = make_graph(data.x.astype(np.float32), data.senders[order], data.receivers[order])
    # One spare row for padding, and a multiple of 8; edges exactly: a single graph needs no buckets.
    padded = batch_graphs([graph], nodes=8 * (len(data.x) // 8 + 1), edges=len(data.senders))
    label = np.zeros(len(padded.nodes), np.int32)
    label[: len(data.labels)] = data.labels
    return Nodes(data, {"graph": padded, "label": label})
