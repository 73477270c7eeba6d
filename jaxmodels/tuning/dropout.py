"""Dropout and stochastic depth on a tuner's branch, as pure functions of a key.

The mask of an element is a hash of its index and the key. Threefry bits for the input of every linear layer would cost
more than the layer's matrix product on a CPU; this hash fuses into it, recomputes to the same mask, and is the same on
any number of devices.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def seed_of(key: Array) -> Array:
    """Two words of noise (2,) that `dropout` and `drop_path` take instead of a key."""
    return jax.random.bits(key, (2,), jnp.uint32)


def dropout(seed: Array | None, x: Float[Array, "*shape"], rate: float) -> Float[Array, "*shape"]:
    """Zeroes entries of x with probability `rate` and rescales the rest; the identity without a seed."""
    return _drop(seed, x, x.shape, rate)


def drop_path(seed: Array | None, x: Float[Array, "b *rest"], rate: float) -> Float[Array, "b *rest"]:
    """Zeroes whole examples (rows of the first axis) with probability `rate` and rescales the rest."""
    return _drop(seed, x, (x.shape[0],) + (1,) * (x.ndim - 1), rate)


def _drop(seed: Array | None, x: Array, shape: tuple[int, ...], rate: float) -> Array:
    if seed is None or rate == 0.0:
        return x
    factor = keep(seed, shape, rate).astype(x.dtype) / (1.0 - rate)
    return x * jnp.broadcast_to(factor, x.shape)  # a product keeps only the factor for the backward pass


def drop(x: Float[Array, "*shape"], rate: float, key: Array | None, site: int) -> Float[Array, "*shape"]:
    """`dropout` at one of many places: the site's index keeps any two places from sharing a mask.

    >>> jnp.unique(drop(jnp.ones(64), 0.5, jax.random.key(0), 0)).tolist()
    [0.0, 2.0]
    """
    return dropout(None if key is None else seed_of(jax.random.fold_in(key, site)), x, rate)


def check_rate(rate: float) -> None:
    """Raises a ValueError unless 0 <= rate < 1."""
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"dropout: found {rate}, expected 0 <= dropout < 1")


def keep(seed: Array, shape: tuple[int, ...], rate: float) -> Array:
    """Boolean mask that is False with probability `rate`."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    noise = _mix(_mix(index + seed[0]) ^ seed[1])
    return noise >= jnp.uint32(round(rate * 2**32))


def _mix(h: Array) -> Array:
    # Finaliser of MurmurHash3: a bijection of 32 bits in which every input bit changes every output bit half the time.
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
