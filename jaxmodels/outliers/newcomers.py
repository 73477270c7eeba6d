"""Scores of objects that were not trained on: by the autoencoders, and by neighbours among the training objects.

The released code scores the objects it has trained on and no others. Here a newcomer's missing latent is the mean over
its nearest training objects that have both views, as in training; its disagreement is measured against all training
objects, as if it had been one of them; and errors and disagreements are scaled by the training objects' ranges.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmodels.outliers.autoencoder import AutoEncoder
from jaxmodels.outliers.contrastive import unit
from jaxmodels.outliers.pairs import Recipe
from jaxmodels.outliers.rcpmod import NAMES

EXACT = jax.lax.Precision.HIGHEST
ROWS = 256  # newcomers are padded to a multiple, so that few programs are compiled


class Ranges(NamedTuple):
    """Least and largest values of the training objects, by which scores are scaled.

    Attributes:
        errors: per view, of squared reconstruction errors.
        error: of their sums after scaling.
        contrast: of the disagreement.
    """

    errors: tuple[tuple[float, float], tuple[float, float]]
    error: tuple[float, float]
    contrast: tuple[float, float]


def ranges_of(errors: np.ndarray, error: np.ndarray, contrast: np.ndarray) -> Ranges:
    """The ranges of training objects.

    Args:
        errors: (N, 2) by `predict`, NaN where a view is missing.
        error: (N,) of `Scores`.
        contrast: (N,) of `Scores`.
    """

    def of(x: np.ndarray) -> tuple[float, float]:
        return float(np.nanmin(x)), float(np.nanmax(x))

    return Ranges((of(errors[:, 0]), of(errors[:, 1])), of(error), of(contrast))


def newcomer_scores(
    variables: Any, views: tuple[np.ndarray, np.ndarray], has: np.ndarray, *, recipe: Recipe, ranges: Ranges
) -> Float[np.ndarray, " m"]:
    """Scores of new objects by one trained pair of views; higher is more outlying.

    Args:
        variables: of the trained pair.
        views: (M, D) of the two views, scaled as in training.
        has: (M, 2) which object has which view.
        recipe: of the training.
        ranges: of the training objects.

    Returns:
        (M,), NaN for objects with neither view; beyond 0 to 1 + Rw where an object is beyond the training objects.
    """
    count = len(has)
    padding = ((0, -count % ROWS), (0, 0))
    x = tuple(np.pad(np.where(has[:, v, None], each, 0.0), padding).astype(np.float32) for v, each in enumerate(views))
    out = jax.device_get(_compared(recipe)(variables, x, np.pad(has, padding)))
    errors, contrast = (out[name][:count].astype(np.float64) for name in ("error", "contrast"))
    each = np.stack([_scaled(errors[:, v], ranges.errors[v]) for v in (0, 1)], 1)
    each = np.where(has, each, np.where(has[:, ::-1], each[:, ::-1], np.nan))
    total = recipe.error_weight * _scaled(each.sum(1), ranges.error) + _scaled(contrast, ranges.contrast)
    return np.where(has.any(1), total, np.nan)


def _scaled(x: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    return (x - low) / (high - low) if high > low else np.zeros_like(x)


@functools.lru_cache(maxsize=32)
def _compared(recipe: Recipe):
    """The program (variables, views, has) -> squared errors (m, 2) and disagreement (m,)."""

    def run(variables, x, has):
        state, known = variables["state"], variables["state"]["has"]
        there = known.any(1)
        errors, latents, trained = [], [], []
        for v, name in enumerate(NAMES):
            coder = AutoEncoder((x[v].shape[1], *recipe.hidden, recipe.latent), recipe.activation, recipe.batch_norm)
            bound = coder.bind({"params": variables["params"][name], "stats": state["stats"].get(name, {})})
            made, z = bound(x[v])
            errors.append(((made - x[v]) ** 2).sum(1))
            latents.append(z)
            trained.append(bound.encode(state["views"][v]))
        both = known.all(1)
        filled = [
            jnp.where(has[:, v, None], latents[v], _borrowed(latents[1 - v], trained[1 - v], trained[v], both, recipe))
            for v in (0, 1)
        ]
        own = [
            unit(jnp.where(known[:, v, None], trained[v], trained[v][state["near"][v]].mean(1))) for v in (0, 1)
        ]  # as scored in training
        return {"error": jnp.stack(errors, 1), "contrast": _contrast(*map(unit, filled), own, there, recipe)}

    return jax.jit(run)


def _borrowed(
    z: Float[Array, "m l"],
    there: Float[Array, "n l"],
    other: Float[Array, "n l"],
    both: Bool[Array, " n"],
    recipe: Recipe,
) -> Float[Array, "m l"]:
    """Mean latents, in the other view, of the training objects that are nearest in this one."""
    cross = jnp.einsum("ml,nl->mn", z, there, precision=EXACT)
    far = (z * z).sum(1)[:, None] + (there * there).sum(1)[None] - 2 * cross
    _, near = jax.lax.top_k(-jnp.where(both[None], far, jnp.inf), recipe.options.neighbours)
    return other[near].mean(1)


def _contrast(a, b, own, there, recipe) -> Float[Array, " m"]:
    tau = recipe.options.temperature
    positive = (a * b).sum(1) / tau

    def term(z):
        each = [jnp.einsum("ml,nl->mn", z, known, precision=EXACT) / tau for known in own]
        logits = jnp.concatenate([jnp.where(there[None], x, -jnp.inf) for x in each] + [positive[:, None]], 1)
        return jax.nn.logsumexp(logits, axis=1) - positive

    return (term(a) + term(b)) / 2
