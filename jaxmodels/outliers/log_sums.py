"""The denominators of a contrastive loss over two views at once, with their gradient by hand.

A row's logits must not overflow, which usually costs a maximum per row. Where all rows are short one bound serves all,
and then `exp` of the logits between the views is computed once for the rows of both. The gradient needs the same
exponentials and nothing else; automatic differentiation goes over them several times more.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


@jax.custom_vjp
def log_sums(
    a: Float[Array, "b l"],
    b: Float[Array, "b l"],
    bank: Float[Array, "q l"],
    there: Float[Array, " b"],
    kept: Float[Array, " q"],
    scale: Float[Array, ""],
) -> Float[Array, "2 b"]:
    """Logarithm of the sum of exp(scale x dot product) of each row with all others of both views and with a bank.

    Args:
        a: rows of the first view; no longer than 1 by much, for scale x their squared length is what is subtracted.
        b: rows of the second view.
        bank: more rows.
        there: 1 for rows that are summed over, 0 for others, whose own sums mean nothing.
        kept: the same for the bank.
        scale: one over the temperature; sums may underflow above 40.

    Returns:
        Of a's rows and of b's rows. There is a gradient for a, b and bank.
    """
    return _forward(a, b, bank, there, kept, scale)[0]


def _forward(a, b, bank, there, kept, scale):
    exps, shift = _exponentials(scale, a, b, bank)
    others = 1 - jnp.eye(len(a), dtype=a.dtype)
    same = exps(a, a) * others, exps(b, b) * others
    cross, more = exps(a, b), (exps(a, bank), exps(b, bank))
    absent = 1 - there  # keeps the logarithm finite, also where no row is there
    sums = jnp.stack([
        matmul(same[0], there) + matmul(cross, there) + matmul(more[0], kept) + absent,
        matmul(same[1], there) + matmul(there, cross) + matmul(more[1], kept) + absent,
    ])  # fmt: skip
    return jnp.log(sums) + shift, (a, b, bank, there, kept, scale, same, cross, more, sums)


def _backward(held, g):
    a, b, bank, there, kept, scale, same, cross, more, sums = held
    one, two = scale * g / sums
    within = [e * (x[:, None] * there[None] + there[:, None] * x[None]) for e, x in zip(same, (one, two), strict=True)]
    across = cross * (one[:, None] * there[None] + there[:, None] * two[None])
    banked = [e * (x[:, None] * kept[None]) for e, x in zip(more, (one, two), strict=True)]
    to_a = matmul(within[0], a) + matmul(across, b) + matmul(banked[0], bank)
    to_b = matmul(within[1], b) + matmul(across.T, a) + matmul(banked[1], bank)
    return to_a, to_b, matmul(banked[0].T, a) + matmul(banked[1].T, b), None, None, None


log_sums.defvjp(_forward, _backward)


def log_sums_in_blocks(
    a: Float[Array, "n l"], b: Float[Array, "n l"], there: Float[Array, " n"], scale: Float[Array, ""], *, block: int
) -> Float[Array, "2 n"]:
    """`log_sums` without a bank or a gradient, at most `block` rows at once: memory is O(block x n)."""
    rows, there, count = jnp.concatenate([a, b]), jnp.concatenate([there, there]), 2 * len(a)
    exps, shift = _exponentials(scale, rows)
    blocks = -(-count // block) | 1  # an odd number, so that the halves below meet nowhere twice
    block = -(-count // blocks)
    width = (blocks // 2 + 1) * block
    rows, there = (jnp.pad(x, [(0, blocks * block - count)] + [(0, 0)] * (x.ndim - 1)) for x in (rows, there))
    ring, ring_there = (jnp.concatenate([x, x[: width - block]]) for x in (rows, there))
    own = jnp.arange(block)

    def body(theirs, start):
        x, counted = (jax.lax.dynamic_slice_in_dim(each, start, block) for each in (ring, ring_there))
        near, near_counted = (jax.lax.dynamic_slice_in_dim(each, start, width) for each in (ring, ring_there))
        # exp(i, j) = exp(j, i): a block meets itself and the half of all others that follows it in the ring, and what
        # it finds is added to their sums as well.
        found = exps(x, near).at[own, own].set(0.0)
        at = start + block
        more = jax.lax.dynamic_slice_in_dim(theirs, at, width - block) + matmul(counted, found)[block:]
        return jax.lax.dynamic_update_slice_in_dim(theirs, more, at, 0), matmul(found, near_counted)

    theirs, sums = jax.lax.scan(body, jnp.zeros_like(ring_there), jnp.arange(blocks) * block)
    sums = sums.reshape(-1) + theirs[: len(rows)].at[: width - block].add(theirs[len(rows) :])  # the ring is closed
    return jnp.log(sums + (1 - there))[:count].reshape(2, -1) + shift


def _exponentials(scale, *rows):
    """exp(logit - bound) of two sets of rows, and the bound."""
    # Cauchy and Schwarz: no logit is larger than scale x the largest squared length.
    bound = scale * functools.reduce(jnp.maximum, [(x * x).sum(1).max(initial=0.0) for x in rows])
    return lambda x, y: jnp.exp(scale * matmul(x, y.T) - bound), bound
