"""The spreading regularisation: latents keep apart, so that they do not collapse onto outliers (arXiv 2408.07819)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

EPSILON = 1e-6  # added to every coordinate of a difference, as PyTorch's pairwise distance does; no root of zero


def distance(a: Float[Array, "b l"], b: Float[Array, "b l"]) -> Float[Array, " b"]:
    """|a - b + 1e-6| per row."""
    return jnp.sqrt(((a - b + EPSILON) ** 2).sum(-1))


def triplet(
    anchor: Float[Array, "b l"],
    positive: Float[Array, "b l"],
    negative: Float[Array, "b l"],
    counted: Bool[Array, " b"] | None = None,
) -> Float[Array, ""]:
    """Mean of relu(|anchor - positive| - |anchor - negative|): no margin, latents as they are.

    Args:
        anchor: latents.
        positive: of a neighbour.
        negative: of an object further off.
        counted: rows that are there; 0 where none is.
    """
    return _mean(jax.nn.relu(distance(anchor, positive) - distance(anchor, negative)), counted)


def largest_dot(
    z: Float[Array, "b l"], counted: Bool[Array, " b"] | None = None, *, compat: bool = False
) -> Int[Array, " b"]:
    """Per row the other row with the largest dot product.

    Args:
        z: latents.
        counted: rows that may be chosen.
        compat: the released code excludes a row itself by a dot product of -1 only, so that a row whose others are all
            below -1 chooses itself.
    """
    dots = jnp.einsum("il,jl->ij", z, z, precision=jax.lax.Precision.HIGHEST)
    dots = dots if counted is None else jnp.where(counted[None], dots, -jnp.inf)
    return jnp.argmax(jnp.where(jnp.eye(len(z), dtype=bool), -1.0 if compat else -jnp.inf, dots), axis=1)


def uniform(
    z: Float[Array, "b l"], counted: Bool[Array, " b"] | None = None, *, compat: bool = False
) -> Float[Array, ""]:
    """-mean log(n |z_i - z_nn(i)|), the Kozachenko-Leonenko estimate of (negative) entropy.

    As released, the nearest row is that of the largest dot product, although latents are not of unit length.

    Args:
        z: latents (n, L).
        counted: rows that are there; 0 where fewer than two are.
        compat: see `largest_dot`.
    """
    count = jnp.asarray(len(z) if counted is None else counted.sum())
    found = largest_dot(jax.lax.stop_gradient(z), counted, compat=compat)
    mean = -_mean(jnp.log(jnp.maximum(count, 1).astype(z.dtype) * distance(z, z[found])), counted)
    return jnp.where(count > 1, mean, 0.0)


def ramp(*, peak: float, end: float, epochs: int, warmup: int = 100) -> Float[Array, " epochs"]:
    """Weight of the regularisation per epoch: 0 to `peak` in the first 100, then on to `end`.

    Args:
        peak: after the warm-up.
        end: after all epochs of the schedule; training usually ends before.
        epochs: of the schedule.
        warmup: epochs until the peak.

    Raises:
        ValueError: the schedule is not longer than its warm-up.
    """
    if epochs <= warmup:
        raise ValueError(f"schedule_epochs: found {epochs}, expected more than the {warmup} of the warm-up")
    return jnp.concatenate([jnp.linspace(0.0, peak, warmup), jnp.linspace(peak, end, epochs - warmup)])


def _mean(values: jax.Array, counted: jax.Array | None) -> jax.Array:
    if counted is None:
        return values.mean()
    return jnp.where(counted, values, 0.0).sum() / jnp.maximum(counted.sum(), 1)
