"""Nearest neighbours of objects of which some lack a view: there the other view tells who is near.

This is the relation transfer of arXiv 2408.07819: an object without view v takes the neighbours that it has in the
other view, of which those count that do have view v. The released code asks for a fixed number of neighbours, filters
them and stops when too few are left; here the filter comes first, which gives the same lists and never falls short
before the objects themselves do.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

EXACT = jax.lax.Precision.HIGHEST


def neighbours(
    views: tuple[Float[Array, "n _"], Float[Array, "n _"]],
    has: Bool[Array, "n 2"],
    count: int,
    *,
    block: int = 512,
) -> Int[Array, "2 n k"]:
    """The nearest objects by Euclidean distance, per view, nearest first.

    Args:
        views: features or latents, rows of objects that lack the view hold anything.
        has: which object has which view; each has at least one.
        count: k; each view needs more than k objects that have it, and more than k that have both (see `check_count`).
        block: objects worked on at once.

    Returns:
        Object ids; an object is not its own neighbour.
    """
    return jnp.stack([_of_view(views[v], views[1 - v], has[:, v], has[:, 1 - v], count, block) for v in (0, 1)])


def _of_view(own, other, has_own, has_other, count, block):
    ids = jnp.arange(len(own))
    squares = [(x * x).sum(1) for x in (own, other)]

    def one(i: Int[Array, ""]):
        far = []
        for x, square in zip((own, other), squares, strict=True):
            far.append(square[i] + square - 2 * jnp.einsum("d,nd->n", x[i], x, precision=EXACT))
        here = jnp.where(has_own & (ids != i), far[0], jnp.inf)
        there = jnp.where(has_own & has_other & (ids != i), far[1], jnp.inf)
        _, found = jax.lax.top_k(-jnp.where(has_own[i], here, there), count)
        return found

    return jax.lax.map(one, ids, batch_size=block)


def check_count(has: Bool[np.ndarray, "n 2"], count: int, what: str = "the neighbours asked for") -> None:
    """Raises ValueError unless every object finds `count` neighbours in both views; on the host.

    Args:
        has: which object has which view; objects with neither are nobody's neighbours and need none.
        count: k.
        what: k is, for the message.
    """
    has = has[has.any(1)]
    both = int((has[:, 0] & has[:, 1]).sum())
    for v in (0, 1):
        own = int(has[:, v].sum())
        if own <= count:
            raise ValueError(f"view {v}: {own} objects have it, expected more than {count}, {what}")
        if both < count and not bool(has[:, v].all()):
            raise ValueError(f"{both} objects have both views, expected at least {count}, {what}")
