"""Metrics of a recommender on a part of the data, and the choice of the epoch that is reported."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.best_params import write_best
from experiments.recommendation_data import Loaded
from jaxmodels.data.interactions import Interactions
from jaxmodels.recommendation.metrics import at_k, max_diversity, mean, whole_list
from jaxmodels.recommendation.ranking import Lists, ranks_of
from jaxmodels.training.metrics import read_metrics

AT, WHOLE = ("precision", "recall", "ndcg"), ("map", "mrr", "auc", "ndcg")


def metric_names(at: Sequence[int]) -> tuple[str, ...]:
    """What there is to choose by.

    >>> metric_names((3,))
    ('precision@3', 'recall@3', 'ndcg@3', 'map', 'mrr', 'auc', 'ndcg')
    """
    return (*(f"{name}@{k}" for k in at for name in AT), *WHOLE)


class Measure:
    """Metrics of one part of the data.

    Training items are left out of every list; validation items stay in it at test time, as in the published evaluator.
    """

    def __init__(
        self, loaded: Loaded, part: str, *, at: Sequence[int], most: int = 0, seed: int = 1234, chunk: int = 256
    ):
        """Takes the data.

        Args:
            loaded: the data.
            part: 'val' or 'test'.
            at: K of precision, recall and NDCG.
            most: users that are ranked, drawn at random; 0 takes all.
            seed: of that draw.
            chunk: users scored at once.
        """
        number, self._items, self._at, self._chunk = loaded.num_users, loaded.num_items, tuple(at), chunk
        self._users = np.arange(number)
        if 0 < most < number:
            self._users = np.sort(np.random.default_rng(seed).choice(number, most, replace=False))
        self._held = _of_users(getattr(loaded.parts, part), self._users)
        self._seen = _of_users(loaded.parts.train, self._users)

    def __call__(
        self, predict: Callable[[Any, Any], Any], variables: Any, *, diversity: bool = False
    ) -> dict[str, float]:
        """The metrics as shares; with `diversity` also MaxDiv@K, for which there must be item vectors."""
        top = max(self._at) if diversity else 0
        ranks, best = ranks_of(
            predict,
            variables,
            self._held,
            self._seen,
            items=self._items,
            users=self._users,
            top=top,
            chunk=min(self._chunk, len(self._users)),
        )
        starts, lengths = self._held[0], self._items - np.diff(self._seen[0])
        found = {f"{name}@{k}": mean(v) for k in self._at for name, v in at_k(ranks, starts, k).items()}
        found |= {name: mean(value) for name, value in whole_list(ranks, starts, lengths).items()}
        if diversity:
            item = np.asarray(variables["params"]["item"])
            found |= {f"maxdiv@{k}": max_diversity(item, best[:, :k], lengths) for k in self._at}
        return found

    def counted(self, metric: str) -> int:
        """Users that count for a metric: those with K items, or with three."""
        k = int(metric.partition("@")[2] or 3)
        return int((np.diff(self._held[0]) >= k).sum())


def _of_users(part: Interactions, users: np.ndarray) -> Lists:
    if len(users) == part.num_users:
        return part.starts, part.items
    counts = np.diff(part.starts)[users]
    kept = np.isin(part.users, users)
    return np.concatenate([[0], np.cumsum(counts)]), part.items[kept]


class Judge:
    """Called while training: validation metrics of a moment; keeps the best one's parameters, says when to stop.

    Attributes:
        best: row of the best evaluation: step and validation metrics.
    """

    def __init__(
        self,
        measure: Measure,
        predict: Callable[[Any, Any], Any],
        folder: Path,
        *,
        select: str,
        patience: int,
        steps: int,
        total: int,
        resume: bool = False,
    ):
        """Begins, or goes on from the rows of an interrupted run.

        Args:
            measure: of the validation part.
            predict: of the method.
            folder: of the run.
            select: metric whose highest value is reported; the earlier of equal ones.
            patience: evaluations without a better one that end the run; 0 never does.
            steps: between evaluations.
            total: of the run, after which the last evaluation is.
            resume: read the rows that are there.
        """
        self._measure, self._predict, self._folder = measure, predict, folder
        self._key, self._patience, self._steps, self._total = f"val_{select}", patience, steps, total
        self.best: dict[str, float] = {}
        self._since, self._done = 0, 0
        for row in read_metrics(folder / "metrics.jsonl") if resume else ():
            if row.get(self._key) is not None:
                self._take({name: row[name] for name in row if name.startswith(("val_", "step"))})

    def __call__(self, variables: Any) -> dict[str, float]:
        """Metrics of one moment of training."""
        found = {f"val_{name}": value for name, value in self._measure(self._predict, variables).items()}
        if self._better(found):
            write_best(self._folder, variables["params"])
        self._take({**found, "step": min(self._done + self._steps, self._total)})
        return found

    def exhausted(self, row: Mapping[str, float] | None = None) -> bool:
        """Whether nothing better has come for too long."""
        return bool(self._patience) and self._since >= self._patience

    def _better(self, found: Mapping[str, float]) -> bool:
        return not self.best or found[self._key] > self.best[self._key]

    def _take(self, found: dict[str, float]) -> None:
        better = self._better(found)
        self.best = found if better else self.best
        self._since, self._done = 0 if better else self._since + 1, int(found["step"])
