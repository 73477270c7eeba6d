"""Cross-validation as GIN does it (Xu et al., ICLR 2019): one epoch for all folds, the one whose mean score is best."""

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


def describe(setup: Setup[Problem], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One line with the result of every network, or nothing where the protocol does not apply.

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
        scale, digits = (1.0, 4) if less else (100.0, 1)
        mean, deviation = mean_and_deviation(scale * score for score in scores)
        epoch = min((best + 1) * config.evaluate_every, max(row["epochs"] for row in results))
        found.append(f"{name} {mean:.{digits}f} ± {deviation:.{digits}f} (epoch {epoch})")
    return f"One epoch for all folds, that of the best mean (GIN's protocol): {', '.join(found)}." if found else ""
