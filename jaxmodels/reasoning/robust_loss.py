"""The loss of query embedding and its noise-robust form.

The base models minimise -log sigma(s) of positives and -log sigma(-s) of negatives (KGReasoning). The robust form
replaces -log p by the generalised cross-entropy (1 - p^q)/q (Zhang and Sabuncu 2018, arXiv 1805.07836), whose gradient
is p^q times the former, so that badly fitting items are damped. That LoD's robust loss is this one is a reconstruction:
the formulas of Logic Diffusion (Xie et al. 2023, arXiv 2306.03515) could not be obtained.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SIDES = ("both", "positive")


class Robust(NamedTuple):
    """Options of the pointwise loss; the defaults are the plain logarithm.

    Attributes:
        q: 0 is -log p, 1 the bounded linear loss 1 - p.
        eps: label smoothing of positives: (1 - eps) l(p) + eps l(1 - p).
        mix: instead of l_q: (1 - mix)(-log p) + mix (1 - p), whose damping is at most 1 - mix.
        sides: 'both' or 'positive'; with the latter negatives keep -log p.
        warm: updates over which q grows from 0 to its value.
    """

    q: float = 0.0
    eps: float = 0.0
    mix: float = 0.0
    sides: str = "both"
    warm: int = 0


PLAIN = Robust()


def check_robust(robust: Robust) -> None:
    """Raises ValueError where an option has no meaning."""
    for name, value in (("q", robust.q), ("eps", robust.eps), ("mix", robust.mix)):
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}: found {value}, expected 0 to 1")
    if robust.sides not in SIDES:
        raise ValueError(f"sides: found '{robust.sides}', expected {' or '.join(SIDES)}")
    if robust.mix and robust.q:
        raise ValueError(f"mix: found {robust.mix} beside q {robust.q}; expected one of them to be 0")
    if robust.warm < 0:
        raise ValueError(f"warm: found {robust.warm}, expected at least 0")
    if robust.warm and not robust.q:
        raise ValueError(f"warm: found {robust.warm}, expected 0 where q is 0")


def cross_entropy(log_p: jax.Array, q: float | jax.Array) -> jax.Array:
    """(1 - p^q)/q from log p; -log p at q = 0.

    Two branches, because the derivative of expm1 alone cancels to 0 where p underflows.

    >>> [round(float(cross_entropy(jnp.log(0.5), q)), 4) for q in (0.0, 1.0)]
    [0.6931, 0.5]
    """
    if isinstance(q, (int, float)) and q == 0:
        return -log_p
    safe = jnp.where(q == 0, 1.0, q)
    x = safe * log_p
    near = -jnp.expm1(jnp.maximum(x, -1.0))
    far = 1.0 - jnp.exp(jnp.minimum(x, -1.0))
    value = jnp.where(x >= -1.0, near, far) / safe
    return jnp.where(q == 0, -log_p, value)


def pointwise(logit: jax.Array, robust: Robust = PLAIN, q: float | jax.Array | None = None) -> jax.Array:
    """The loss of each score of a true answer; a false one has its score negated.

    Args:
        logit: scores, any shape.
        robust: options; `eps` is not applied here.
        q: instead of `robust.q`, when it changes from update to update.
    """
    log_p = jax.nn.log_sigmoid(logit)
    if robust.mix:
        return (1.0 - robust.mix) * -log_p + robust.mix * jax.nn.sigmoid(-logit)
    return cross_entropy(log_p, robust.q if q is None else q)


class PerQuery(NamedTuple):
    """Losses of each query before weighting."""

    positive: Float[Array, " n"]
    negative: Float[Array, " n"]


def per_query(
    positive: Float[Array, "n p"],
    negative: Float[Array, "n k"],
    robust: Robust = PLAIN,
    q: float | jax.Array | None = None,
) -> PerQuery:
    """Losses of each query's positives and of its negatives, each their mean.

    Args:
        positive: scores of answers.
        negative: scores of other entities.
        robust: options.
        q: see `pointwise`.
    """
    true = pointwise(positive, robust, q)
    if robust.eps:
        true = (1.0 - robust.eps) * true + robust.eps * pointwise(-positive, robust, q)
    false = pointwise(-negative, robust, q) if robust.sides == "both" else pointwise(-negative)
    return PerQuery(true.mean(-1), false.mean(-1))


class Losses(NamedTuple):
    """Weighted means over queries; `total` is half the sum of the two."""

    total: Float[Array, ""]
    positive: Float[Array, ""]
    negative: Float[Array, ""]


def weighted(each: PerQuery, weight: Float[Array, " n"]) -> Losses:
    """Means over queries with one normaliser.

    Args:
        each: by `per_query`.
        weight: of each query, see `subsampling_weight`.
    """
    positive, negative = ((weight * loss).sum() / weight.sum() for loss in each)
    return Losses((positive + negative) / 2, positive, negative)


def subsampling_weight(answers: jax.Array) -> jax.Array:
    """Weight of a query by its number of answers: sqrt(1 / (answers + 4)).

    >>> float(subsampling_weight(jnp.array(0)))
    0.5
    """
    return jnp.sqrt(1.0 / (answers + 4.0))
