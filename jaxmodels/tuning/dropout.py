"""Dropout on a tuner's branch, as a pure function of an explicit key."""

import jax
import jax.numpy as jnp


def drop(x: jax.Array, rate: float, key: jax.Array | None, site: int) -> jax.Array:
    """Zeroes entries of x with probability `rate` and rescales the others; the identity without a key.

    Args:
        x: any shape.
        rate: probability in [0, 1).
        key: randomness of this step; None in prediction.
        site: index of the place in the network, so that no two places share a mask.

    >>> jax.numpy.unique(drop(jnp.ones(64), 0.5, jax.random.key(0), 0)).tolist()
    [0.0, 2.0]
    """
    if not rate or key is None:
        return x
    keep = jax.random.bernoulli(jax.random.fold_in(key, site), 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def check_rate(rate: float) -> None:
    """Raises a ValueError unless 0 <= rate < 1."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"dropout: found {rate}, expected 0 <= dropout < 1")
