"""Model selection while training on graphs: what counts, which epoch is reported, when to stop."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.best_params import read_best, write_best
from experiments.graph_data import Problem
from jaxmodels.data.graph_files import Split
from jaxmodels.data.graph_ogb import OF_CLASSES, OF_TASKS
from jaxmodels.graphs import metrics
from jaxmodels.training.metrics import read_metrics

SCORES: dict[str, Callable[..., float]] = {
    "accuracy": metrics.accuracy,
    "f1": metrics.f1,
    "f1_micro": functools.partial(metrics.f1, average="micro"),
    "roc_auc": metrics.roc_auc,
    "average_precision": metrics.average_precision,
    "average_precision_micro": functools.partial(metrics.average_precision, average="micro"),
    "mae": lambda labels, outputs: loss_of("regression", np.asarray(labels), np.asarray(outputs)),
}
LESS_IS_BETTER = ("mae",)


def reported_by(problem: Problem, metric: str) -> Problem:
    """The problem, reported by a metric; by its own for ''.

    Raises:
        ValueError: the metric does not fit the labels.
    """
    name, labels = metric or problem.metric, problem.labels
    fitting: tuple[str, ...]
    if problem.task == "single" and problem.outputs == 2:
        found, fitting = "classes 0 and 1", (*OF_CLASSES, *OF_TASKS)
    elif problem.task == "single":
        found, fitting = f"classes 0 to {problem.outputs - 1} (the last in row {labels.argmax()})", OF_CLASSES
    elif problem.task == "multilabel" or np.isin(labels[~np.isnan(labels)], (0, 1)).all():
        found, fitting = f"{problem.outputs} column{'s' * (problem.outputs > 1)} of 0 and 1", OF_TASKS
    else:
        found, fitting = "numbers", ("mae",)
    if name not in fitting:
        raise ValueError(f"--metric={name}: found {found} as labels of {problem.name}, expected {' or '.join(fitting)}")
    return problem._replace(metric=name)


def loss_of(task: str, labels: np.ndarray, outputs: np.ndarray) -> float:
    """Mean loss of predictions, on the host; NaN labels do not count.

    Args:
        task: as of `graph_method`.
        labels: (R,) classes, or (R, T).
        outputs: log-probabilities (R, c), logits or values (R, T).

    >>> loss_of('regression', np.array([[1.0], [np.nan]]), np.array([[3.0], [0.0]]))
    2.0
    """
    outputs = np.asarray(outputs, np.float64)
    if task == "single":
        return float(-np.take_along_axis(outputs, labels[:, np.newaxis], 1).mean())
    known = ~np.isnan(labels)
    labels, outputs = labels[known], outputs[known]
    if task == "regression":
        return float(np.abs(outputs - labels).mean())
    return float((np.logaddexp(0.0, outputs) - labels * outputs).mean())


class Judge:
    """Called while training: the metrics of a moment; remembers the best one and says when to stop.

    Attributes:
        best: row of the best epoch: step, val_loss, val_<metric>, test_<metric>.
    """

    def __init__(
        self,
        problem: Problem,
        split: Split,
        predict: Callable[[Any], Callable[[np.ndarray], np.ndarray]],
        folder: Path,
        *,
        select: str,
        patience: int,
        steps: int,
        total: int,
        programs: Callable[[], int],
        resume: bool = False,
    ):
        """Begins, or goes on from the rows of an interrupted run.

        Args:
            problem: labels and metric.
            split: whose validation part chooses.
            predict: variables -> (nodes or graphs -> their outputs).
            folder: of the run; the best parameters are written there.
            select: 'loss' or 'metric' of the validation part.
            patience: evaluations without a lower validation loss that end the run.
            steps: between evaluations.
            total: of the run, after which the last evaluation is.
            programs: how many step and evaluation programs have been compiled so far.
            resume: read the rows that are there.
        """
        self._folder = folder
        self._problem, self._split, self._predict = problem, split, predict
        self._patience, self._steps, self._total = patience, steps, total
        self._programs, self._compiled = programs, programs()
        self._name = problem.metric
        self._key = "val_loss" if select == "loss" else f"val_{self._name}"
        self._sign = -1.0 if select == "loss" or self._name in LESS_IS_BETTER else 1.0
        self.best: dict[str, float] = {}
        self._lowest, self._since, self._done = float("inf"), 0, 0
        for row in read_metrics(folder / "metrics.jsonl") if resume else ():
            if row.get("val_loss") is not None:
                self._take({name: row[name] for name in row if name.startswith(("val_", "test_", "step"))})

    def __call__(self, variables: Any) -> dict[str, float]:
        """Metrics of one moment of training; ties go to the earlier one."""
        split, name = self._split, self._name
        outputs_of = self._predict(variables)
        outputs = outputs_of(split.val)
        labels = self._problem.labels
        found = {"val_loss": loss_of(self._problem.task, labels[split.val], outputs)}
        found[f"val_{name}"] = self._score(split.val, outputs)
        # What is reported never chooses, so only where the choice may fall on this moment is it looked at.
        if self._better(found):
            found[f"test_{name}"] = self._score(split.test, outputs_of(split.test))
            write_best(self._folder, variables["params"])
        self._take({**found, "step": min(self._done + self._steps, self._total)})
        compiled, self._compiled = self._compiled, self._programs()
        return {**found, "programs": self._compiled - compiled}

    def exhausted(self, row: Mapping[str, float] | None = None) -> bool:
        """Whether the validation loss has not fallen for too long."""
        return self._since >= self._patience

    def best_on(self, members: np.ndarray) -> float:
        """The metric of the best epoch's parameters on nodes or graphs."""
        return self._score(members, self._predict(self.read(self._folder))(members))

    @staticmethod
    def read(folder: Path) -> Any:
        """The variables of the best epoch of a run."""
        return {"params": read_best(folder), "state": {}}

    def _better(self, found: Mapping[str, float]) -> bool:
        return not self.best or self._sign * (found[self._key] - self.best[self._key]) > 0

    def _take(self, found: dict[str, float]) -> None:
        if self._better(found):
            self.best = found
        lower = found["val_loss"] < self._lowest
        self._lowest, self._since = min(found["val_loss"], self._lowest), 0 if lower else self._since + 1
        self._done = int(found["step"])

    def _score(self, members: np.ndarray, outputs: np.ndarray) -> float:
        return SCORES[self._name](self._problem.labels[members], outputs)
