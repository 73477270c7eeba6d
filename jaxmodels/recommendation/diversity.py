"""How far apart a user's vectors are, and the regularisation that keeps it between two bounds (arXiv 2209.15292)."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def parts(table: Float[Array, "m cd"], vectors: int) -> list[Float[Array, "m d"]]:
    """The first vector of every user, the second of every user, ...

    A user's C vectors lie after one another in a row, as in the released checkpoints: a TPU pads the last two axes of
    an array to multiples of 8 and 128, and with an axis of C vectors the tables would take twice their size.
    """
    size = table.shape[1] // vectors
    return [table[:, i * size : (i + 1) * size] for i in range(vectors)]


def spread(table: Float[Array, "m cd"], vectors: int, has: Bool[Array, "m c"] | None = None) -> Float[Array, " m"]:
    """Half the mean squared distance over pairs of distinct vectors, delta of the paper; 0 with one vector."""
    there = _there(table, vectors, has)
    pairs = _pairs(vectors)
    far = _apart(table, vectors)
    count = sum((there[a] * there[b] for a, b in pairs), jnp.zeros(len(table), table.dtype))
    total = sum((far[i] * there[a] * there[b] for i, (a, b) in enumerate(pairs)), jnp.zeros(len(table), table.dtype))
    return total / (2 * jnp.maximum(count, 1))


def paper_regulariser(
    table: Float[Array, "m cd"], vectors: int, *, low: float, high: float, has: Bool[Array, "m c"] | None = None
) -> Float[Array, ""]:
    """Omega: mean over users of relu(low - delta) + relu(delta - high)."""
    delta = spread(table, vectors, has)
    return (jax.nn.relu(low - delta) + jax.nn.relu(delta - high)).mean()


def pair_regulariser(
    table: Float[Array, "m cd"], vectors: int, *, low: float, high: float, has: Bool[Array, "m c"] | None = None
) -> Float[Array, ""]:
    """What the released code adds: the bounds hold for every pair, on the whole squared distance.

    The mean runs over C x C entries per user, of which the diagonal is 0; where users have fewer vectors, over theirs.
    """
    there, each = _there(table, vectors, has), jnp.zeros(len(table), table.dtype)
    far = _apart(table, vectors)
    for i, (a, b) in enumerate(_pairs(vectors)):
        each += 2 * (jax.nn.relu(low - far[i]) + jax.nn.relu(far[i] - high)) * there[a] * there[b]
    held = jnp.full(len(table), vectors) if has is None else jnp.maximum(has.sum(1), 1)
    return (each / held**2).mean()


def _pairs(vectors: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(vectors), 2))


def _there(table: jax.Array, vectors: int, has: jax.Array | None) -> list[jax.Array]:
    every = [jnp.ones(len(table), table.dtype)] * vectors
    return every if has is None else [has[:, i].astype(table.dtype) for i in range(vectors)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _apart(table: jax.Array, vectors: int) -> list[jax.Array]:
    """Squared distances (M,) of each pair."""
    own = parts(table, vectors)
    return [((own[a] - own[b]) ** 2).sum(1) for a, b in _pairs(vectors)]


def _forward(table, vectors):
    return _apart(table, vectors), table


def _backward(vectors, table, given):
    # Written out, the gradient is one pass over the table. Derived automatically, that of every pair is as large as the
    # table, and a third as fast on a CPU.
    own, weight = parts(table, vectors), {}
    for (a, b), each in zip(_pairs(vectors), given, strict=True):
        weight[a, b] = weight[b, a] = 2 * each[:, None]
    moved = (
        sum(weight[a, b] * (own[a] - own[b]) for b in range(vectors) if b != a) if vectors > 1 else 0 * own[a]
        for a in range(vectors)
    )
    return (jnp.concatenate(list(moved), axis=1),)


_apart.defvjp(_forward, _backward)


def adaptive_counts(history: np.ndarray, most: int) -> np.ndarray:
    """Vectors per user by adaptive assignment (APA): floor(log2 n) of n training items, at least 1 and at most `most`.

    A reconstruction: the formula of the journal version (arXiv 2409.01012) could not be obtained; this is the rule that
    a note in the released code of the conference version names.

    >>> adaptive_counts(np.array([1, 2, 5, 8, 1000]), 5).tolist()
    [1, 1, 2, 3, 5]
    """
    return np.clip(np.floor(np.log2(np.maximum(history, 1))), 1, most).astype(np.int64)
