"""Ranks of held-out items among the whole catalogue, on the device in chunks of users.

An item's rank needs no sorting: it is one more than the number of better items, and of equal ones with a lower id.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmodels.training.mesh import fetch

Lists = tuple[np.ndarray, np.ndarray]  # starts (M + 1,), items: as `known.Known`, on the host


def pair_ranks(
    scores: Float[Array, "b n"], rows: Int[Array, " p"], items: Int[Array, " p"], *, block: int = 256
) -> Int[Array, " p"]:
    """The rank, from 1, of each pair's item in its row; ties go to the lower id.

    Args:
        scores: higher is better; -inf takes an item out of the list.
        rows: of the pairs.
        items: of the pairs.
        block: pairs compared at once.
    """
    ids = jnp.arange(scores.shape[1])

    def one(pair):
        row, item = pair
        own = scores[row]
        return 1 + ((own > own[item]) | ((own == own[item]) & (ids < item))).sum()

    return jax.lax.map(one, (rows, items), batch_size=block)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _chunk(predict, variables, users, seen_rows, seen_items, pairs, top):
    scores = predict(variables, {"user": users})
    bad = jnp.isnan(scores).sum()
    scores = scores.at[seen_rows, seen_items].set(-jnp.inf, mode="drop")
    best = jax.lax.top_k(scores, top)[1] if top else jnp.zeros((len(users), 0), jnp.int32)
    return pair_ranks(scores, *pairs), best, bad


def ranks_of(
    predict: Callable[[Any, Any], jax.Array],
    variables: Any,
    held_out: Lists,
    seen: Lists,
    *,
    items: int,
    users: np.ndarray | None = None,
    top: int = 0,
    chunk: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of all held-out pairs.

    Args:
        predict: of the method: (variables, {'user': ids}) -> scores (b, N).
        variables: of the method.
        held_out: items whose ranks are wanted, per user.
        seen: items that are left out of the list (the training items), per user.
        items: N.
        users: whom the lists belong to; users 0, 1, ... unless given.
        top: how many best items of each user to give too, at most N.
        chunk: users scored at once.

    Returns:
        Ranks in the order of `held_out`, and the ids of each user's best items (M, top).

    Raises:
        ValueError: scores that are no numbers, or more best items asked for than there are.
    """
    if top > items:
        raise ValueError(f"top: found {top}, expected at most {items}, the number of items")
    num = len(held_out[0]) - 1
    ids = np.arange(num) if users is None else users
    bounds = [(first, min(first + chunk, num)) for first in range(0, num, chunk)]
    longest = [max(int(lists[0][b] - lists[0][a]) for a, b in bounds) for lists in (held_out, seen)]
    ranks, best = [], []
    for first, last in bounds:
        whose = ids[np.minimum(np.arange(first, first + chunk), num - 1)]
        pairs = _pairs(held_out, first, last, longest[0], fill=(0, 0))
        gone = _pairs(seen, first, last, longest[1], fill=(chunk, items))  # outside: dropped
        found, chosen, bad = fetch(_chunk(predict, variables, whose, *gone, pairs, top))
        if int(bad):
            raise ValueError(f"users {first} to {last - 1}: {int(bad)} scores are NaN, expected numbers")
        ranks.append(found[: held_out[0][last] - held_out[0][first]])
        best.append(chosen[: last - first])
    return np.concatenate(ranks), np.concatenate(best)


def _pairs(lists: Lists, first: int, last: int, size: int, fill: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(row in the chunk, item) of the lists of some users, padded to a size."""
    starts, items = lists
    counts = np.diff(starts[first : last + 1])
    rows = np.repeat(np.arange(last - first), counts)
    left = size - len(rows)
    own = items[starts[first] : starts[last]]
    return (
        np.concatenate([rows, np.full(left, fill[0])]).astype(np.int32),
        np.concatenate([own, np.full(left, fill[1])]).astype(np.int32),
    )
