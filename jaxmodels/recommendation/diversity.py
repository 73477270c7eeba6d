"""How far apart a user's vectors are, and the regularisation that keeps it between two bounds (arXiv 2209.15292)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmodels.recommendation.distances import squared


def pairwise(users: Float[Array, "m c d"]) -> Float[Array, "m c c"]:
    """Squared distances between the vectors of each user; the diagonal is exactly 0."""
    return jnp.where(jnp.eye(users.shape[1], dtype=bool)[None], 0.0, squared(users, users))


def spread(users: Float[Array, "m c d"], has: Bool[Array, "m c"] | None = None) -> Float[Array, " m"]:
    """Half the mean squared distance over pairs of distinct vectors, delta of the paper; 0 with one vector."""
    far, pairs = _pairs(users, has)
    return (far * pairs).sum((1, 2)) / (2 * jnp.maximum(pairs.sum((1, 2)), 1))


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
    far, pairs = _pairs(users, has)
    each = ((jax.nn.relu(low - far) + jax.nn.relu(far - high)) * pairs).sum((1, 2))
    vectors = jnp.full(len(users), users.shape[1]) if has is None else jnp.maximum(has.sum(1), 1)
    return (each / vectors**2).mean()


def _pairs(users, has):
    apart = ~jnp.eye(users.shape[1], dtype=bool)[None]
    there = apart if has is None else apart & has[:, :, None] & has[:, None, :]
    return pairwise(users), jnp.broadcast_to(there, (len(users), *there.shape[1:])).astype(users.dtype)


def adaptive_counts(history: np.ndarray, most: int) -> np.ndarray:
    """Vectors per user by adaptive assignment (APA): floor(log2 n) of n training items, at least 1 and at most `most`.

    A reconstruction: the formula of the journal version (arXiv 2409.01012) could not be obtained; this is the rule that
    a note in the released code of the conference version names.

    >>> adaptive_counts(np.array([1, 2, 5, 8, 1000]), 5).tolist()
    [1, 1, 2, 3, 5]
    """
    return np.clip(np.floor(np.log2(np.maximum(history, 1))), 1, most).astype(np.int64)
