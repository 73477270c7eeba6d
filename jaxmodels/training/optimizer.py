"""Optimizers over parameter groups: one learning-rate factor per group, weight decay where the field applies it.

The optimizer only ever sees trained leaves (see `rules.split`), so frozen weights cost no moments, and a global-norm
clip divides by the gradients that are used.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from jaxmodels.rules import FROZEN, Rules, label, path_name

Rate = float | optax.Schedule
UNDECAYED = ("bias", "cls_token", "pos_embed")


def decayed(params: Any) -> Any:
    """True where weight decay applies: at least two axes, and neither a bias nor a class token nor a position entry.

    The rule of the PEFT literature (SSF, SNELL, FacT).

    >>> decayed({'head': {'kernel': jax.numpy.ones((2, 3)), 'bias': jax.numpy.ones(3)}})
    {'head': {'bias': False, 'kernel': True}}
    """

    def decide(path, leaf):
        return leaf.ndim >= 2 and path_name(path).rsplit("/", 1)[-1] not in UNDECAYED

    return jax.tree_util.tree_map_with_path(decide, params)


def adamw(
    groups: Rules,
    learning_rate: Rate,
    *,
    weight_decay: float = 1e-4,
    factors: Mapping[str, float] | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """AdamW per group (Loshchilov and Hutter 2019, arXiv 1711.05101); moments in float32, eps 1e-8.

    Args:
        groups: the method's rules (path pattern -> group).
        learning_rate: a number or an optax schedule over steps.
        weight_decay: decoupled, on the leaves that `decayed` names.
        factors: group -> factor on the learning rate; 1 unless named.
        b1: decay of the first moment.
        b2: decay of the second moment.
        clip: largest global norm of the trained gradients; None does not clip.

    Raises:
        ValueError: a factor for a group that does not exist.
    """

    def make(rate: Rate) -> optax.GradientTransformation:
        return optax.adamw(rate, b1=b1, b2=b2, weight_decay=weight_decay, mask=decayed)

    return partitioned(groups, make, learning_rate, factors=factors, clip=clip)


def sgd(
    groups: Rules,
    learning_rate: Rate,
    *,
    weight_decay: float = 0.0,
    factors: Mapping[str, float] | None = None,
    momentum: float = 0.9,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """SGD with momentum per group, as VPT trains prompts and linear probes; decay is added to the gradient.

    Args:
        groups: the method's rules (path pattern -> group).
        learning_rate: a number or an optax schedule over steps.
        weight_decay: L2, on the leaves that `decayed` names.
        factors: group -> factor on the learning rate; 1 unless named.
        momentum: of the heavy ball.
        clip: largest global norm of the trained gradients; None does not clip.

    Raises:
        ValueError: a factor for a group that does not exist.
    """

    def make(rate: Rate) -> optax.GradientTransformation:
        return optax.chain(optax.add_decayed_weights(weight_decay, mask=decayed), optax.sgd(rate, momentum))

    return partitioned(groups, make, learning_rate, factors=factors, clip=clip)


def partitioned(
    groups: Rules,
    make: Callable[[Rate], optax.GradientTransformation],
    learning_rate: Rate,
    *,
    factors: Mapping[str, float] | None = None,
    clip: float | None = None,
) -> optax.GradientTransformation:
    """`optax.partition` with `make(learning rate of the group)` for every trained group.

    Raises:
        ValueError: a factor for a group that does not exist.
    """
    names = {group for _, group in groups if group != FROZEN}
    for name in factors or {}:
        if name not in names:
            raise ValueError(f"factors: no group '{name}'; the method trains {', '.join(sorted(names))}")
    each = {name: make(_scaled(learning_rate, (factors or {}).get(name, 1.0))) for name in names}
    transform = optax.partition(each, lambda params: label(params, groups))
    return transform if clip is None else optax.chain(optax.clip_by_global_norm(clip), transform)


def _scaled(rate: Rate, factor: float) -> Rate:
    if callable(rate):
        return lambda step: factor * rate(step)
    return factor * rate
