"""How far apart a user's vectors are, and the regularisation that keeps it between two bounds (arXiv 2209.15292)."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def spread(users: Float[Array, "m c d"], has: Bool[Array, "m c"] | None = None) -> Float[Array, " m"]:
    """Half the mean squared distance over pairs of distinct vectors, delta of the paper; 0 with one vector."""
    pairs = list(_pairs(users, has))
    total = sum(((far * there).sum(1) for far, there in pairs), jnp.zeros(len(users), users.dtype))
    count = sum((there.sum(1) for _, there in pairs), jnp.zeros(len(users), users.dtype))
    return total / (2 * jnp.maximum(count, 1))


def paper_regulariser(
    users: Float[Array, "m c d"], *, low: float, high: float, has: Bool[Array, "m c"] | None = None
) -> Float[Array, ""]:
    """Omega: mean over users of relu(low - delta) + relu(delta - high)."""
    delta = spread(users, has)
    return (jax.nn.relu(low - delta) + jax.nn.relu(delta - high)).mean()


def pair_regulariser(
    users: Float[Array, "m c d"], *, low: float, high: float, has: Bool[Array, "m c"] | None = None
) -> Float[Array, ""]:
    """What the released code adds: the bounds hold for every pair, on the whole squared distance.

    The mean runs over C x C entries per user, of which the diagonal is 0; where users have fewer vectors, over theirs.
    """
    each = jnp.zeros(len(users), users.dtype)
    for far, there in _pairs(users, has):
        each += 2 * ((jax.nn.relu(low - far) + jax.nn.relu(far - high)) * there).sum(1)
    vectors = jnp.full(len(users), users.shape[1]) if has is None else jnp.maximum(has.sum(1), 1)
    return (each / vectors**2).mean()


def _pairs(users: jax.Array, has: jax.Array | None) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Squared distances (M, C) of every vector to the s-th after it, in a circle, and how much each counts.

    All pairs appear once, with s up to C / 2: a third of the time of products of C x d matrices on a CPU. Where C is
    even the last s meets every pair twice.
    """
    count = users.shape[1]
    for s in range(1, count // 2 + 1):
        far = ((users - jnp.roll(users, s, axis=1)) ** 2).sum(-1)
        both = jnp.ones(far.shape, bool) if has is None else has & jnp.roll(has, s, axis=1)
        yield far, both * jnp.asarray(0.5 if 2 * s == count else 1.0, users.dtype)


def adaptive_counts(history: np.ndarray, most: int) -> np.ndarray:
    """Vectors per user by adaptive assignment (APA): floor(log2 n) of n training items, at least 1 and at most `most`.

    A reconstruction: the formula of the journal version (arXiv 2409.01012) could not be obtained; this is the rule that
    a note in the released code of the conference version names.

    >>> adaptive_counts(np.array([1, 2, 5, 8, 1000]), 5).tolist()
    [1, 1, 2, 3, 5]
    """
    return np.clip(np.floor(np.log2(np.maximum(history, 1))), 1, most).astype(np.int64)
