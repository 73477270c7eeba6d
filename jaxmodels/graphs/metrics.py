"""Scores of graph benchmarks, on the host, by scikit-learn; what an unlabelled (NaN) entry means is settled here."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn import metrics


def accuracy(labels: ArrayLike, scores: ArrayLike) -> float:
    """Fraction of rows whose largest score (R, c) is at the label (R,)."""
    return float(metrics.accuracy_score(np.asarray(labels), np.asarray(scores).argmax(-1)))


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve, mean over the tasks in which both labels occur.

    Args:
        labels: 0, 1 or NaN (unlabelled); (R,) or (R, tasks).
        scores: (R,) or (R, tasks); with labels (R,) also (R, 2), whose column 1 is the score.

    Raises:
        ValueError: shapes that disagree, or no task with both labels.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    columns = _tasks(labels, scores)
    values = [metrics.roc_auc_score(y, s) for y, s in columns if 0 < y.sum() < len(y)]
    return _mean(values, "both labels")


def average_precision(labels: ArrayLike, scores: ArrayLike, *, average: str = "macro") -> float:
    """Average precision over labelled entries.

    Args:
        labels: as in `roc_auc`.
        scores: as in `roc_auc`.
        average: 'macro', the mean over tasks with both labels, as OGB's evaluator; 'micro', all entries flattened
            together, as N2's released code reports for ogbg-molpcba. They are not comparable.

    Raises:
        ValueError: another average, shapes that disagree, or no task with both labels.
    """
    columns = _tasks(labels, scores)
    if average == "micro":
        return float(metrics.average_precision_score(*(np.concatenate(side) for side in zip(*columns, strict=True))))
    if average != "macro":
        raise ValueError(f"average: found '{average}', expected 'macro' or 'micro'")
    return _mean([metrics.average_precision_score(y, s) for y, s in columns if 0 < y.sum() < len(y)], "both labels")


def balanced_accuracy(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean recall over the classes that occur; scores (R, c)."""
    return float(metrics.balanced_accuracy_score(np.asarray(labels), np.asarray(scores).argmax(-1)))


def f1(labels: ArrayLike, scores: ArrayLike, *, average: str = "macro") -> float:
    """F1 of the largest scores (R, c), 'macro' over classes or 'micro' over rows.

    Raises:
        ValueError: another average.
    """
    if average not in ("macro", "micro"):
        raise ValueError(f"average: found '{average}', expected 'macro' or 'micro'")
    return float(metrics.f1_score(np.asarray(labels), np.asarray(scores).argmax(-1), average=average))


def _tasks(labels: ArrayLike, scores: ArrayLike) -> list[tuple[np.ndarray, np.ndarray]]:
    """(labels, scores) of the labelled rows of every task."""
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores)
    if scores.shape == (len(labels), 2) and labels.size == len(labels):
        scores = scores[:, 1]
    if labels.size != scores.size or len(labels) != len(scores):
        raise ValueError(f"scores: found the shape {scores.shape}, expected that of the labels, {labels.shape}")
    labels, scores = labels.reshape(len(labels), -1), scores.reshape(len(scores), -1)
    kept = ~np.isnan(labels)
    return [(labels[k, t], scores[k, t]) for t, k in enumerate(kept.T)]


def _mean(values: list[float], needed: str) -> float:
    if not values:
        raise ValueError(f"labels: found no task with {needed}, expected at least one")
    return float(np.mean(values))
