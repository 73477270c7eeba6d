"""Competition-based sparsification: only the entries of an update above its s-quantile in magnitude survive (SNELL).

Published are two forms (arXiv 2411.01800): the code's, which multiplies survivors by their own detached magnitude (a
signed square), and Equation 5, which subtracts the threshold. The quantile of a layer with millions of entries is found
by counting instead of sorting; the result is the same to the last bit, ties included.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

MODES = ("code", "eq5", "eq5_detach", "hard")
SELECTIONS = ("count", "sort")
SAMPLE = 4096  # entries sorted for a first bracket; smaller matrices are sorted as a whole


class Limits(NamedTuple):
    """What decides which entries survive: the threshold t, and a cut between two magnitudes (see `limits`)."""

    threshold: Array
    cut: Array


def sparsify(
    update: Float[Array, "m n"], sparsity: ArrayLike, *, mode: str = "code", selection: str = "count"
) -> Float[Array, "m n"]:
    """Zeroes the fraction `sparsity` of entries with the smallest magnitude.

    With t the threshold, never differentiated, and a = |D| detached:
        'code'        D a            where a > t, t the linearly interpolated quantile
        'hard'        D              where a > t, t the ceil(s m n)-th smallest magnitude, as below
        'eq5'         D (|D| - t)    where |D| >= t, so dD = G (2|D| - t) even at the entry |D| = t
        'eq5_detach'  D (a - t)      where a >= t, the factor detached
    Entries below get no gradient: there is no straight-through estimator.

    Args:
        update: D (m, n).
        sparsity: s in [0, 1]; may be traced.
        mode: one of `MODES`.
        selection: how the threshold is found, 'count' or 'sort'; equal results.

    >>> sparsify(jnp.array([[1., -2., 3., -4.]]), 0.5).tolist()
    [[0.0, -0.0, 9.0, -16.0]]
    """
    return prune(update, limits(update, sparsity, mode=mode, selection=selection), mode=mode)


def prune(update: Float[Array, "m n"], limits: Limits, *, mode: str = "code") -> Float[Array, "m n"]:
    """`sparsify` with limits that are known already."""
    a, (t, cut) = jax.lax.stop_gradient((jnp.abs(update), limits))
    if mode == "code":
        return update * jnp.where(a > cut, a, 0.0)
    if mode == "hard":
        return jnp.where(a > cut, update, 0.0)
    over = (a if mode == "eq5_detach" else jnp.abs(update)) - t
    return update * jnp.where(a > cut, over, 0.0)  # jnp.maximum would halve the gradient at |D| = t


def limits(update: Array, sparsity: ArrayLike, *, mode: str = "code", selection: str = "count") -> Limits:
    """The limits of `sparsify`, detached.

    Survivors are those above t ('eq5': from t on). Halfway to the next other magnitude the comparison is the same, and
    no rounding matters: the entry that defines t may come out one bit larger when D is merged again.
    """
    a = jax.lax.stop_gradient(jnp.abs(update))
    t = threshold(a, sparsity, mode=mode, selection=selection)
    if mode.startswith("eq5"):
        low, high = jnp.where(a < t, a, -1.0).max(), t
    else:
        low = jnp.where(a <= t, a, 0.0).max()
        high = _next(a, low)
    middle = low + 0.5 * (high - low)
    return Limits(t, jnp.where(middle < high, middle, low))


def _level(sparsity: ArrayLike, dtype: jnp.dtype) -> Array:
    # A float32 level stays float32 beside float64 magnitudes: 0.7 * 90 must fall on the same rank in both precisions.
    return jnp.asarray(sparsity, dtype if isinstance(sparsity, float) else None)


def _next(values: Array, value: Array) -> Array:
    return jnp.where(values > value, values, jnp.inf).min()


def threshold(
    magnitudes: Float[Array, "m n"], sparsity: ArrayLike, *, mode: str = "code", selection: str = "count"
) -> Float[Array, ""]:
    """The magnitude t of `sparsify`: the interpolated quantile for 'code', else an order statistic.

    Raises:
        ValueError: an unknown mode or selection.
    """
    if mode not in MODES:
        raise ValueError(f"sparsify: found '{mode}', expected one of {', '.join(MODES)}")
    if mode == "code":
        return quantile(magnitudes, sparsity, selection=selection)
    position = _level(sparsity, magnitudes.dtype) * magnitudes.size
    if position.dtype == jnp.float32:  # s itself is rounded: 0.1 * 140 must not become 14.000001 and then 15
        position = position * (1.0 - 2.0 * jnp.finfo(jnp.float32).eps)
    k = jnp.clip(jnp.ceil(position).astype(jnp.int32), 1, magnitudes.size)
    return order_statistic(magnitudes, k - 1, selection=selection)


def quantile(values: Float[Array, "m n"], q: ArrayLike, *, selection: str = "count") -> Float[Array, ""]:
    """The linearly interpolated q-quantile of non-negative values, over the whole matrix.

    Equal neighbours interpolate to exactly themselves (as in torch.lerp), so that a strict comparison drops all ties.

    >>> float(quantile(jnp.array([[4., 1., 3., 2.]]), 0.5))
    2.5
    """
    position = _level(q, values.dtype) * (values.size - 1)
    k = jnp.clip(jnp.floor(position), 0, values.size - 1)
    low = order_statistic(values, k.astype(jnp.int32), selection=selection)
    tied = jnp.sum(values <= low, dtype=jnp.int32) > k.astype(jnp.int32) + 1
    high = _next(values, low)
    high = jnp.where(tied | jnp.isinf(high), low, high)
    weight = (position - k).astype(values.dtype)
    return jnp.where(weight < 0.5, low + weight * (high - low), high - (1.0 - weight) * (high - low))


def order_statistic(values: Float[Array, "m n"], k: Array, *, selection: str = "count") -> Float[Array, ""]:
    """The k-th smallest of non-negative values, k from 0.

    Raises:
        ValueError: an unknown selection.
    """
    if selection not in SELECTIONS:
        raise ValueError(f"selection: found '{selection}', expected one of {', '.join(SELECTIONS)}")
    if selection == "sort" or values.size <= SAMPLE:
        return jnp.sort(values.reshape(-1))[k]
    return _by_counting(values, k)


def _by_counting(values: Array, k: Array) -> Array:
    # Bit patterns of non-negative floats are ordered as the floats are, so a search over them is exact. Invariant:
    # below(low) <= k < below(high). The first two pivots come from a sorted sample; later ones are interpolated in
    # value, aimed alternately above and below rank k so that both ends close in; every fourth halves the interval of
    # bit patterns, which bounds the number of passes whatever the distribution.
    unsigned = {4: jnp.uint32, 8: jnp.uint64}[values.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(values, unsigned)
    first, second = _brackets(values, k)

    def to_float(pattern):
        return jax.lax.bitcast_convert_type(pattern, values.dtype)

    def below(pattern):
        return jnp.sum(bits < pattern, dtype=jnp.int32)

    def unfinished(carry):
        low, high, below_low, _, _ = carry
        return (high - low > 1) & (below_low != k)

    def narrow(carry):
        low, high, below_low, below_high, step = carry
        inside = (below_high - below_low).astype(values.dtype)
        margin = jnp.where(step % 2 == 0, 0.5, -0.5) * jnp.sqrt(inside)
        target = (k - below_low).astype(values.dtype) + 0.5 + jnp.where(inside > 8, margin, 0.0)
        value = to_float(low) + (to_float(high) - to_float(low)) * jnp.clip(target / inside, 0.0, 1.0)
        value = jnp.where(step == 0, first, jnp.where(step == 1, second, value)).astype(values.dtype)
        pivot = jax.lax.bitcast_convert_type(value, unsigned)
        pivot = jnp.where(step % 4 == 3, low + (high - low) // 2, pivot)
        pivot = jnp.clip(pivot, low + 1, high - 1)
        found = below(pivot)
        left = found > k
        return (
            jnp.where(left, low, pivot),
            jnp.where(left, pivot, high),
            jnp.where(left, below_low, found),
            jnp.where(left, found, below_high),
            step + 1,
        )

    one = jnp.ones((), unsigned)
    count = jnp.asarray(values.size, jnp.int32)
    start = (bits.min(), bits.max() + one, jnp.zeros((), jnp.int32), count, jnp.zeros((), jnp.int32))
    low = jax.lax.while_loop(unfinished, narrow, start)[0]
    return jnp.where(values >= to_float(low), values, jnp.inf).min()


def _brackets(values: Array, k: Array) -> tuple[Array, Array]:
    stride = (values.size // SAMPLE) | 1  # odd: a power of two would visit few columns
    sample = jnp.sort(values.reshape(-1)[::stride])
    share = k.astype(values.dtype) / values.size
    spread = 3.0 * jnp.sqrt(sample.size * share * (1.0 - share)) + 1.0
    ends = jnp.stack([jnp.floor(share * sample.size - spread), jnp.ceil(share * sample.size + spread)])
    ends = jnp.clip(ends, 0, sample.size - 1).astype(jnp.int32)
    return sample[ends[0]], sample[ends[1]]
