"""What finds outliers: RCPMOD with its released settings, and scikit-learn's detectors on concatenated views."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM

from jaxmodels.outliers.pairs import Recipe
from jaxmodels.outliers.rcpmod import Options
from jaxmodels.rules import nearest


class Choice(NamedTuple):
    """A method of the command line.

    Attributes:
        about: for the headline.
        scores: (rows, seed) -> scores, higher is more outlying; None is RCPMOD.
    """

    about: str
    scores: Callable[[np.ndarray, int], np.ndarray] | None = None


def _isolation_forest(x, seed):
    return -IsolationForest(random_state=seed).fit(x).score_samples(x)


def _lof(x, seed):
    return -LocalOutlierFactor().fit(x).negative_outlier_factor_


def _one_class_svm(x, seed):
    return -OneClassSVM().fit(x).score_samples(x)


METHODS = {
    "rcpmod": Choice("autoencoders per view, contrastive alignment that minds outliers"),
    "iforest": Choice("scikit-learn's isolation forest, on concatenated views", _isolation_forest),
    "lof": Choice("scikit-learn's local outlier factor, on concatenated views", _lof),
    "ocsvm": Choice("scikit-learn's one-class SVM, on concatenated views", _one_class_svm),
}

COMMON = Recipe(options=Options(compat=True))


def _released(rw: float, epochs: int, third: float = 0.2, **options: Any) -> Recipe:
    chosen = COMMON.options._replace(spreading_weight=third, **options)
    return COMMON._replace(epochs=epochs, error_weight=rw, options=chosen)


# The released configurations (those of bdgp and fashion name their activation wrongly and crash; relu is meant).
PAPER = {
    "scene15": _released(0.25, 90, 0.4, schedule_epochs=400),
    "landuse21": _released(0.6, 115),
    "bdgp": _released(0.25, 130, refresh_negatives=1, bank=10, warmup_peak=0.01)._replace(hidden=(1024,)),
    "handwritten": _released(0.7, 50),
    "fashion": _released(0.5, 400, 0.4, refresh_negatives=10, bank=10, warmup_peak=0.05, schedule_epochs=700)._replace(
        hidden=(1024,), latent=256
    ),
}

# Small enough for a laptop's two minutes.
FLAGS = Recipe(hidden=(256,), epochs=100)
RECIPE = ("hidden", "latent", "activation", "batch_norm", "epochs", "batch_size", "learning_rate", "error_weight")


def recipe_of(config: Any, dataset: str) -> Recipe:
    """RCPMOD's settings by the flags.

    Raises:
        ValueError: `--recipe=paper` for a data set without released settings.
    """
    start = FLAGS
    if config.recipe == "paper":
        if dataset not in PAPER:
            hint = nearest(dataset, PAPER) or f"; it has {', '.join(PAPER)}"
            raise ValueError(f"--recipe=paper: nothing was released for '{dataset}'{hint}")
        start = PAPER[dataset]
    given = {name: getattr(config, name) for name in (*RECIPE, *Options._fields) if getattr(config, name) is not None}
    if given.get("schedule_epochs") == 0:
        given["schedule_epochs"] = None
    for name in ("impute_from", "refresh_neighbours"):
        if given.get(name, 0) < 0:
            given[name] = None
    options = start.options._replace(**{name: value for name, value in given.items() if name in Options._fields})
    return start._replace(**{name: value for name, value in given.items() if name in RECIPE}, options=options)


def tuned(config: Any) -> Any:
    """The flags of a scikit-learn detector: those that set RCPMOD are not meant for it."""
    unset = {name: type(config).__dataclass_fields__[name].default for name in (*RECIPE, *Options._fields, "recipe")}
    return dataclasses.replace(config, **unset)


def concatenated(views: tuple[np.ndarray, ...], mask: np.ndarray) -> np.ndarray:
    """All views side by side (N, sum of D); a missing one is the mean over the objects that have it."""
    filled = [np.where(mask[:, v, None] > 0, x, x[mask[:, v] > 0].mean(0)[None]) for v, x in enumerate(views)]
    return np.concatenate(filled, 1)
