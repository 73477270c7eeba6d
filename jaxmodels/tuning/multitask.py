"""Many tasks from one backbone: stacked tuners and heads under vmap.

A bypass reads what does not depend on the task, so the backbone runs once for all of them (Res-Tuning-Bypass, Jiang et
al. 2023, arXiv 2310.19859: 81 % less time for 19 tasks). Tuners inside the backbone work too, at one backbone pass per
task.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.rules import leaf_names, path_name
from jaxmodels.tuning.classifier import bypass_reads, features
from jaxmodels.tuning.heads import Head, linear_head
from jaxmodels.tuning.tuner import Context, Tuner

Stacked = Any  # {'tuner', 'head'[, 'state']}: trees whose leaves have the leading axis of tasks


def stack_tasks(tasks: Sequence[Any]) -> Stacked:
    """Trees of T tasks as one tree with a leading task axis.

    Heads may differ in their number of classes: missing ones get zero weights and a bias of -inf, so that their logits
    are -inf and their probabilities 0.

    Args:
        tasks: {'tuner', 'head'} each, or {'tuner', 'head', 'state'} for tuners with state (a sparsity level, say).

    Returns:
        The stacked tree; C is the largest number of classes.

    Raises:
        ValueError: no task, or one whose tree or shapes differ from the first's elsewhere than in the classes.

    >>> heads = [{'head': {'bias': jnp.zeros(2)}}, {'head': {'bias': jnp.zeros(3)}}]
    >>> stack_tasks(heads)['head']['bias'].tolist()
    [[0.0, 0.0, -inf], [0.0, 0.0, 0.0]]
    """
    if not tasks:
        raise ValueError("tasks: found none, expected at least one")
    expected = leaf_names(tasks[0])
    for t, task in enumerate(tasks):
        different = set(leaf_names(task)) ^ set(expected)
        if different:
            raise ValueError(f"tasks: task {t} and task 0 differ in '{min(different)}'; expected one kind of tuner")
    return jax.tree_util.tree_map_with_path(_stack, tasks[0], *tasks[1:])


def unstack_task(stacked: Stacked, task: int) -> Any:
    """The tree of one task; classes that were padded stay."""
    return jax.tree.map(lambda x: x[task], stacked)


def multitask(
    backbone: Backbone, tuner: Tuner, *, head: Head | None = None
) -> Callable[[Any, Stacked, jax.Array], Float[Array, "t b c"]]:
    """A function that answers T tasks at once.

    Args:
        backbone: shared by the tasks.
        tuner: of one kind for all tasks.
        head: `linear_head()` unless given.

    Returns:
        (backbone params, stacked tasks, images (B, H, W, 3)) -> logits (T, B, C); see `stack_tasks`. With a bypass
        tuner the backbone runs once.

    Raises:
        ValueError: a tuner that trains parameters of the backbone, which tasks then do not share.
    """
    head = head or linear_head()
    check_shareable(backbone, tuner)

    def logits(backbone_params, stacked, images):
        default = tuner.init_state(backbone)

        def answer(task, batch):
            params = {"backbone": backbone_params, "tuner": task["tuner"]}
            return head.apply(task["head"], features(backbone, tuner, params, task.get("state", default), batch, None))

        batch = shared_batch(backbone, tuner, backbone_params, stacked, images)
        return jax.vmap(answer, in_axes=(0, None))(stacked, batch)

    return logits


def shared_batch(backbone: Backbone, tuner: Tuner, backbone_params: Any, stacked: Stacked, images: jax.Array) -> Any:
    """What the tasks have in common: a bypass's features where they depend on no task, else the images."""
    if tuner.bypass is None:
        return {"image": images}
    first = unstack_task(stacked, 0)
    state = first.get("state", tuner.init_state(backbone))
    if tuner.writes(first["tuner"], Context(backbone_params, state, None)):
        return {"image": images}
    params = {"backbone": backbone_params, "tuner": first["tuner"]}
    return {"features": bypass_reads(backbone, tuner, params, state, images, None)}


def check_shareable(backbone: Backbone, tuner: Tuner) -> None:
    """Raises a ValueError for a tuner after which tasks have no backbone in common."""
    if tuner.groups(backbone):
        raise ValueError(
            f"tuner: '{tuner.config['method']}' trains parameters of the backbone itself, so tasks cannot share it"
        )


def _stack(path: tuple[Any, ...], *leaves: jax.Array) -> jax.Array:
    name, shapes = path_name(path), [jnp.shape(leaf) for leaf in leaves]
    if len(set(shapes)) == 1:
        return jnp.stack(leaves)
    if not name.startswith("head/") or len({shape[:-1] for shape in shapes}) > 1:
        raise ValueError(f"tasks: '{name}' has the shapes {', '.join(map(str, shapes))}, expected equal ones")
    classes = max(shape[-1] for shape in shapes)
    fill = -np.inf if name.endswith("bias") else 0.0

    def pad(leaf):
        widths = [(0, 0)] * (leaf.ndim - 1) + [(0, classes - leaf.shape[-1])]
        return jnp.pad(leaf, widths, constant_values=fill)

    return jnp.stack([pad(leaf) for leaf in leaves])
