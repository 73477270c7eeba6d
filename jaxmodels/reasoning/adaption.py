"""Gradient adaption: weights that keep kinds of query patterns in balance while all of them train together.

A reconstruction: of Logic Diffusion (Xie et al. 2023, arXiv 2306.03515) only the abstract could be obtained, which
promises "a dynamical equilibrium between different kinds of patterns"; the formulas here are this project's reading.

A group is a query structure, or two groups are all that are trained and all that only the pool brings. A group's weight
falls with a moving average of its gradient's size; GradNorm's rate of learning (Chen et al. 2018, arXiv 1711.02257) can
be put into it in closed form. `project` instead takes out of the diffused groups' gradient what opposes the seen
groups' (one-sided, after Yu et al. 2020, arXiv 2001.06782).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

MODES = ("off", "logit", "param", "loss", "project")
GROUPINGS = ("structure", "origin")
REDUCTIONS = ("weight", "count", "mean")
RECENT = 20  # values that make a group's first loss, in `rate`
TINY = 1e-12


class Adaption(NamedTuple):
    """Options of gradient adaption.

    Attributes:
        mode: what a group's size is: 'logit' (norm of its loss's gradient over its scores), 'param' (over all
            parameters; one backward pass per group), 'loss' (the loss itself: with alpha 1 the optimum of uncertainty
            weighting); 'project' has no weights; 'off' is the plain loss.
        keep: of the moving average of sizes.
        alpha: exponent: weight ~ size^-alpha.
        low: smallest weight before the second normalisation.
        high: largest one.
        rate: a, exponent of the relative rate of learning; 0 leaves it out.
        measure: 'loss', or 'log' to take sizes of the plain log loss while the robust one trains.
        reduce: how groups add up: by their weights ('weight', the plain loss where all lambda are 1), by their numbers
            of queries ('count') or equally ('mean').
        groups: what a group is: a structure of the batch, or ('origin') the seen structures and the diffused ones, two
            groups of which each has one loss.
    """

    mode: str = "off"
    keep: float = 0.9
    alpha: float = 0.5
    low: float = 0.2
    high: float = 5.0
    rate: float = 0.0
    measure: str = "loss"
    reduce: str = "weight"
    groups: str = "structure"


OFF = Adaption()


def check_adaption(adaption: Adaption) -> None:
    """Raises ValueError where an option has no meaning."""
    for name, value, known in (
        ("mode", adaption.mode, MODES),
        ("reduce", adaption.reduce, REDUCTIONS),
        ("measure", adaption.measure, ("loss", "log")),
        ("groups", adaption.groups, GROUPINGS),
    ):
        if value not in known:
            raise ValueError(f"{name}: found '{value}', expected one of {', '.join(known)}")
    if adaption.groups == "origin" and adaption.mode in ("off", "project"):
        raise ValueError(f"groups: found 'origin', expected 'structure' in mode {adaption.mode}, which has no weights")
    if not 0.0 <= adaption.keep < 1.0:
        raise ValueError(f"keep: found {adaption.keep}, expected at least 0 and below 1")
    if not 0.0 < adaption.low <= 1.0 <= adaption.high:
        raise ValueError(f"low, high: found {adaption.low}, {adaption.high}, expected 0 < low <= 1 <= high")
    if adaption.alpha < 0 or adaption.rate < 0:
        raise ValueError(f"alpha, rate: found {adaption.alpha}, {adaption.rate}, expected at least 0")
    if adaption.mode in ("off", "project") and adaption.rate:
        raise ValueError(f"rate: found {adaption.rate}, expected 0 in mode {adaption.mode}, which has no weights")


class Track(NamedTuple):
    """What is remembered of one group.

    Attributes:
        size: moving average of its size.
        loss: moving average of its loss.
        first: mean of its first 20 losses.
        count: updates it took part in.
    """

    size: Float[Array, ""]
    loss: Float[Array, ""]
    first: Float[Array, ""]
    count: jax.Array  # type: ignore[assignment]  # optax names it so


def new_track() -> Track:
    """A group that was never present."""
    return Track(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))


def tracked(track: Track, size: Float[Array, ""], loss: Float[Array, ""], *, keep: float = 0.9) -> Track:
    """The track after an update; the first values start the averages.

    Args:
        track: before.
        size: of the group's gradient in this update.
        loss: of the group in this update.
        keep: of the moving averages.
    """
    fresh = track.count == 0
    early = (track.count < RECENT).astype(loss.dtype)
    return Track(
        jnp.where(fresh, size, keep * track.size + (1.0 - keep) * size),
        jnp.where(fresh, loss, keep * track.loss + (1.0 - keep) * loss),
        track.first + early * (loss - track.first) / (track.count + 1),
        track.count + 1,
    )


def balance(sizes: Float[Array, " k"], *, alpha: float = 0.5, low: float = 0.2, high: float = 5.0, rates=None):
    """Weights of the present groups with mean 1: (size + 1e-12)^-alpha, normalised, clipped, normalised again.

    Args:
        sizes: moving averages of the groups present.
        alpha: exponent.
        low: of the clip.
        high: of the clip.
        rates: (k,) factors before the first normalisation, or None.

    Returns:
        (k,) weights without gradient.

    >>> balance(jnp.array([1.0, 1.0])).tolist()
    [1.0, 1.0]
    """
    raw = (sizes + TINY) ** -alpha
    if rates is not None:
        raw = raw * rates
    clipped = jnp.clip(raw / raw.mean(), low, high)
    return jax.lax.stop_gradient(clipped / clipped.mean())


def lambdas(tracks: Sequence[Track], adaption: Adaption) -> Float[Array, " k"]:
    """Weights of the present groups; with a rate they are 1 until every one of them has its first 20 losses.

    Args:
        tracks: of the groups present, after this update.
        adaption: options.
    """
    sizes = jnp.stack([track.size for track in tracks])
    bounds = {"alpha": adaption.alpha, "low": adaption.low, "high": adaption.high}
    if not adaption.rate:
        return balance(sizes, **bounds)
    relative = jnp.stack([track.loss / jnp.maximum(track.first, TINY) for track in tracks])
    found = balance(sizes, **bounds, rates=(relative / relative.mean()) ** adaption.rate)
    ready = jnp.stack([track.count for track in tracks]).min() >= RECENT
    return jnp.where(ready, found, 1.0)


def shares(weights: Mapping[str, jax.Array], reduce: str) -> Float[Array, " k"]:
    """Shares of the groups in the total, before lambda; they add up to 1.

    Args:
        weights: group -> (n,) weights of its queries.
        reduce: see `Adaption`.
    """
    if reduce == "mean":
        return jnp.full(len(weights), 1.0 / len(weights))
    each = [jnp.asarray(float(len(w))) if reduce == "count" else w.sum() for w in weights.values()]
    amounts = jnp.stack(each)
    return amounts / amounts.sum()


def norm(tree: Any) -> Float[Array, ""]:
    """L2 norm over all leaves together."""
    return jnp.sqrt(dot(tree, tree))


def dot(one: Any, two: Any) -> Float[Array, ""]:
    """Inner product over all leaves together."""
    return optax.tree.vdot(one, two)


def projected(seen: Any, diffused: Any) -> Any:
    """The sum of two gradients, after the second lost what opposes the first.

    Args:
        seen: gradient that is kept whole.
        diffused: gradient that gives way.
    """
    product = dot(seen, diffused)
    amount = jnp.where(product < 0, product / (dot(seen, seen) + TINY), 0.0)
    return jax.tree.map(lambda s, d: s + d - amount * s, seen, diffused)


def mean_of(trees: Sequence[Any]) -> Any:
    """The mean of several gradients."""
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)


def with_gradient(value: jax.Array, params: Any, gradient: Any) -> jax.Array:
    """`value` as a function of `params` whose gradient is the given one.

    Args:
        value: what the scalar is; its own dependence on `params` is cut.
        params: the parameters.
        gradient: same tree.
    """
    stop = jax.lax.stop_gradient
    slopes = jax.tree.map(lambda g, p: (stop(g) * (p - stop(p))).sum(), gradient, params)
    return stop(value) + sum(jax.tree.leaves(slopes))
