"""Who interacted with what: lists of items per user, their readers and the split of the published protocols."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmodels.data.tables import lines_of

FEWEST = 5  # items that a user needs, by default
MOST = 2**31 - 1  # ids are 32-bit integers on devices, and the number of items is one too


class Interactions(NamedTuple):
    """Lists of items.

    Attributes:
        starts: (users + 1,) where each user's items start.
        items: all lists after one another, ascending within a user.
        num_items: N; there may be items that nobody has.
    """

    starts: np.ndarray
    items: np.ndarray
    num_items: int

    @property
    def num_users(self) -> int:
        """M."""
        return len(self.starts) - 1

    @property
    def users(self) -> np.ndarray:
        """The user of each entry of `items`."""
        return np.repeat(np.arange(self.num_users), np.diff(self.starts))


class Listed(NamedTuple):
    """Interactions, and what their users and items are called outside.

    Attributes:
        data: lists of items per user.
        users: (M,) ids of the file.
        items: (N,) ids of the file, None where they are 0 to N - 1.
        times: of each entry of `data.items`, None where the file has none.
    """

    data: Interactions
    users: np.ndarray
    items: np.ndarray | None
    times: np.ndarray | None = None


class Divided(NamedTuple):
    """Train, validation and test; the same users and items in each."""

    train: Interactions
    val: Interactions
    test: Interactions


def of_lists(lists: Iterable[np.ndarray], num_items: int) -> Interactions:
    """Interactions from a list of item ids per user."""
    own = [np.sort(np.asarray(each, np.int64)) for each in lists]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in own], dtype=np.int64)])
    return Interactions(starts, np.concatenate([np.zeros(0, np.int64), *own]), num_items)


def read_users(file: Path | str, *, fewest: int = FEWEST) -> Listed:
    """A users.dat: per line `n i1 i2 ... in` of one user, item ids from 0; users are called by their lines, from 0.

    Users with fewer items are dropped; items keep their ids, up to the largest left.

    Args:
        file: the text file.
        fewest: items that a user needs.

    Raises:
        ValueError: a line that is not n and n ids, an id that is too large, an item listed twice, or no user left.
    """
    kept, lines = [], []
    for number, line in enumerate(lines_of(Path(file)), 1):
        words = line.split()
        if not words:
            continue
        if not all(word.isdecimal() for word in words) or int(words[0]) != len(words) - 1:
            raise ValueError(f"{file}:{number}: expected n and then n item ids from 0, found '{line.strip()[:60]}'")
        own = np.array([checked_id(int(word), f"{file}:{number}") for word in words[1:]], np.int64)
        if len(np.unique(own)) < len(own):
            raise ValueError(f"{file}:{number}: an item is listed twice")
        if len(own) >= fewest:
            kept.append(own)
            lines.append(number - 1)
    if not kept:
        raise ValueError(f"{file}: no user has {fewest} items or more")
    return Listed(of_lists(kept, int(max(own.max() for own in kept)) + 1), np.array(lines), None)


def checked_id(item: int, where: str) -> int:
    """An id that is a row of a table as it is.

    Raises:
        ValueError: a negative id, or one of 2^31 or more.
    """
    if not 0 <= item < MOST:
        raise ValueError(f"{where}: found item {item}, expected ids from 0 to {MOST - 1}: they are rows of a table")
    return item


def split_interactions(data: Interactions, *, seed: int = 1234, shares: tuple[float, float] = (0.6, 0.2)) -> Divided:
    """Each user's items at random, 3 : 1 : 1 by default, as DPCML's and LibCML's released code divide them.

    Args:
        data: all interactions.
        seed: of NumPy's legacy generator, which shuffles user after user.
        shares: of training and validation, rounded down; the rest is for the test.

    Raises:
        ValueError: shares that are no shares.
    """
    if min(shares) < 0 or sum(shares) > 1:
        raise ValueError(f"shares: found {shares}, expected two numbers from 0 whose sum is at most 1")
    random = np.random.RandomState(seed)
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    for first, last in zip(data.starts[:-1], data.starts[1:], strict=True):
        own = data.items[first:last].copy()
        random.shuffle(own)
        one = int(shares[0] * len(own))
        two = one + int(shares[1] * len(own))
        for part, piece in zip(parts, (own[:one], own[one:two], own[two:]), strict=True):
            part.append(piece)
    return Divided(*(of_lists(part, data.num_items) for part in parts))
