"""The bank of potential outliers: raw inputs of the objects whose views agreed least, newest batches first to last."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Bank(NamedTuple):
    """A ring of blocks, one per batch.

    Attributes:
        views: per view inputs (blocks, t, D).
        counted: (blocks, t), slots that hold an object.
        at: the block that is written next.
    """

    views: tuple[Float[Array, "q t _"], ...]
    counted: Bool[Array, "q t"]
    at: Int[Array, ""]


def block_size(rows: int, share: float) -> int:
    """Objects that a batch of so many rows puts in: a share, rounded down, at least 1.

    >>> block_size(256, 0.05), block_size(8, 0.05)
    (12, 1)
    """
    return max(int(rows * share), 1)


def new_bank(blocks: int, rows: int, share: float, widths: tuple[int, ...], dtype: jnp.dtype) -> Bank:
    """An empty bank.

    Args:
        blocks: how many batches it remembers.
        rows: of a batch, at most.
        share: of a batch's rows that it takes.
        widths: D of each view.
        dtype: of the inputs.
    """
    size = block_size(rows, share)
    views = tuple(jnp.zeros((blocks, size, width), dtype) for width in widths)
    return Bank(views, jnp.zeros((blocks, size), bool), jnp.zeros((), jnp.int32))


def push(
    bank: Bank,
    views: tuple[Float[Array, "b _"], ...],
    agreement: Float[Array, " b"],
    counted: Bool[Array, " b"],
    *,
    share: float,
) -> Bank:
    """The bank with a batch's least agreeing rows in the place of the oldest block.

    Args:
        bank: of blocks for at least this batch's rows.
        views: inputs of the batch.
        agreement: cosine of the two latents, per row.
        counted: rows that can be chosen; none leaves the bank as it is.
        share: of the counted rows that is taken, rounded down, at least 1.
    """
    size = bank.counted.shape[1]
    # A table, not a product: 0.05 x 60 must round as it does in Python.
    take = jnp.asarray(np.array([block_size(rows, share) for rows in range(len(agreement) + 1)]))[counted.sum()]
    score = jnp.where(counted, -agreement, -jnp.inf)
    _, chosen = jax.lax.top_k(score, min(size, len(agreement)))
    chosen = jnp.pad(chosen, (0, size - len(chosen)))
    full = (jnp.arange(size) < take) & (jnp.arange(size) < counted.sum())
    blocks = tuple(
        old.at[bank.at].set(jnp.where(full[:, None], jax.lax.stop_gradient(x)[chosen], 0.0))
        for old, x in zip(bank.views, views, strict=True)
    )
    after = Bank(blocks, bank.counted.at[bank.at].set(full), (bank.at + 1) % len(bank.counted))
    return jax.tree.map(lambda new, old: jnp.where(counted.any(), new, old), after, bank)
