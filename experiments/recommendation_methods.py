"""The recommenders of the command line: what each is made of, its published settings, and the flags it takes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

from jaxmodels.method import Method
from jaxmodels.recommendation.adagrad import adagrad
from jaxmodels.recommendation.cpe import cpe
from jaxmodels.recommendation.crml import crml
from jaxmodels.recommendation.diversity import adaptive_counts
from jaxmodels.recommendation.dpcml import Objective, dpcml
from jaxmodels.recommendation.lrml import lrml
from jaxmodels.recommendation.sfcml import sfcml
from jaxmodels.recommendation.transcf import transcf

# Flags that a method may take; None on the command line leaves each to the method.
FLAGS = (
    *("margin", "negatives", "vectors", "assignment", "strategy", "pool", "form", "beta", "temperature", "diversity"),
    *("low", "high", "bounds", "norm", "reduction", "covariance", "memories", "distance", "neighbourhood"),
    *("tie_users", "tie_items", "in_batch", "compat"),
)


class Choice(NamedTuple):
    """One entry of `--method`.

    Attributes:
        about: what it is, for people.
        build: (users, items, dim, options, history) -> Method; history (M,) counts training items.
        options: flag -> its value unless given; a method takes no other flags.
        learning_rate: as published.
        weight_decay: the same.
        adagrad: PyTorch's Adagrad, else Adam.
        kind: how it scores, see `jaxmodels.recommendation.scoring`.
        rows: what a batch has rows of: 'pairs', 'triplets' (each pair once per negative), 'users'.
        embedded: learning rate on the embedded data, for a third of the published epochs on a few thousand pairs.
        quick: options there, where the published ones would take long.
    """

    about: str
    build: Callable[[int, int, int, Mapping[str, Any], np.ndarray], Method]
    options: Mapping[str, Any]
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    adagrad: bool = False
    kind: str = "nearest"
    rows: str = "pairs"
    embedded: float = 0.02
    quick: Mapping[str, Any] = {}

    def optimizer(self, learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
        """What trains it; weight decay is added to the gradient, as PyTorch does."""
        if self.adagrad:
            return adagrad(learning_rate, weight_decay=weight_decay)
        adam = optax.adam(learning_rate)
        return optax.chain(optax.add_decayed_weights(weight_decay), adam) if weight_decay else adam


def _cml(users: int, items: int, dim: int, options: Mapping[str, Any], history: np.ndarray) -> Method:
    goal = {name: value for name, value in options.items() if name in Objective._fields}
    counts = adaptive_counts(history, options["vectors"]) if options["assignment"] == "apa" else None
    single = {"negatives": 1} if options["form"] == "mean" and options["strategy"] != "two_stage" else {}
    return dpcml(
        users,
        items,
        dim=dim,
        vectors=options["vectors"],
        counts=counts,
        norm=options["norm"],
        objective=Objective(**(goal | single)),
    )


def _other(factory: Callable[..., Method], **names: str) -> Callable[..., Method]:
    def build(users: int, items: int, dim: int, options: Mapping[str, Any], history: np.ndarray) -> Method:
        return factory(users, items, dim=dim, **{names.get(flag, flag): value for flag, value in options.items()})

    return build


def _options(**changes: Any) -> dict[str, Any]:
    usual = {
        **{"margin": 1.0, "negatives": 10, "vectors": 5, "assignment": "bpa", "strategy": "uniform", "pool": 300},
        **{"form": "nearest", "beta": 0.3, "temperature": 0.5, "diversity": 10.0, "low": 0.05, "high": 0.25},
        **{"bounds": "pair", "norm": "dpcml", "reduction": "sum"},
    }
    return usual | changes


SINGLE = {"vectors": 1, "diversity": 0.0}
LIBCML: dict[str, Any] = {"weight_decay": 1e-5}
FEW = {"negatives": 3}
METHODS: dict[str, Choice] = {
    "dpcml2": Choice("DPCML with hard sampling, Bao et al. 2022", _cml, _options()),
    "dpcml1": Choice(
        "DPCML with uniform sampling", _cml, _options(form="mean", low=0.1, high=0.35), rows="triplets", quick=FEW
    ),
    "dihars": Choice(
        "DPCML with a partial-AUC loss; reconstructed, the journal's formulas could not be obtained",
        _cml,
        _options(form="topk"),
    ),
    "hars": Choice("CML with hard sampling", _cml, _options(**SINGLE)),
    "unis": Choice(
        "CML with uniform sampling, Hsieh et al. 2017",
        _cml,
        _options(form="mean", **SINGLE),
        rows="triplets",
        quick=FEW,
    ),
    "pops": Choice(
        "CML with sampling by popularity",
        _cml,
        _options(form="mean", strategy="popular", **SINGLE),
        rows="triplets",
        quick=FEW,
    ),
    "two_stage": Choice(
        "CML with two-stage sampling, Tran et al. 2019", _cml, _options(form="mean", strategy="two_stage", **SINGLE)
    ),
    "cpe": Choice(
        "collaborative preference embedding, 2019",
        _other(cpe),
        {"margin": 1.2, "covariance": 0.0, "negatives": 10},
        learning_rate=0.05,
        adagrad=True,
        embedded=0.05,
        **LIBCML,
    ),
    "crml": Choice(
        "metric learning with co-occurrences, 2020",
        _other(crml, tie_users="alpha", tie_items="beta"),
        {"margin": 2.0, "tie_users": 0.1, "tie_items": 0.1, "negatives": 10, "in_batch": False, "compat": False},
        learning_rate=5e-3,
        embedded=0.05,
        **LIBCML,
    ),
    "lrml": Choice(
        "latent relational metric learning, Tay et al. 2018",
        _other(lrml),
        {"margin": 1.5, "memories": 20},
        learning_rate=1e-2,
        adagrad=True,
        kind="lrml",
        embedded=0.5,
        **LIBCML,
    ),
    "sfcml": Choice(
        "metric learning without sampling, Bao et al. 2022",
        _other(sfcml),
        {"margin": 2.0},
        learning_rate=0.05,
        adagrad=True,
        kind="sfcml",
        rows="users",
        embedded=0.2,
        **LIBCML,
    ),
    "transcf": Choice(
        "collaborative translations, Park et al. 2018",
        _other(transcf),
        {"margin": 2.0, "distance": 0.01, "neighbourhood": 0.01},
        learning_rate=1e-3,
        adagrad=True,
        kind="transcf",
        embedded=0.1,
        **LIBCML,
    ),
}  # fmt: skip
ALIASES = {"dpcml": "dpcml2"}
SEVERAL = ("vectors", "assignment", "diversity", "low", "high", "bounds")  # of users with several vectors


def options_of(name: str, flags: Mapping[str, Any], *, embedded: bool = False) -> dict[str, Any]:
    """The options of a method: its own, those for the embedded data, then the flags that were given.

    Raises:
        ValueError: a flag that this method does not have. The single-vector baselines have none of `SEVERAL`: with them
            they would be DPCML under another name.
    """
    known = METHODS[name].options
    taken = set(known) - (set(SEVERAL) if known.get("vectors") == 1 else set())
    for flag in flags:
        if flag not in taken:
            takes = ", ".join(f"--{each}" for each in known if each in taken)
            raise ValueError(f"--{flag}: --method={name} has no such option; it takes {takes}")
    return {**known, **(METHODS[name].quick if embedded else {}), **flags}


def passes(name: str, options: Mapping[str, Any]) -> int:
    """How often each pair comes in an epoch: uniform sampling has a row per negative."""
    one_each = METHODS[name].rows != "users" and options.get("form") == "mean" and options["strategy"] != "two_stage"
    return options["negatives"] if one_each else 1
