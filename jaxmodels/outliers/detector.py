"""RCPMOD as a scikit-learn outlier detector (`jaxmodels.outliers.PartialMultiViewOutlierDetector`)."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from jaxmodels.outliers.newcomers import Ranges, newcomer_scores, ranges_of
from jaxmodels.outliers.pairs import Pair, Recipe, built, check_data, train_pairs
from jaxmodels.outliers.rcpmod import NAMES, Options

Views = Sequence[Any] | np.ndarray  # of arrays (N, D); or one (N, sum of D), a data frame or rows


class TrainedPair(NamedTuple):
    """What scores new objects by one pair of views.

    Attributes:
        views: which two.
        variables: parameters, and the training objects.
        ranges: of the training objects' scores.
    """

    views: tuple[int, int]
    variables: Any
    ranges: Ranges


class PartialMultiViewOutlierDetector(OutlierMixin, BaseEstimator):
    """Outliers among objects with two or more views of which each object may lack some (RCPMOD, arXiv 2408.07819).

    Data are a list of views, each (N, D); `mask` (N, V) tells who has what. Without a mask a row of NaN is a missing
    view. One array or table (N, sum of D) will do where `view_widths` says which columns are whose. So it stands in
    pipelines, which pass labels y in the place of the mask: a second argument of one dimension is not used.

    Signs are scikit-learn's, for all its outlier detectors: `score_samples` and `decision_function` are *lower* for
    outliers, `decision_function` is negative for the share `contamination` of the training objects, and `predict` says
    -1 for outliers and 1 for others. `outlier_scores_` is the method's own score, higher for outliers.

    The method is transductive: it scores the objects it trains on (`outlier_scores_`, `fit_predict`). Other objects are
    scored by `newcomers`; a training object that is scored as if it were new gets nearly, not exactly, the same score,
    most of all where it lacks a view, for its neighbours are then found anew.

    Args:
        hidden: widths of an encoder's hidden layers; a number is one layer.
        latent: width of latent vectors.
        activation: of hidden layers, see `AutoEncoder`.
        batch_norm: of hidden layers, see `AutoEncoder`.
        epochs: per pair of views.
        batch_size: rows per step.
        learning_rate: of Adam.
        error_weight: of reconstruction errors in the score, against the disagreement of views.
        n_neighbors: k, of an object in each view.
        negative: which neighbour serves as the triplet's negative; each view needs more objects than that.
        options: more of the loss (`Options`); n_neighbors and negative replace its own.
        contamination: share of outliers, above 0 and at most 0.5: where `predict` draws the line.
        scale: 'view' scales each view to [0, 1] by its one minimum and maximum, as published; 'feature' each column,
            for features of different units; None takes values as they are, which should be in [0, 1].
        view_widths: columns of each view, for data in one array.
        random_state: seed or generator.

    Attributes:
        outlier_scores_: (N,) of the training objects, higher is more outlying.
        offset_: what `decision_function` subtracts from `score_samples`.
        n_features_in_: columns of all views.
        view_widths_: columns of each view.
        limits_: per view the minimum and the range by which it is scaled.
        recipe_: how it was trained; parameters that are set later wait for the next `fit`.
        pairs_: what scores new objects.

    Example (not run as a test, for it compiles a training step):
        detector = PartialMultiViewOutlierDetector(contamination=0.05, random_state=0)
        detector.fit([audio, text], mask)
        outliers = detector.predict([new_audio, new_text]) == -1
    """

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] | int = (256,),
        latent: int = 64,
        activation: str = "relu",
        batch_norm: bool = False,
        epochs: int = 100,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        error_weight: float = 0.6,
        n_neighbors: int = 6,
        negative: int = 50,
        options: Options | None = None,
        contamination: float = 0.1,
        scale: Literal["view", "feature"] | None = "view",
        view_widths: tuple[int, ...] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ):
        self.hidden = hidden
        self.latent = latent
        self.activation = activation
        self.batch_norm = batch_norm
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.error_weight = error_weight
        self.n_neighbors = n_neighbors
        self.negative = negative
        self.options = options
        self.contamination = contamination
        self.scale = scale
        self.view_widths = view_widths
        self.random_state = random_state

    def fit(self, X: Views, mask: np.ndarray | None = None, y: Any = None) -> "PartialMultiViewOutlierDetector":
        """Trains on the objects and scores them.

        Args:
            X: views (N, D), or one array.
            mask: (N, V), 1 where an object has a view; of one dimension (N,) it is taken for y.
            y: not used.

        Raises:
            ValueError: views that do not fit, an object without any view, a view that all lack, too few objects for
                the neighbours, or an argument out of range.
        """
        share: Any = self.contamination
        if not isinstance(share, int | float | np.number) or not 0.0 < share <= 0.5:
            raise ValueError(f"contamination: found {share}, expected more than 0 and at most 0.5")
        if self.scale not in ("view", "feature", None):
            raise ValueError(f"scale: found '{self.scale}', expected view, feature or None")
        views, mask = _parts(X, None if mask is None or np.ndim(mask) == 1 else mask, self.view_widths)
        recipe = self._recipe()
        check_data(views, mask, recipe)
        self.view_widths_ = tuple(x.shape[1] for x in views)
        self.n_features_in_ = sum(self.view_widths_)
        self.limits_ = [self._limits(x[mask[:, v] > 0]) for v, x in enumerate(views)]
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        pairs, self.outlier_scores_ = train_pairs(self._scaled(views, mask), mask, recipe=recipe, seed=seed)
        self.pairs_, self.recipe_ = [_kept(pair, recipe) for pair in pairs], recipe
        self.offset_ = float(np.percentile(-self.outlier_scores_, 100 * share))
        return self

    def score_samples(self, X: Views, mask: np.ndarray | None = None) -> np.ndarray:
        """Minus the outlier scores (M,): lower is more outlying.

        Args:
            X: views (M, D) as in `fit`, of any objects.
            mask: (M, V).

        Raises:
            ValueError: views of other widths, values that are no numbers, or an object without any view.
        """
        check_is_fitted(self)
        views, mask = _parts(X, mask, self.view_widths_)
        widths = tuple(x.shape[1] for x in views)
        if widths != self.view_widths_:
            raise ValueError(f"X: found views of {widths} features, expected {self.view_widths_} as in training")
        _check_objects(views, mask)
        scaled = self._scaled(views, mask)
        found = []
        for each in self.pairs_:
            a, b = each.views
            pair, has = (scaled[a], scaled[b]), mask[:, each.views] > 0
            found.append(newcomer_scores(each.variables, pair, has, recipe=self.recipe_, ranges=each.ranges))
        return -np.nanmean(np.stack(found, 1), axis=1)

    def decision_function(self, X: Views, mask: np.ndarray | None = None) -> np.ndarray:
        """`score_samples` less `offset_` (M,): negative for outliers.

        Args:
            X: views (M, D).
            mask: (M, V).
        """
        return self.score_samples(X, mask) - self.offset_

    def predict(self, X: Views, mask: np.ndarray | None = None) -> np.ndarray:
        """-1 for outliers and 1 for others (M,).

        Args:
            X: views (M, D).
            mask: (M, V).
        """
        return np.where(self.decision_function(X, mask) < 0, -1, 1)

    def fit_predict(self, X: Views, mask: np.ndarray | None = None, y: Any = None) -> np.ndarray:
        """-1 for outliers and 1 for others among the training objects (N,), by `outlier_scores_`.

        Args:
            X: views (N, D).
            mask: (N, V).
            y: not used.
        """
        self.fit(X, mask)
        return np.where(-self.outlier_scores_ - self.offset_ < 0, -1, 1)

    def _recipe(self) -> Recipe:
        options = (self.options or Options())._replace(neighbours=self.n_neighbors, negative=self.negative)
        return Recipe(
            hidden=tuple(np.atleast_1d(self.hidden).tolist()),
            latent=self.latent,
            activation=self.activation,
            batch_norm=self.batch_norm,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            error_weight=self.error_weight,
            options=options,
        )

    def _limits(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        axis = 0 if self.scale == "feature" else None
        low, high = np.min(x, axis=axis, keepdims=True), np.max(x, axis=axis, keepdims=True)
        if self.scale is None:
            low, high = np.zeros((1, 1)), np.ones((1, 1))
        return low, np.where(high > low, high - low, 1.0)

    def _scaled(self, views: list[np.ndarray], mask: np.ndarray) -> list[np.ndarray]:
        found = []
        for v, (x, (low, span)) in enumerate(zip(views, self.limits_, strict=True)):
            found.append(np.where(mask[:, v, None] > 0, (x - low) / span, 0.0))
        return found


def _parts(data: Views, mask: np.ndarray | None, widths: Sequence[int] | None) -> tuple[list[np.ndarray], np.ndarray]:
    """Views in float64 and the mask, shapes checked."""
    if not len(data):
        raise ValueError("X: found nothing, expected a list of views")
    if isinstance(data, np.ndarray) and data.dtype == object and data.ndim == 1:
        data = list(data)  # of views
    if hasattr(data, "__array__") or np.ndim(data[0]) == 1:  # an array, a data frame, or a list of rows
        data = _split(np.asarray(data), widths)
    views = [np.asarray(x, np.float64) for x in data]
    for v, x in enumerate(views):
        if x.ndim != 2 or len(x) != len(views[0]):
            expected = f"({len(views[0])}, features)" if views[0].ndim == 2 else "(objects, features)"
            raise ValueError(f"view {v}: found shape {x.shape}, expected {expected}")
    if mask is None:
        mask = np.stack([~np.isnan(x).all(1) for x in views], 1)
    mask = np.asarray(mask)
    if mask.shape != (len(views[0]), len(views)):
        raise ValueError(f"mask: found shape {mask.shape}, expected {(len(views[0]), len(views))}")
    return views, (mask > 0).astype(np.int32)


def _split(data: np.ndarray, widths: Sequence[int] | None) -> list[np.ndarray]:
    if widths is None:
        raise ValueError("X: found one array, expected a list of views, or view_widths that tells its views apart")
    if data.ndim != 2 or data.shape[1] != sum(widths):
        raise ValueError(f"X: found shape {data.shape}, expected (objects, {sum(widths)}), the sum of view_widths")
    return np.split(data, np.cumsum(widths)[:-1], axis=1)


def _kept(pair: Pair, recipe: Recipe) -> TrainedPair:
    params, state = pair.variables["params"], pair.variables["state"]
    widths = tuple(x.shape[1] for x in state["views"])
    rows = np.arange(len(state["has"]), dtype=np.int32)
    errors = np.asarray(built(recipe, (widths[0], widths[1])).predict(pair.variables, rows)["error"])
    small = {name: state[name] for name in ("views", "has")} | {
        "near": state["lists"].near,
        "stats": {name: state["stats"][name] for name in NAMES},
    }
    ranges = ranges_of(errors, pair.scores.error, pair.scores.contrast)
    return TrainedPair(pair.views, {"params": params, "state": small}, ranges)


def _check_objects(views: list[np.ndarray], mask: np.ndarray) -> None:
    for v, x in enumerate(views):
        wrong = np.flatnonzero((mask[:, v] > 0) & ~np.isfinite(x).all(1))
        if len(wrong):
            raise ValueError(f"view {v}, row {wrong[0]}: found NaN or infinity, expected numbers, or NaN alone")
    lost = np.flatnonzero(~(mask > 0).any(1))
    if len(lost):
        raise ValueError(f"row {lost[0]}: the object has no view at all, expected at least one")
