"""Graphs as batches whose every array has rows (nodes, edges or graphs), which the one trainer can split over devices.

A trainer splits each array of a batch along its first axis. The two sizes of a whole padded graph are no such array, so
a whole graph travels with a mark on its real nodes, from which the sizes follow. Edges are then split over devices, and
XLA gathers the node states that a device's edges read.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jraph import GraphsTuple

from jaxmodels.graphs.graph import batch_graphs
from jaxmodels.method import Batch, Method

EIGHT = 8  # rows come in multiples of it, whatever the number of devices


def node_rows(
    graph: GraphsTuple, label: Any, mask: Any, *, shards: int = 1, room: tuple[int, int] | None = None
) -> dict[str, Any]:
    """One whole graph as a batch.

    Args:
        graph: one unpadded graph, from `make_graph`.
        label: one row per node.
        mask: (N,), 1 for the nodes that count, such as those of the training split.
        shards: parts into which rows must be divisible.
        room: rows of nodes and edges; as few as hold the graph unless given.

    Returns:
        'nodes', 'real' (1 for real nodes), 'senders', 'receivers', 'label', 'mask' and, where the graph has edge
        attributes, 'edges'. At least one node row is padding.
    """
    count, multiple = int(graph.n_node.sum()), math.lcm(EIGHT, shards)
    rows, edges = room or (round_up(count + 1, multiple), round_up(len(graph.senders), multiple))
    padded = batch_graphs([graph], nodes=rows, edges=edges, count=2)
    return {
        **_shared(padded),
        "real": (np.arange(rows) < count).astype(np.float32),
        "label": _padded(np.asarray(label), rows),
        "mask": _padded(np.asarray(mask, np.float32), rows),
    }


class Repeated:
    """The same batch at every step: batches[step] of full-graph training.

    Attributes:
        sizes: of batches, for whoever counts programs.
    """

    sizes = (1,)

    def __init__(self, batch: Batch):
        """Takes the batch, such as that of `node_rows`."""
        self._batch = batch

    def __getitem__(self, step: int) -> Batch:
        """The batch."""
        return self._batch


def graph_rows(graphs: Sequence[GraphsTuple], label: Any, *, nodes: int, edges: int, count: int) -> dict[str, Any]:
    """Several graphs as a batch of so many rows; 'mask' is 1 for the real graphs.

    Args:
        graphs: from `make_graph`; one without nodes or edges is fine.
        label: one row per graph.
        nodes: node rows, more than the graphs have.
        edges: edge rows.
        count: graph rows, more than there are graphs.
    """
    padded = batch_graphs(graphs, nodes=nodes, edges=edges, count=count)
    mask = (np.arange(count) < len(graphs)).astype(np.float32)
    sizes = {"n_node": padded.n_node, "n_edge": padded.n_edge}
    return {**_shared(padded), **sizes, "label": _padded(np.asarray(label), count), "mask": mask}


def graph_of(batch: Batch) -> GraphsTuple:
    """The padded graph of a batch from `node_rows` or `graph_rows`."""
    if "n_node" in batch:
        sizes = batch["n_node"], batch["n_edge"]
    else:
        real = jnp.asarray(batch["real"]).sum().astype(jnp.int32)
        edges = (jnp.asarray(batch["receivers"]) < real).sum().astype(jnp.int32)
        rows, ends = batch["real"].shape[0], batch["receivers"].shape[0]
        sizes = jnp.stack([real, rows - real]), jnp.stack([edges, ends - edges])
    return GraphsTuple(batch["nodes"], batch.get("edges"), batch["receivers"], batch["senders"], None, *sizes)


def on_rows(method: Method, example: Batch | None = None) -> Method:
    """A method over graphs (`graph_method`) as one over batches of rows.

    Args:
        method: whose batches hold 'graph', 'label' and 'mask'.
        example: a batch, or its shapes (`jax.ShapeDtypeStruct`), for a trainer or planner that has none yet: `init`
            then needs no batch, and `batch` tells the shapes.
    """

    def inner(batch: Batch) -> dict[str, Any]:
        return {"graph": graph_of(batch), "label": batch.get("label"), "mask": batch.get("mask")}

    def init(key, batch):
        if batch is None and example is not None:
            batch = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in example.items()}
        return method.init(key, None if batch is None else inner(batch))

    def loss(variables, batch, key):
        return method.loss(variables, inner(batch), key)

    def predict(variables, batch):
        return method.predict(variables, inner(batch))

    def shapes(rows: int) -> Batch:
        assert example is not None
        found = np.shape(example["label"])[0]
        if rows != found:
            raise ValueError(f"batch_size: found {rows}, expected {found}, the rows of the graph")
        return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in example.items()}

    return method._replace(init=init, loss=loss, predict=predict, batch=None if example is None else shapes)


def node_shapes(nodes: int, edges: int, features: int, *, shards: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
    """What `node_rows` gives for a graph of that size with class labels, as shapes alone."""
    multiple = math.lcm(EIGHT, shards)
    rows, ends = round_up(nodes + 1, multiple), jax.ShapeDtypeStruct((round_up(edges, multiple),), jnp.int32)
    one = jax.ShapeDtypeStruct((rows,), jnp.float32)
    return {
        "nodes": jax.ShapeDtypeStruct((rows, features), jnp.float32),
        "senders": ends,
        "receivers": ends,
        "real": one,
        "label": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "mask": one,
    }


def round_up(size: int, multiple: int) -> int:
    """The next multiple, at least one.

    >>> round_up(0, 8), round_up(9, 8)
    (8, 16)
    """
    return max(1, -(-size // multiple)) * multiple


def _shared(padded: GraphsTuple) -> dict[str, Any]:
    found = {"nodes": padded.nodes, "senders": padded.senders, "receivers": padded.receivers}
    return found if padded.edges is None else {**found, "edges": padded.edges}


def _padded(values: np.ndarray, rows: int) -> np.ndarray:
    return np.concatenate([values, np.zeros((rows - len(values), *values.shape[1:]), values.dtype)])
