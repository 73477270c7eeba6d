"""The benchmark's metric: top-1 per task, and the two means that papers quote.

Both headline figures are kept apart because papers mix them: the mean of the group means (VPT's table, SSF, FacT,
Res-Tuning, SNELL's tables) and the mean over tasks (VTAB's paper, SNELL's abstract) differ by about two points.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


def correct(logits: Any, labels: Any) -> np.ndarray:
    """Whether the largest logit is the label's; the first index wins a tie.

    Args:
        logits: (N, C).
        labels: (N,) integers.

    Returns:
        bool (N,).
    """
    return np.asarray(logits).argmax(-1) == np.asarray(labels)


def top1_percent(logits: Any, labels: Any) -> float:
    """Share of correct examples in percent, over all examples alike (no averaging per class).

    >>> top1_percent([[0.0, 1.0], [2.0, 2.0]], [1, 1])
    50.0
    """
    return 100.0 * float(correct(logits, labels).mean())


class Summary(NamedTuple):
    """Means over tasks, in percent.

    Attributes:
        groups: group -> mean over its tasks, in the order in which the groups first occur.
        mean_of_groups: mean of those.
        mean_of_tasks: mean over all tasks alike.
    """

    groups: dict[str, float]
    mean_of_groups: float
    mean_of_tasks: float


def summarise(
    accuracies: Mapping[str, float] | Sequence[float] | np.ndarray, groups: Mapping[str, str] | Sequence[str]
) -> Summary:
    """Both means of a set of tasks.

    Args:
        accuracies: per task, in percent; task name -> figure, or in a fixed order.
        groups: the group of each task; task name -> group, or in the same order.

    Raises:
        ValueError: no task, or a task without a group.

    >>> summarise({'a': 90.0, 'b': 70.0, 'c': 40.0}, {'a': 'natural', 'b': 'natural', 'c': 'structured'})
    Summary(groups={'natural': 80.0, 'structured': 40.0}, mean_of_groups=60.0, mean_of_tasks=66.66666666666667)
    """
    if isinstance(accuracies, Mapping) and isinstance(groups, Mapping):
        without = [name for name in accuracies if name not in groups]
        if without:
            raise ValueError(f"accuracies: no group is known for {', '.join(without)}")
        names = [groups[name] for name in accuracies]
        values = np.asarray(list(accuracies.values()), np.float64)
    else:
        names, values = list(groups), np.asarray(accuracies, np.float64)
    if not len(values) or len(values) != len(names):
        raise ValueError(f"accuracies: expected one figure per task, found {len(values)} for {len(names)} tasks")
    means = {group: float(values[[name == group for name in names]].mean()) for group in dict.fromkeys(names)}
    return Summary(means, float(np.mean(list(means.values()))), float(values.mean()))
