"""Any number of views: every pair of them in turn, with the same autoencoders (arXiv 2408.07819, released code).

A pair is trained for all epochs, with an optimizer of its own; the autoencoder of a view goes on from its last pair. An
object's score is the mean over the pairs of which it has a view. Objects with neither view of a pair stay in the arrays
and are left out by the mask, so that all seeds of a data set share the compiled programs of a pair.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Float

from jaxmodels.data.view_outliers import check_views
from jaxmodels.method import Method
from jaxmodels.outliers.neighbours import check_count
from jaxmodels.outliers.rcpmod import NAMES, Options, rcpmod
from jaxmodels.outliers.scoring import attribute_scores, fused_scores, mean_over_pairs
from jaxmodels.training.fit import Fit, fit
from jaxmodels.training.mesh import fetch, local_rows
from jaxmodels.training.optimizer import partitioned

Coders = dict[int, dict[str, Any]]  # view -> {'params': ..., 'stats': ...} of its autoencoder


class Recipe(NamedTuple):
    """How the autoencoders are made and trained; defaults are LandUse-21's released ones.

    Attributes:
        hidden: widths of the encoder's hidden layers; the decoder mirrors them.
        latent: L.
        activation: see `AutoEncoder`.
        batch_norm: see `AutoEncoder`.
        epochs: per pair of views.
        batch_size: rows per step.
        learning_rate: of Adam.
        error_weight: Rw, of the reconstruction errors in the score.
        options: the loss.
    """

    hidden: tuple[int, ...] = (1024, 1024)
    latent: int = 64
    activation: str = "relu"
    batch_norm: bool = False
    epochs: int = 115
    batch_size: int = 256
    learning_rate: float = 1e-3
    error_weight: float = 0.6
    options: Options = Options()


class Built(NamedTuple):
    """Of one pair of views; seeds share it, and so its compiled programs.

    Attributes:
        method: of the pair.
        optimizer: of it.
        init: (key, views, has) -> variables, compiled.
        predict: (variables, rows) -> outputs, compiled.
    """

    method: Method
    optimizer: optax.GradientTransformation
    init: Callable[..., Any]
    predict: Callable[..., Any]


class Scores(NamedTuple):
    """Scores of one pair, NaN for objects with neither view; higher is more outlying.

    Attributes:
        total: (N,), the weighted sum of the two.
        error: (N,), by reconstruction.
        contrast: (N,), by disagreement of the views.
    """

    total: Float[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]
    contrast: Float[np.ndarray, " n"]


class Pair(NamedTuple):
    """A trained pair.

    Attributes:
        views: which two, the lower first.
        variables: the method's after training.
        scores: of all objects.
        fitted: what `fit` returned.
    """

    views: tuple[int, int]
    variables: Any
    scores: Scores
    fitted: Fit


def pairs_of(views: int) -> list[tuple[int, int]]:
    """All pairs in the order of training.

    >>> pairs_of(3)
    [(0, 1), (0, 2), (1, 2)]
    """
    return list(itertools.combinations(range(views), 2))


class PairBatches:
    """Batches of a pair: every epoch all objects that have one of the two views, in a new order.

    The last batch of an epoch is padded, and left out where it would have a single row. The released code has one order
    for all epochs, so that the few objects of the last batch weigh more than others in every one of them, and are
    reconstructed best.
    """

    def __init__(self, has: np.ndarray, batch_size: int, *, seed: int | None, rows: Sequence[int] | None = None):
        """Finds the objects.

        Args:
            has: (N, 2) which object has which view.
            batch_size: rows.
            seed: of the orders; None is the released one, NumPy's legacy permutation of seed 1.
            rows: of a batch that this process reads, all unless given.
        """
        self._present = np.flatnonzero(has.any(1)).astype(np.int32)
        self._size, self._seed, self._rows = batch_size, seed, np.arange(batch_size) if rows is None else rows
        full, rest = divmod(len(self._present), batch_size)
        self.per_epoch = full + (rest > 1)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step, as `rcpmod` takes it."""
        epoch, at = divmod(step, self.per_epoch)
        ids = self._order(epoch)[at * self._size : (at + 1) * self._size]
        whole = {
            "rows": np.pad(ids, (0, self._size - len(ids))),
            "weight": (np.arange(self._size) < len(ids)).astype(np.float32),
            "epoch": np.full(self._size, epoch, np.int32),
            "first": np.full(self._size, at == 0, np.int32),
        }
        return {name: value[self._rows] for name, value in whole.items()}

    def _order(self, epoch: int) -> np.ndarray:
        count = len(self._present)
        if self._seed is None:
            return self._present[np.random.RandomState(1).permutation(count)]
        return self._present[np.random.default_rng((self._seed, epoch)).permutation(count)]


@functools.lru_cache(maxsize=32)
def built(recipe: Recipe, widths: tuple[int, int]) -> Built:
    """Method, optimizer and programs for two views of such widths."""
    layers = tuple((width, *recipe.hidden, recipe.latent) for width in widths)
    method = rcpmod(
        (layers[0], layers[1]), activation=recipe.activation, batch_norm=recipe.batch_norm, options=recipe.options
    )

    def start(key, views, has):
        return method.init(key, {"views": views, "has": has, "batch_size": recipe.batch_size})

    def pair_outputs(variables, rows):
        return method.predict(variables, {"rows": rows})

    optimizer = partitioned(method.groups, optax.adam, recipe.learning_rate)
    return Built(method, optimizer, jax.jit(start), jax.jit(pair_outputs))


