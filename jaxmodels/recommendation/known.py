"""Known positives on the device: who has which items, and draws among the items that a user does not have.

A negative is drawn without rejection: a rank among the free items (or a place in their total popularity) is uniform,
and a binary search turns it into the item. Memory is that of the lists, never users x items.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key


class Known(NamedTuple):
    """Lists of items per user, ascending and distinct.

    Attributes:
        starts: (users + 1,) where each list starts in `items`.
        items: all lists after one another.
    """

    starts: Int[Array, "_"]
    items: Int[Array, "_"]


def known_of(users: np.ndarray, items: np.ndarray, *, num_users: int, num_items: int) -> Known:
    """Lists from pairs; duplicates count once.

    Args:
        users: (P,).
        items: (P,).
        num_users: M.
        num_items: N.

    Raises:
        ValueError: an id out of range, or a user who has every item, so that there is no negative.
    """
    for name, ids, most in (("user", users, num_users), ("item", items, num_items)):
        if len(ids) and (ids.min() < 0 or ids.max() >= most):
            wrong = ids[(ids < 0) | (ids >= most)][0]
            raise ValueError(f"interactions: found {name} {wrong}, expected 0 to {most - 1}")
    pairs = np.unique(users.astype(np.int64) * num_items + items)
    counts = np.bincount(pairs // num_items, minlength=num_users)
    if len(full := np.flatnonzero(counts >= num_items)):
        raise ValueError(f"interactions: user {full[0]} has all {num_items} items, expected some that are left")
    starts = np.concatenate([[0], np.cumsum(counts)])
    return Known(jnp.asarray(starts.astype(np.int32)), jnp.asarray((pairs % num_items).astype(np.int32)))


def listed(known: Known, users: Int[Array, "*b"], items: Int[Array, "*b"]) -> Bool[Array, "*b"]:
    """Whether each user has each item."""
    at = _below(known, users, items)
    inside = known.starts[users] + at < known.starts[users + 1]
    return inside & (known.items[jnp.minimum(known.starts[users] + at, len(known.items) - 1)] == items)


def dense_rows(known: Known, users: Int[Array, " b"], num_items: int, longest: int) -> Bool[Array, "b n"]:
    """Lists as rows of True and False.

    Args:
        known: lists.
        users: whose.
        num_items: N.
        longest: length of the longest list, or more.
    """
    at = known.starts[users][:, None] + jnp.arange(longest)[None]
    there = at < known.starts[users + 1][:, None]
    columns = jnp.where(there, known.items[jnp.minimum(at, len(known.items) - 1)], num_items)
    empty = jnp.zeros((len(users), num_items), bool)
    return empty.at[jnp.arange(len(users))[:, None], columns].set(True, mode="drop")


def uniform_others(
    key: Key[Array, ""], known: Known, users: Int[Array, " b"], count: int, num_items: int
) -> Int[Array, "b s"]:
    """Items drawn uniformly, with replacement, among those that a user does not have.

    Args:
        key: of the draw.
        known: lists.
        users: whose.
        count: S.
        num_items: N.
    """
    held = known.starts[users + 1] - known.starts[users]
    rank = jax.random.randint(key, (len(users), count), 0, (num_items - held)[:, None], held.dtype)
    start = known.starts[users][:, None]

    def before(at):
        """Free items below the item at a place of the list."""
        return known.items[jnp.minimum(start + at, len(known.items) - 1)] - at

    most = jnp.broadcast_to(held[:, None], rank.shape)
    return rank + _search(jnp.zeros_like(rank), most, lambda at: before(at) <= rank)


def popular_others(
    key: Key[Array, ""], known: Known, users: Int[Array, " b"], count: int, popularity: Int[Array, " n"]
) -> Int[Array, "b s"]:
    """Items drawn in proportion to `popularity`, with replacement, among those that a user does not have.

    Args:
        key: of the draw.
        known: lists.
        users: whose; one who has all items of any popularity gets the last item.
        count: S.
        popularity: whole numbers, such as how many users have an item; their sum is below 2^31.
    """
    total = jnp.concatenate([jnp.zeros(1, popularity.dtype), jnp.cumsum(popularity)])
    of_lists = jnp.concatenate([jnp.zeros(1, popularity.dtype), jnp.cumsum(popularity[known.items])])
    first, last = known.starts[users][:, None], known.starts[users + 1][:, None]
    free = total[-1] - (of_lists[last] - of_lists[first])
    place = jax.random.randint(key, (len(users), count), 0, jnp.maximum(free, 1), free.dtype)
    everyone = jnp.broadcast_to(users[:, None], place.shape)

    def not_yet(item):
        held = of_lists[first + _below(known, everyone, item + 1)] - of_lists[first]
        return total[item + 1] - held <= place

    items = jnp.full_like(place, len(popularity) - 1)
    return _search(jnp.zeros_like(place), items, not_yet)


def _below(known: Known, users: jax.Array, items: jax.Array) -> jax.Array:
    """How many items of each user's list are below an item."""
    start, held = known.starts[users], known.starts[users + 1] - known.starts[users]

    def smaller(at):
        return known.items[jnp.minimum(start + at, len(known.items) - 1)] < items

    return _search(jnp.zeros_like(items), jnp.broadcast_to(held, items.shape), smaller)


def _search(low: jax.Array, high: jax.Array, smaller) -> jax.Array:
    """The first place in [low, high) that is not `smaller`, else high; as many rounds as the longest range needs."""

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        up = (low < high) & smaller(middle)
        return jnp.where(up, middle + 1, low), jnp.where(up | (low >= high), high, middle)

    longest = (high - low).max(initial=0)
    rounds = jnp.iinfo(longest.dtype).bits - jax.lax.clz(longest)  # bits of its length
    return jax.lax.fori_loop(0, rounds, halve, (low, high))[0]


def popularity_of(known: Known, num_items: int) -> Int[Array, " n"]:
    """How many users have each item."""
    return jnp.zeros(num_items, jnp.int32).at[known.items].add(1)
