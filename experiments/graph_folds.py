"""What `--protocol=official` adds to the table: GIN's cross-validation, and the data that N2's released code tests on.

GIN (Xu et al., ICLR 2019) reports one epoch for all folds, the one whose mean score is best. N2's released code chooses
an epoch for each fold, then tests it on the whole data set, training graphs included.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.graph_data import Problem
from experiments.graph_judging import LESS_IS_BETTER
from experiments.graph_runs import run_folder
from experiments.running import Setup
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.results import mean_and_deviation


def common_epoch(curves: Sequence[Sequence[float]], *, less_is_better: bool = False) -> tuple[int, list[float]]:
    """The evaluation with the best mean over runs, and every run's score there; ties go to the earlier one.

    Args:
        curves: one score per evaluation of every run; what lies beyond the shortest curve is not looked at.
        less_is_better: whether the lowest mean is the best one.

    Returns:
        Number of the evaluation, from 0, and one score per run.

    >>> common_epoch([[0.5, 0.7, 0.9], [0.9, 0.8]])
    (1, [0.7, 0.8])
    """
    shortest = min(map(len, curves))
    table = np.array([curve[:shortest] for curve in curves])
    means = table.mean(0).round(12)  # equal means may differ in their last bits
    best = int(np.argmin(means) if less_is_better else np.argmax(means))
    return best, table[:, best].tolist()


def describe(setup: Setup[Problem], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Lines with the result of every network under either, as far as the protocol applies."""
    return [line for line in (_common(setup, rows), _whole(setup, rows)) if line]


def _whole(setup: Setup[Problem], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One line, or nothing where no run went by the protocol. Networks whose rows lack the figure are left out."""
    scores = {name: [row["all"] for row in results if row.get("all") is not None] for name, results in rows.items()}
    found = [_shown(setup, name, scores[name]) for name, results in rows.items() if len(scores[name]) == len(results)]
    return f"All graphs, training ones included, as N2's released code tests: {', '.join(found)}." if found else ""


def _shown(setup: Setup[Problem], name: str, scores: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(scores)
    digits = 4 if setup.problem.metric in LESS_IS_BETTER else 1
    return f"{name} {mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if len(scores) > 1 else "")


def _common(setup: Setup[Problem], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One line, or nothing where the protocol does not apply.

    It applies under `--protocol=official` to several folds without validation data. Networks whose curves are gone, as
    their folders were deleted, are left out.
    """
    config, problem = setup.config, setup.problem
    if config.protocol != "official":
        return ""
    less, key, found = problem.metric in LESS_IS_BETTER, f"val_{problem.metric}", []
    for name, results in rows.items():
        folders = [run_folder(setup, name, row["split"], row["seed"]) for row in results]
        histories = [read_metrics(folder / "metrics.jsonl") for folder in folders]
        curves = [[row[key] for row in history if row.get(key) is not None] for history in histories]
        folds = {row["split"] for row in results}
        if len(folds) < 2 or not all(curves) or any(len(problem.splits[fold].val) for fold in folds):
            continue
        best, scores = common_epoch(curves, less_is_better=less)
        scale = 1.0 if less else 100.0
        epoch = min((best + 1) * config.evaluate_every, max(row["epochs"] for row in results))
        found.append(f"{_shown(setup, name, [scale * score for score in scores])} (epoch {epoch})")
    return f"One epoch for all folds, that of the best mean (GIN's protocol): {', '.join(found)}." if found else ""
