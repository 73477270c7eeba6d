"""Quantities of the theory of DPCML, for diagnosis (arXiv 2209.15292)."""

import numpy as np


def full_risk(scores: np.ndarray, interactions: np.ndarray, *, margin: float) -> np.ndarray:
    """Mean hinge over all (positive, negative) pairs of each user, NaN without either.

    Args:
        scores: (M, N) squared distances, lower is better.
        interactions: (M, N), nonzero where positive.
        margin: lambda.
    """
    out = np.full(len(scores), np.nan)
    for user, (row, known) in enumerate(zip(scores, interactions > 0, strict=True)):
        if known.any() and not known.all():
            out[user] = np.maximum(margin + row[known][:, None] - row[~known][None], 0).mean()
    return out


def partial_auc(scores: np.ndarray, interactions: np.ndarray, beta: float) -> np.ndarray:
    """One-way partial AUC of each user: right orders of the positives and the floor(beta n-) nearest negatives.

    Args:
        scores: (M, N) squared distances.
        interactions: (M, N).
        beta: largest false positive rate; 1 is the AUC.
    """
    return _hardest(scores, interactions, beta, lambda near, far: (near < far).mean())


def partial_hinge(scores: np.ndarray, interactions: np.ndarray, beta: float, *, margin: float) -> np.ndarray:
    """The hinge over the same pairs as `partial_auc`."""
    return _hardest(scores, interactions, beta, lambda near, far: np.maximum(margin + near - far, 0).mean())


def _hardest(scores, interactions, beta, of_pairs) -> np.ndarray:
    out = np.full(len(scores), np.nan)
    for user, (row, known) in enumerate(zip(scores, interactions > 0, strict=True)):
        if known.any() and not known.all():
            negatives = np.sort(row[~known])
            out[user] = of_pairs(row[known][:, None], negatives[None, : max(1, int(beta * len(negatives)))])
    return out


def effective_samples(history: np.ndarray, negatives: np.ndarray, *, radius: float, eta: float) -> float:
    """N tilde of Theorem 1.

    Args:
        history: (M,) positives of each user.
        negatives: (M,) the others.
        radius: r, bound of the norms.
        eta: weight of the regularisation.
    """
    users = len(history)
    inner = (4 + eta) ** 2 / users + 2 / users**2 * (1 / history + 1 / negatives).sum()
    return float((4 * radius**2 * np.sqrt(inner)) ** -2)


def generalisation_bound(samples: float, *, dim: int, radius: float) -> float:
    """Sqrt(2 d log(3 r N) / N) with N = max(`samples`, 2): for small data the bound says nothing."""
    samples_at_least = max(samples, 2.0)
    return float(np.sqrt(2 * dim * np.log(3 * radius * samples_at_least) / samples_at_least))


def preference_diversity(interactions: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Share of ordered pairs of a user's items that have no category in common, 0 with fewer than two items.

    Args:
        interactions: (M, N).
        categories: (N, G), nonzero where an item is in a category.
    """
    out = np.zeros(len(interactions))
    for user, known in enumerate(interactions > 0):
        own = (categories[known] > 0).astype(np.int64)
        if len(own) > 1:
            disjoint = (own @ own.T == 0) & ~np.eye(len(own), dtype=bool)
            out[user] = disjoint.sum() / (len(own) * (len(own) - 1))
    return out
