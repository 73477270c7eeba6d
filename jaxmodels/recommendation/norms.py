"""Where vectors must stay: on the unit sphere, in the unit ball, or renormed whenever they are looked up."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def to_sphere(x: Float[Array, "*r d"]) -> Float[Array, "*r d"]:
    """Vectors of length 1, short ones lengthened too; a zero vector stays zero."""
    return x / jnp.maximum(jnp.sqrt((x * x).sum(-1, keepdims=True)), 1e-12)


def to_ball(x: Float[Array, "*r d"]) -> Float[Array, "*r d"]:
    """Vectors of length at most 1; longer ones are divided by their length + 1e-7, as PyTorch's `max_norm` does."""
    length = jnp.sqrt((x * x).sum(-1, keepdims=True))
    return jnp.where(length > 1, x / (length + 1e-7), x)


def looked_up(x: Float[Array, "*r d"]) -> Float[Array, "*r d"]:
    """`to_ball` with the gradient of the identity: that of a lookup which overwrites rows beforehand."""
    return x + jax.lax.stop_gradient(to_ball(x) - x)
