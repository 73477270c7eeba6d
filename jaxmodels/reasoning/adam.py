"""Adam as query embedding trains with it: unused networks rest, and a drop of the rate starts the moments anew.

A batch of paths uses no intersection network. PyTorch's Adam skips such parameters: neither their moments nor their
step count advance. KGReasoning divides the rate by 5 at half and at three quarters of training, each time with a new
optimizer.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels.reasoning.method import GROUPS
from jaxmodels.rules import FROZEN, Rules, label


def unused_skipped(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` where a gradient is not zero; else no update, and a state that stays as it was.

    It looks at all leaves it is given together, so it belongs inside an `optax.partition` by network: one weight of a
    used network may have a gradient of zero and still moves by its moments.

    Args:
        inner: what to apply.
    """

    def update(updates, state, params=None):
        leaves = jax.tree.leaves(updates)
        if not leaves:  # a network that this model does not have
            return inner.update(updates, state, params)
        used = jnp.any(jnp.stack([jnp.any(leaf != 0) for leaf in leaves]))
        moved, after = inner.update(updates, state, params)
        moved = jax.tree.map(lambda leaf: jnp.where(used, leaf, jnp.zeros_like(leaf)), moved)
        return moved, jax.tree.map(lambda new, old: jnp.where(used, new, old), after, state)

    return optax.GradientTransformation(inner.init, update)


class Restarted(NamedTuple):
    """State of `restarted`: updates done and the state inside."""

    count: jax.Array  # type: ignore[assignment]  # optax names it so
    inner: Any


def restarted(inner: optax.GradientTransformation, at: tuple[int, ...]) -> optax.GradientTransformation:
    """`inner`, whose state is made anew before the updates numbered in `at` (the first one is 0).

    Args:
        inner: what to apply.
        at: updates that start with a fresh state.
    """

    def init(params):
        return Restarted(jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("restarted: found no params, expected them at each update")
        anew = jnp.any(jnp.array(at, jnp.int32) == state.count) if at else jnp.array(False)
        kept = jax.tree.map(lambda new, old: jnp.where(anew, new, old), inner.init(params), state.inner)
        moved, after = inner.update(updates, kept, params)
        return moved, Restarted(state.count + 1, after)

    return optax.GradientTransformation(init, update)


def drop_updates(steps: int, updates_per_step: int = 3) -> tuple[int, ...]:
    """The updates before which the rate drops: after the step that reaches half of `steps`, then 1.5 times that.

    >>> drop_updates(1000)
    (1503, 2253)
    """
    drops, warm = [], float(steps // 2)
    while math.ceil(warm) < steps and warm > 0:
        drops.append((math.ceil(warm) + 1) * updates_per_step)
        warm *= 1.5
    return tuple(drop for drop in drops if drop < steps * updates_per_step)


def query_adam(
    learning_rate: float,
    *,
    drops: tuple[int, ...] = (),
    factor: float = 0.2,
    groups: Rules = GROUPS,
) -> optax.GradientTransformation:
    """Adam (0.9, 0.999, 1e-8) that skips unused networks and starts anew at each drop of the rate.

    Args:
        learning_rate: before the first drop.
        drops: updates at which the rate is multiplied by `factor`, see `drop_updates`.
        factor: of the rate.
        groups: the method's rules; what one group holds is used or skipped together.
    """
    each = {name: unused_skipped(optax.scale_by_adam()) for _, name in groups if name != FROZEN}
    moments = restarted(optax.partition(each, lambda params: label(params, groups)), drops)
    rate = optax.piecewise_constant_schedule(learning_rate, dict.fromkeys(drops, factor))
    return optax.chain(moments, optax.scale_by_learning_rate(rate))
