"""Evaluation: exact means over a data set whose last batch may be padded."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.method import Batch, Mean, Method
from jaxmodels.training.mesh import put_batch
from jaxmodels.training.shapes import Shapes, same_shapes

Metric = Callable[[Any, Batch], dict[str, Mean]]


def top1(logits: jax.Array, batch: Batch) -> dict[str, Mean]:
    """Top-1 accuracy in [0, 1] of logits (B, C) against batch['label'] (B,); the first of tied classes counts."""
    correct = (logits.argmax(-1) == batch["label"]).astype(jnp.float32)
    return {"accuracy": Mean.of(correct, batch.get("mask"))}


@functools.lru_cache(maxsize=32)
def evaluation_step(method: Method, metric: Metric = top1) -> Callable[[Any, Batch], dict[str, Mean]]:
    """The jitted (variables, batch) -> metrics of one batch."""
    return jax.jit(lambda variables, batch: metric(method.predict(variables, batch), batch))


def evaluate(
    method: Method,
    variables: Any,
    batches: Iterable[Batch],
    *,
    metric: Metric = top1,
    mesh: jax.sharding.Mesh | None = None,
) -> dict[str, float]:
    """Means of `metric` over all batches.

    Args:
        method: what to evaluate.
        variables: its parameters and state.
        batches: any iterable; a padded batch carries 'mask' (B,), 1 where an example counts.
        metric: (outputs, batch) -> name -> `Mean`.
        mesh: devices over which batches are spread; with several processes each passes its own rows.

    Returns:
        name -> mean over all examples that count.

    Raises:
        ValueError: there is no batch, or one of another shape than the first.
    """
    step = evaluation_step(method, metric)
    total: dict[str, Mean] | None = None
    first: Shapes | None = None
    for number, batch in enumerate(batches):
        first = same_shapes(first, batch, f"evaluate: batch {number}")
        means = step(variables, batch if mesh is None else put_batch(batch, mesh))
        total = means if total is None else {name: total[name].merge(mean) for name, mean in means.items()}
    if total is None:
        raise ValueError("evaluate: found no batch")
    return {name: mean.value() for name, mean in total.items()}
