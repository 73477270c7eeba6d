"""The published samplers of negatives, draw by draw, on the host.

`known.py` draws from the same distributions on the device. These exist to repeat the released runs: they take raw draws
from a function, and consume them in the order of the released code.
"""

from collections.abc import Callable

import numpy as np

Draw = Callable[[int], np.ndarray]  # how many -> so many item ids
Triplets = tuple[np.ndarray, np.ndarray, np.ndarray]  # users, positives, negatives


def single_negatives(interactions: np.ndarray, draw: Draw, *, count: int) -> Triplets:
    """`count` triplets per known pair with one negative each, redrawn while the user knows it (uniform sampling).

    Args:
        interactions: (M, N), nonzero where known.
        draw: ids from all items.
        count: S.

    Returns:
        Three arrays (pairs x S,).
    """
    users, items = np.nonzero(interactions)
    negatives = [_fresh(interactions[user], draw) for user in users for _ in range(count)]
    return np.repeat(users, count), np.repeat(items, count), np.array(negatives, np.int64)


def block_negatives(interactions: np.ndarray, draw: Draw, *, count: int, flat: bool = False) -> Triplets:
    """A block of `count` draws per known pair, in which known ones are redrawn one by one (hard sampling).

    Args:
        interactions: (M, N), nonzero where known.
        draw: ids from all items.
        count: S.
        flat: one triplet per negative (sampling by popularity) instead of one row of S.

    Returns:
        Users and positives (pairs,), negatives (pairs, S); all (pairs x S,) if flat.
    """
    users, items = np.nonzero(interactions)
    rows = []
    for user in users:
        row = np.array(draw(count), np.int64)
        for place, item in enumerate(row):
            row[place] = _fresh(interactions[user], draw, int(item))
        rows.append(row)
    negatives = np.array(rows, np.int64).reshape(-1, count)
    if flat:
        return np.repeat(users, count), np.repeat(items, count), negatives.reshape(-1)
    return users, items, negatives


def _fresh(known: np.ndarray, draw: Draw, item: int | None = None) -> int:
    while item is None or known[item]:
        item = int(draw(1)[0])
    return item


def candidate_weights(item: np.ndarray, positives: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Two-stage sampling: how likely each candidate is for each positive (Tran et al., SIGIR 2019).

    exp((1 - (d - 1) / 2) log(1 - cos^2 + 1e-8) + log 0.2228655673) for candidates on the positive's side, which undoes
    that random vectors on a sphere are mostly at right angles. The positive itself gets 0; in the released float32 code
    rounding decides between 0 and nearly everything.

    Args:
        item: (N, d) vectors of unit length.
        positives: (b,) ids.
        candidates: (c,) distinct ids.

    Returns:
        (b, c), rows that sum to 1; uniform where no candidate qualifies.
    """
    vectors = item.astype(np.float64)
    cosine = vectors[positives] @ vectors[candidates].T
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = (1 - (item.shape[1] - 1) / 2) * np.log(1 - cosine**2 + 1e-8) + np.log(0.2228655673)
    usable = (cosine > 0) & np.isfinite(logs) & (positives[:, None] != candidates[None])
    top = np.where(usable, logs, -np.inf).max(1, keepdims=True)
    weight = np.where(usable, np.exp(logs - np.where(np.isfinite(top), top, 0.0)), 0.0)
    total = weight.sum(1, keepdims=True)
    return np.where(total > 0, weight / np.where(total > 0, total, 1), 1 / len(candidates))
