"""Top-N metrics as the evaluator of DPCML and LibCML computes them, from ranks.

Users with fewer held-out items than K are left out of the metrics at K (so that different K average over different
users), and users with fewer than three out of MAP, MRR, AUC and NDCG over the whole list.
"""

import numpy as np

FEWEST = 3  # held-out items that a user needs for the metrics over the whole list


def at_k(ranks: np.ndarray, starts: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Precision, recall and NDCG at K of each user, NaN for those with fewer than K items.

    Args:
        ranks: of the held-out items, users after one another.
        starts: (M + 1,) where each user's begin.
        k: K.
    """
    counts = np.diff(starts)
    hit = ranks <= k
    hits, gain = (_sums(values, starts) for values in (hit.astype(np.float64), hit / np.log2(ranks + 1.0)))
    ideal = (1 / np.log2(np.arange(2, k + 2))).sum()
    kept = counts >= k
    each = {"precision": hits / k, "recall": hits / np.maximum(counts, 1), "ndcg": gain / ideal}
    return {name: np.where(kept, values, np.nan) for name, values in each.items()}


def whole_list(ranks: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """MAP, MRR, AUC and NDCG of each user over the whole list, NaN for those with fewer than three items.

    MRR is the reciprocal of the first hit's rank. AUC is 1 where nothing but held-out items is left.

    Args:
        ranks: of the held-out items, users after one another.
        starts: (M + 1,).
        lengths: (M,) how many items are ranked for each user.
    """
    counts = np.diff(starts)
    users = np.repeat(np.arange(len(counts)), counts)
    ordered = ranks[np.lexsort((ranks, users))].astype(np.float64)
    place = np.arange(len(ordered)) - np.repeat(starts[:-1], counts) + 1
    kept, safe = counts >= FEWEST, np.maximum(counts, 1)
    first = np.where(counts > 0, ordered[np.minimum(starts[:-1], len(ordered) - 1)], np.nan)
    discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, counts.max(initial=0) + 2)))])
    rest = counts * (lengths - counts)
    below = counts * lengths + 0.5 * counts * (1 - counts) - _sums(ordered, starts)  # pairs in the right order
    each = {
        "map": _sums(place / ordered, starts) / safe,
        "mrr": 1 / first,
        "auc": np.where(rest > 0, below / np.maximum(rest, 1), 1.0),
        "ndcg": _sums(1 / np.log2(ordered + 1), starts) / np.maximum(discounts[counts], 1e-300),
    }
    return {name: np.where(kept, values, np.nan) for name, values in each.items()}


def mean(values: np.ndarray) -> float:
    """The mean over users that take part; NaN when none does."""
    kept = ~np.isnan(values)
    return float(values[kept].mean()) if kept.any() else float("nan")


def max_diversity(item: np.ndarray, best: np.ndarray, lengths: np.ndarray) -> float:
    """Mean over all users of the summed squared distances between their best items, ordered pairs.

    Args:
        item: (N, d) vectors.
        best: (M, K) ids.
        lengths: (M,) how many items are ranked for each user; of fewer than K there are no more pairs than that.
    """
    there = np.arange(best.shape[1])[None] < lengths[:, None]
    vectors = item.astype(np.float64)[best] * there[:, :, None]
    # sum_ij |a_i - a_j|^2 = 2 n sum |a_i|^2 - 2 |sum a_i|^2
    squares, total = (vectors**2).sum((1, 2)), vectors.sum(1)
    return float((2 * there.sum(1) * squares - 2 * (total**2).sum(1)).mean())


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.diff(np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])[starts])
