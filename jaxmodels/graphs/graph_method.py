"""graph_method: a module over padded graphs as one `Method`."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.graphs import losses
from jaxmodels.graphs.graph import graph_mask, node_mask
from jaxmodels.method import Aux, Mean, Method
from jaxmodels.rules import nearest

TASKS = ("single", "multilabel", "binary", "regression")
KINDS = {"single": ("plain", "weighted", "focal"), "regression": ("plain",)}


def graph_method(module: Any, *, task: str = "single", level: str = "node", loss: str = "plain") -> Method:
    """Learning on nodes or graphs by any module that takes a padded `GraphsTuple`, such as `N2` or a peer.

    A batch holds 'graph', from `batch_graphs`; 'label', one row per node or graph row of it (padding rows hold
    anything); and optionally 'mask', 1 for the rows that count, such as the nodes of the training split. Labels are
    class indices (R,) for 'single', and numbers (R, c), or (R,) for 'binary' and for one target, otherwise, where NaN
    means unlabelled. Every parameter trains. For training over devices, nodes and parameters may be replicated and
    edges split: place 'senders', 'receivers' and 'edges' with their first axis on a mesh axis.

    Args:
        module: with `init` and `apply`, as a Flax module; its outputs are logits or values (R, c). It gets the rngs
            'dropout' and 'sign' in training.
        task: 'single': cross entropy; 'multilabel' and 'binary': binary cross entropy over labelled entries;
            'regression': mean absolute error over labelled entries.
        level: whose rows count, 'node' or 'graph'; if the module has a `level` it must be the same.
        loss: 'plain'; 'weighted' by the rarity of the classes in the batch; 'focal' for 'single'. See
            `jaxmodels.graphs.losses`.

    Returns:
        A `Method` whose predict gives log-probabilities (R, c) for 'single', logits (R,) for 'binary', else the
        outputs (R, c).

    Raises:
        ValueError: an unknown task, level or loss, or another level than the module's.
    """
    if task not in TASKS:
        raise ValueError(f"task: found '{task}', expected one of {', '.join(TASKS)}{nearest(task, TASKS)}")
    if level not in ("node", "graph"):
        raise ValueError(f"level: found '{level}', expected 'node' or 'graph'")
    kind, kinds = loss, KINDS.get(task, ("plain", "weighted"))
    if kind not in kinds:
        raise ValueError(f"loss: found '{kind}', expected one of {', '.join(kinds)} for the task '{task}'")
    if getattr(module, "level", level) != level:
        raise ValueError(f"level: found '{level}', expected '{module.level}' as the module has")

    def init(key, batch):
        if batch is None:
            raise ValueError("batch: found None, expected one batch, whose features the parameters fit")
        variables = module.init(key, batch["graph"])
        return {"params": variables["params"], "state": {}}

    def outputs(variables, graph, key):
        rngs = None if key is None else dict(zip(("dropout", "sign"), jax.random.split(key), strict=True))
        out = module.apply({"params": variables["params"]}, graph, rngs=rngs)
        if task == "single":
            return jax.nn.log_softmax(out)
        return out.reshape(-1) if task == "binary" else out

    def loss_of(variables, batch, key):
        graph = batch["graph"]
        out = outputs(variables, graph, key)
        rows = node_mask(graph) if level == "node" else graph_mask(graph)
        if batch.get("mask") is not None:
            rows = rows & (jnp.asarray(batch["mask"]) > 0)
        entries, weights, score = _losses(task, kind, out, jnp.asarray(batch["label"]), rows)
        mean = Mean.of(entries, weights)
        name = {"single": "accuracy", "regression": "mae"}.get(task, "entry_accuracy")
        aux = Aux(variables["state"], {"loss": mean, name: Mean.of(score, (weights > 0).astype(score.dtype))})
        return mean.total / jnp.where(mean.weight > 0, mean.weight, 1.0), aux

    def predict(variables, batch):
        return outputs(variables, batch["graph"], None)

    return Method(init, loss_of, predict, ((".*", "model"),))


def _losses(task: str, kind: str, out: Any, label: Any, rows: Any) -> tuple[Any, Any, Any]:
    """Loss, weight in the mean, and score of each entry."""
    if task == "single":
        label = jnp.where(rows, label, 0).astype(jnp.int32)
        return *losses.nll(out, label, rows, kind=kind), (out.argmax(-1) == label).astype(out.dtype)
    label = label.reshape(out.shape)
    labelled = ~jnp.isnan(label) & rows.reshape(-1, *(1,) * (out.ndim - 1))
    # Where an entry does not count its label must not either: 0 * NaN is NaN, in the gradient too.
    label = jnp.where(labelled, label, 0.0).astype(out.dtype)
    if task == "regression":
        errors = jnp.where(labelled, jnp.abs(out - label), 0.0)
        return errors, labelled.astype(out.dtype), errors
    return *losses.bce(out, label, labelled, kind=kind), ((out > 0) == (label > 0.5)).astype(out.dtype)
