"""Serving many tuned models as one: each example of a batch names its task.

One compiled program holds the backbone once and T stacked tuners and heads; every example gathers its own. A new mix of
tasks is new data, never a new compilation. With a bypass tuner the backbone runs once for the whole batch, whatever the
tasks are (Jiang et al. 2023, arXiv 2310.19859).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.tuning.classifier import features
from jaxmodels.tuning.heads import Head, linear_head
from jaxmodels.tuning.multitask import Stacked, check_shareable, shared_batch
from jaxmodels.tuning.tuner import Tuner


def serve(
    backbone: Backbone, tuner: Tuner, *, head: Head | None = None
) -> Callable[[Any, Stacked, jax.Array, Any], Float[Array, "b c"]]:
    """A compiled function that answers each example by its own task.

    Args:
        backbone: shared by the tasks.
        tuner: of one kind for all tasks; activation, weight or bypass.
        head: `linear_head()` unless given.

    Returns:
        (backbone params, stacked tasks, images (B, H, W, 3), task ids (B,)) -> logits (B, C). Stack tasks by
        `multitask.stack_tasks`. A task id outside [0, T) is a ValueError; inside another compiled function, where
        values are not known, its logits are NaN.

    Raises:
        ValueError: a tuner that trains parameters of the backbone.
    """
    head = head or linear_head()
    check_shareable(backbone, tuner)

    @jax.jit
    def answer(backbone_params, stacked, images, task_ids):
        default = tuner.init_state(backbone)

        def one(task, example):
            params = {"backbone": backbone_params, "tuner": task["tuner"]}
            batch = jax.tree.map(lambda x: x[None], example)
            pooled = features(backbone, tuner, params, task.get("state", default), batch, None)
            return head.apply(task["head"], pooled)[0]

        batch = shared_batch(backbone, tuner, backbone_params, stacked, images)
        return jax.vmap(one)(_gather(stacked, task_ids), batch)

    def checked(backbone_params, stacked, images, task_ids):
        _check_ids(task_ids, images.shape[0], jax.tree.leaves(stacked)[0].shape[0])
        return answer(backbone_params, stacked, images, jnp.asarray(task_ids))

    return checked


def _check_ids(task_ids: Any, examples: int, tasks: int) -> None:
    if jnp.shape(task_ids) != (examples,):
        raise ValueError(f"task_ids: found the shape {jnp.shape(task_ids)}, expected ({examples},), one per image")
    if not jnp.issubdtype(jnp.result_type(task_ids), jnp.integer):
        raise ValueError(f"task_ids: found {jnp.result_type(task_ids)}, expected integers")
    if isinstance(task_ids, jax.core.Tracer):
        return
    wrong = [int(i) for i in np.asarray(task_ids) if not 0 <= i < tasks]
    if wrong:
        raise ValueError(f"task_ids: found {wrong[0]}, expected 0 to {tasks - 1}")


def _gather(stacked: Stacked, task_ids: Int[Array, " b"]) -> Any:
    """Each example's tree; NaN for a task that does not exist, because gathering would clamp to another one's."""

    def take(x: jax.Array) -> jax.Array:
        missing = jnp.where(task_ids < 0, x.shape[0], task_ids)
        fill = jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else 0
        return x.at[missing].get(mode="fill", fill_value=fill)

    return jax.tree.map(take, stacked)
