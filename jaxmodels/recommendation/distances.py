"""Squared Euclidean distances by the Gram identity, so that no table of differences is ever built."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EXACT = jax.lax.Precision.HIGHEST


def squared(users: Float[Array, "b c d"], items: Float[Array, "b s d"]) -> Float[Array, "b c s"]:
    """|u|^2 + |v|^2 - 2 u.v, which rounding can make slightly negative.

    Args:
        users: c vectors of each row's user.
        items: s items of each row.
    """
    products = jnp.einsum("bcd,bsd->bcs", users, items, precision=EXACT)
    return (users * users).sum(-1)[:, :, None] + (items * items).sum(-1)[:, None, :] - 2 * products


def nearest(
    users: Float[Array, "b c d"], items: Float[Array, "b s d"], has: Bool[Array, "b c"] | None = None
) -> Float[Array, "b s"]:
    """Distance to the nearest of a user's vectors; `has` tells which vectors there are."""
    found = squared(users, items)
    return (found if has is None else jnp.where(has[:, :, None], found, jnp.inf)).min(1)


def to_catalogue(
    users: Float[Array, "b c d"], items: Float[Array, "n d"], has: Bool[Array, "b c"] | None = None
) -> Float[Array, "b n"]:
    """`nearest` to every item of the catalogue: one product of matrices."""
    products = jnp.einsum("bcd,nd->bcn", users, items, precision=EXACT)
    found = (users * users).sum(-1)[:, :, None] + (items * items).sum(-1)[None, None, :] - 2 * products
    return (found if has is None else jnp.where(has[:, :, None], found, jnp.inf)).min(1)