def check_data(views: Sequence[np.ndarray], mask: np.ndarray, recipe: Recipe) -> None:
    """Raises ValueError for data that cannot be trained on: fewer than two views; see `check_views`, `check_count`."""
    if len(views) < 2:
        raise ValueError(f"views: found {len(views)}, expected at least 2")
    if recipe.epochs < 1 or recipe.batch_size < 2:
        raise ValueError(
            f"epochs, batch_size: found {recipe.epochs} and {recipe.batch_size}, expected at least 1 and 2"
        )
    check_views(views, mask, len(views[0]))
    for pair in pairs_of(len(views)):
        has = mask[:, pair] > 0
        where = "" if len(views) == 2 else f"pair of views {pair[0]} and {pair[1]}: "
        try:
            check_count(has, recipe.options.neighbours, "the neighbours asked for (neighbours)")
            check_count(has, recipe.options.negative, "the rank of the triplet's negatives (negative)")
        except ValueError as error:
            raise ValueError(f"{where}{error}") from None


def train_pair(
    views: Sequence[np.ndarray],
    mask: np.ndarray,
    pair: tuple[int, int],
    coders: Coders,
    *,
    recipe: Recipe,
    seed: int,
    evaluate: Callable[[Scores], Mapping[str, float]] | None = None,
    evaluate_every: int = 0,
    **options: Any,
) -> Pair:
    """Trains one pair of views.

    Args:
        views: of all objects, (N, D) each, in [0, 1].
        mask: (N, V).
        pair: which two.
        coders: autoencoders so far; those of the pair are taken from it and put back trained.
        recipe: how.
        seed: of initialisation, the order of objects and the triplet's positives.
        evaluate: scores of the pair -> metrics.
        evaluate_every: epochs between them; 0 after the last one only.
        **options: of `fit`, such as `workdir`, `resume` and `mesh`.
    """
    has = mask[:, pair] > 0
    x = tuple(np.where(has[:, i, None], views[v], 0.0).astype(np.float32) for i, v in enumerate(pair))
    made = built(recipe, (x[0].shape[1], x[1].shape[1]))
    rows = local_rows(options.get("mesh"), recipe.batch_size)
    batches = PairBatches(has, recipe.batch_size, seed=None if recipe.options.compat else seed, rows=rows)
    key = jax.random.fold_in(jax.random.key(seed), pairs_of(len(views)).index(pair))
    variables = made.init(key, x, has)
    for name, v in zip(NAMES, pair, strict=True):
        if v in coders:
            variables["params"][name], variables["state"]["stats"][name] = coders[v]["params"], coders[v]["stats"]
    fitted = fit(
        made.method,
        batches,
        made.optimizer,
        steps=recipe.epochs * batches.per_epoch,
        variables=variables,
        seed=seed,
        evaluate=None if evaluate is None else lambda found: evaluate(pair_scores(made, found, recipe)),
        evaluate_every=evaluate_every * batches.per_epoch,
        **options,
    )
    after = fetch(fitted.variables)
    for name, v in zip(NAMES, pair, strict=True):
        coders[v] = {"params": after["params"][name], "stats": after["state"]["stats"][name]}
    return Pair(pair, after, pair_scores(made, fitted.variables, recipe), fitted)


def pair_scores(made: Built, variables: Any, recipe: Recipe) -> Scores:
    """Scores of all objects by the variables of a moment."""
    rows = np.arange(len(variables["state"]["has"]), dtype=np.int32)
    out = fetch(made.predict(variables, rows))
    contrast = out["contrast"].astype(np.float64)
    error = attribute_scores(out["error"].astype(np.float64))
    return Scores(fused_scores(error, contrast, weight=recipe.error_weight), error, contrast)


def merge_scores(found: Sequence[Scores], recipe: Recipe) -> Float[np.ndarray, " n"]:
    """An object's mean over the pairs that it is in; see `mean_over_pairs` for exact zeros."""
    return mean_over_pairs(np.stack([each.total for each in found], 1), compat=recipe.options.compat)


def train_pairs(
    views: Sequence[np.ndarray], mask: np.ndarray, *, recipe: Recipe, seed: int = 0, **options: Any
) -> tuple[list[Pair], Float[np.ndarray, " n"]]:
    """Trains all pairs and scores all objects.

    Args:
        views: (N, D) each, in [0, 1].
        mask: (N, V), 1 where the view is there.
        recipe: how.
        seed: of everything.
        **options: of `train_pair`.

    Returns:
        The pairs in turn, and scores (N,): higher is more outlying.

    Raises:
        ValueError: see `check_data`.
    """
    check_data(views, mask, recipe)
    coders: Coders = {}
    found = [
        train_pair(views, mask, pair, coders, recipe=recipe, seed=seed, **options) for pair in pairs_of(len(views))
    ]
    return found, merge_scores([each.scores for each in found], recipe)
