"""NT-Xent between two views, its outlier-aware form, and the term per object that scores (arXiv 2408.07819, section 3).

Rows a_i and b_i of unit length are a positive pair; all other rows of both views are negatives of either, and so are
the rows of a memory bank in the outlier-aware form: `l_i = logsumexp(all logits) - logit of the partner`.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxmodels.outliers.log_sums import log_sums, log_sums_in_blocks

LEAST = 0.05  # temperature; below, logits of unit rows lie so far apart that every row needs a bound of its own
EXACT = jax.lax.Precision.HIGHEST  # a temperature of 0.5 and less makes logits sensitive to bfloat16 products


def unit(z: Float[Array, "*b l"]) -> Float[Array, "*b l"]:
    """Rows of length 1; a shorter row than 1e-12 is divided by that."""
    squares = (z * z).sum(-1, keepdims=True)
    safe = jnp.where(squares > 1e-24, squares, 1.0)  # no square root of zero: its gradient is not finite
    return z / jnp.where(squares > 1e-24, jnp.sqrt(safe), 1e-12)


def terms(
    a: Float[Array, "b l"],
    b: Float[Array, "b l"],
    *,
    temperature: float = 0.5,
    counted: Bool[Array, " b"] | None = None,
    bank: Float[Array, "q l"] | None = None,
    bank_counted: Bool[Array, " q"] | None = None,
    positive_weight: Float[Array, " b"] | None = None,
    block: int | None = None,
) -> Float[Array, "2 b"]:
    """The cross-entropy of each row of both views.

    Args:
        a: rows of the first view, of unit length.
        b: rows of the second view.
        temperature: logits are dot products divided by it.
        counted: rows that are there; the others are nobody's negatives, and their own terms mean nothing.
        bank: more negatives of every row.
        bank_counted: rows of the bank that are there.
        positive_weight: factor of the positive logit alone.
        block: rows worked on at once, so that memory is O(block x b); None takes all.

    Returns:
        The terms of a's rows and of b's rows.
    """
    there = jnp.ones(len(a), bool) if counted is None else counted
    if block is None and positive_weight is None and temperature >= LEAST:
        return _at_once(a, b, temperature, there, bank, bank_counted)
    size = len(a) if block is None else block

    def of(own, other):
        def rows(z, at):
            """Terms of the rows `at`, which are z."""
            same, cross = _logits(z, own, temperature), _logits(z, other, temperature)
            return _terms(same, cross, at, there, positive_weight, *_negatives(z))

        ids = jnp.arange(len(own))
        chunks = jnp.pad(ids, (0, -len(own) % size)).reshape(-1, size)  # padding repeats row 0
        return jax.lax.map(lambda at: rows(own[at], at), chunks).reshape(-1)[: len(own)]

    def _negatives(z):
        if bank is None:
            return ()
        more = _logits(z, bank, temperature)
        return (more if bank_counted is None else jnp.where(bank_counted[None], more, -jnp.inf),)

    return jnp.stack([of(a, b), of(b, a)])


def _at_once(a, b, temperature, there, bank, bank_counted):
    """All rows at once: one bound for all logits serves where they are not far apart."""
    more = jnp.zeros((0, a.shape[1]), a.dtype) if bank is None else bank
    kept = jnp.ones(len(more), bool) if bank_counted is None else bank_counted
    sums = log_sums(a, b, more, there.astype(a.dtype), kept.astype(a.dtype), jnp.asarray(1 / temperature, a.dtype))
    return sums - (a * b).sum(1)[None] / temperature


def _logits(a, b, temperature):
    return jnp.einsum("il,jl->ij", a, b, precision=EXACT) / temperature


def _terms(same, cross, at, there, positive_weight, *more):
    """Of the rows `at`: logits (r, b) with their own view and the other, and with a bank."""
    partner = at[:, None] == jnp.arange(same.shape[1])[None]
    positive = jnp.where(partner, cross, 0.0).sum(1)
    if positive_weight is not None:
        positive = positive * positive_weight[at]
    same = jnp.where(there[None] & ~partner, same, -jnp.inf)
    cross = jnp.where(partner, positive[:, None], jnp.where(there[None], cross, -jnp.inf))
    parts = (same, cross, *more)
    # Part by part and not of one concatenated matrix, which would be written and read once more.
    high = jax.lax.stop_gradient(functools.reduce(jnp.maximum, [part.max(1) for part in parts]))
    total = sum(jnp.exp(part - high[:, None]).sum(1) for part in parts)
    return jnp.log(total) + high - positive


def nt_xent(
    a: Float[Array, "b l"], b: Float[Array, "b l"], *, counted: Bool[Array, " b"] | None = None, **options
) -> Float[Array, ""]:
    """The mean of `terms` over the counted rows of both views; 0 where none counts.

    Args:
        a: rows of the first view, of unit length, or such times a weight per row.
        b: rows of the second view.
        counted: rows that are there.
        **options: of `terms`.
    """
    each = terms(a, b, counted=counted, **options)
    if counted is None:
        return each.mean()
    return jnp.where(counted[None], each, 0.0).sum() / jnp.maximum(2 * counted.sum(), 1)


def contrast_scores(
    a: Float[Array, "n l"],
    b: Float[Array, "n l"],
    *,
    temperature: float = 0.5,
    counted: Bool[Array, " n"] | None = None,
    block: int = 300,
) -> Float[Array, " n"]:
    """How badly the views of each object agree, among all objects: the mean of its two terms.

    Args:
        a: unit rows of the first view.
        b: unit rows of the second.
        temperature: see `terms`.
        counted: objects that are there; see `terms`.
        block: rows worked on at once; the 2n x 2n logits are never there as a whole.
    """
    if temperature < LEAST:
        return terms(a, b, temperature=temperature, counted=counted, block=block).mean(0)
    there = jnp.ones(len(a), a.dtype) if counted is None else counted.astype(a.dtype)
    sums = log_sums_in_blocks(a, b, there, jnp.asarray(1 / temperature, a.dtype), block=block)
    return sums.mean(0) - (a * b).sum(1) / temperature
