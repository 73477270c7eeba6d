"""Objects that a batch names several times are encoded once: the neighbours of its rows are largely the same ones."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SHARE = 5 / 8  # of the rows named; more distinct objects than that are encoded row by row


def encode_distinct(
    encode: Callable[[jax.Array], jax.Array], table: Float[Array, "n d"], rows: Int[Array, " r"]
) -> Float[Array, "r l"]:
    """`encode(table[rows])`, on CPUs of each object once where that spares enough of them; equal but for rounding.

    Shapes are static, so a program holds both ways and takes the short one where the distinct objects fit. Other
    platforms encode every row: nothing was timed there.

    Args:
        encode: (any rows, d) -> (as many, l), each row by itself.
        table: all objects.
        rows: which of them, with repetitions.
    """
    if not jax.sharding.get_abstract_mesh().empty:  # the rows of a batch are spread, all objects are not
        return encode(table[rows])
    most = min(len(table), int(SHARE * len(rows)))

    def every(rows):
        return encode(table[rows])

    def once(rows):
        named = jnp.zeros(len(table), bool).at[rows].set(True)
        place = jnp.cumsum(named) - 1

        def short(rows):
            return encode(table[jnp.nonzero(named, size=most, fill_value=0)[0]])[place[rows]]

        return short(rows) if most == len(table) else jax.lax.cond(place[-1] < most, short, every, rows)

    return jax.lax.platform_dependent(rows, cpu=once, default=every)
