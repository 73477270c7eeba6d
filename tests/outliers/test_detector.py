"""The estimator: scikit-learn's conventions, new objects, and what is refused."""

import inspect
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import (
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
)

import jaxmodels as jm
from jaxmodels.outliers import PartialMultiViewOutlierDetector
from jaxmodels.outliers.autoencoder import AutoEncoder
from jaxmodels.outliers.pairs import train_pairs
from jaxmodels.outliers.rcpmod import Options
from tests.outliers.tiny import RECIPE, tiny

pytestmark = pytest.mark.usefixtures("unoptimised")

SMALL = dict(hidden=(8,), latent=4, epochs=2, batch_size=24, n_neighbors=3, negative=5, random_state=0)


class DataFrame(Sequence):
    """As those of pandas: an array to NumPy, and by itself its columns."""

    def __init__(self, table):
        self.table = table

    def __len__(self):
        return len(self.table)

    def __getitem__(self, column):
        raise KeyError(column)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.table, dtype)


@pytest.fixture(scope="module")
def data():
    views, mask = tiny(widths=(6, 5))
    return [x + 3 for x in views], mask  # not in [0, 1]: scaling is the detector's


@pytest.fixture(scope="module")
def fitted(data):
    return PartialMultiViewOutlierDetector(**SMALL, contamination=0.2).fit(*data)


def test_parameters_are_kept_as_given_and_cloned():
    detector = PartialMultiViewOutlierDetector(**SMALL, options=Options(bank=2))
    assert detector.get_params()["hidden"] == (8,) and detector.set_params(latent=7).latent == 7
    copy = clone(detector)
    assert copy.get_params() == detector.get_params() and not hasattr(copy, "offset_")
    check_no_attributes_set_in_init("detector", detector)
    check_parameters_default_constructible("detector", detector)
    assert set(inspect.signature(PartialMultiViewOutlierDetector).parameters) == set(detector.get_params())
    assert jm.outliers.PartialMultiViewOutlierDetector is PartialMultiViewOutlierDetector


def test_signs_and_the_share_of_outliers_are_scikit_learns(data, fitted):
    views, mask = data
    assert fitted.n_features_in_ == 11 and fitted.view_widths_ == (6, 5) and len(fitted.outlier_scores_) == 64
    assert (-fitted.outlier_scores_ < fitted.offset_).mean() == pytest.approx(0.2, abs=0.01)
    decision = fitted.decision_function(views, mask)
    np.testing.assert_allclose(decision, fitted.score_samples(views, mask) - fitted.offset_)
    assert set(fitted.predict(views, mask)) == {-1, 1}
    np.testing.assert_array_equal(fitted.predict(views, mask) == -1, decision < 0)
    again = PartialMultiViewOutlierDetector(**SMALL, contamination=0.2)
    found = again.fit_predict(views, mask)
    np.testing.assert_array_equal(again.outlier_scores_, fitted.outlier_scores_)  # the same random_state
    assert (found == -1).sum() == (-fitted.outlier_scores_ < fitted.offset_).sum()


def test_training_objects_score_nearly_the_same_when_taken_for_new(data, fitted):
    views, mask = data
    whole = mask.all(1)
    close = -fitted.score_samples(views, mask)[whole]
    assert np.corrcoef(close, fitted.outlier_scores_[whole])[0, 1] > 0.99
    # One by one or all at once: newcomers do not see each other.
    few = -fitted.score_samples([x[5:9] for x in views], mask[5:9])
    np.testing.assert_allclose(few, -fitted.score_samples(views, mask)[5:9], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lacking", [None, 0, 1])
def test_a_new_object_scores_by_the_formulas(data, fitted, lacking):
    views, _ = data
    (pair,) = fitted.pairs_
    params, state, ranges = pair.variables["params"], pair.variables["state"], pair.ranges

    def coder(v, x, method):
        made = AutoEncoder((views[v].shape[1], 8, 4))
        return np.asarray(
            made.apply({"params": params[f"view{v + 1}"]}, jnp.asarray(x, jnp.float32), method=method), np.float64
        )

    def unit(z):
        return z / np.linalg.norm(z, axis=-1, keepdims=True)

    def scaled(x, limits):
        return (x - limits[0]) / (limits[1] - limits[0])

    has = state["has"]
    known = [coder(v, state["views"][v], "encode") for v in (0, 1)]
    own = [unit(np.where(has[:, [v]], known[v], known[v][state["near"][v]].mean(1))) for v in (0, 1)]
    x = [((views[v][40] + views[v][41]) / 2 - fitted.limits_[v][0]) / fitted.limits_[v][1] for v in (0, 1)]
    z = [coder(v, x[v], "encode") for v in (0, 1)]
    errors = []
    for v in (0, 1):
        made = coder(v, z[v], "decode")
        errors.append(scaled(((made - x[v]) ** 2).sum(), ranges.errors[v]))
    if lacking is not None:
        other = 1 - lacking
        both = np.flatnonzero(has.all(1))
        near = both[np.argsort(((known[other][both] - z[other]) ** 2).sum(1))[:3]]
        z[lacking], errors[lacking] = known[lacking][near].mean(0, keepdims=True), errors[other]
    a, b = unit(z[0])[0], unit(z[1])[0]
    terms = [np.log(np.exp(2 * a @ b) + sum(np.exp(2 * k @ one).sum() for k in own)) - 2 * a @ b for one in (a, b)]
    expected = 0.6 * scaled(sum(errors), ranges.error) + scaled(np.mean(terms), ranges.contrast)
    new = [np.full((1, views[v].shape[1]), np.nan) if v == lacking else (views[v][[40]] + views[v][[41]]) / 2
           for v in (0, 1)]  # fmt: skip
    assert -fitted.score_samples(new)[0] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_scores_are_those_of_the_method_on_scaled_views(data, fitted):
    views, mask = data
    scaled = []
    for v, x in enumerate(views):
        there = x[mask[:, v] > 0]
        scaled.append(np.where(mask[:, v, None] > 0, (x - there.min()) / (there.max() - there.min()), 0.0))
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    _, expected = train_pairs(scaled, mask, recipe=RECIPE, seed=seed)
    np.testing.assert_allclose(fitted.outlier_scores_, expected, rtol=1e-5)


def test_one_array_and_rows_of_nan_say_the_same(data, fitted):
    views, mask = data
    lacking = [np.where(mask[:, v, None] > 0, x, np.nan) for v, x in enumerate(views)]
    one = PartialMultiViewOutlierDetector(**SMALL, contamination=0.2, view_widths=(6, 5)).fit(np.hstack(lacking))
    np.testing.assert_array_equal(one.outlier_scores_, fitted.outlier_scores_)
    np.testing.assert_array_equal(one.score_samples(np.hstack(lacking)), fitted.score_samples(views, mask))
    by_column = PartialMultiViewOutlierDetector(**SMALL, scale="feature").fit(views, mask)
    assert by_column.limits_[0][0].shape == (1, 6) and not np.allclose(by_column.outlier_scores_, one.outlier_scores_)


def test_it_stands_in_pipelines_whose_labels_it_does_not_use(data, fitted):
    views, mask = data
    table = np.hstack([np.where(mask[:, v, None] > 0, x, np.nan) for v, x in enumerate(views)])
    labels = np.arange(64) % 2
    new = PartialMultiViewOutlierDetector(**SMALL, contamination=0.2, view_widths=(6, 5))
    made = make_pipeline(FunctionTransformer(), new).fit(table, labels)
    np.testing.assert_array_equal(made[-1].outlier_scores_, fitted.outlier_scores_)
    np.testing.assert_array_equal(made.predict(table), fitted.predict(views, mask))
    for other in (table.tolist(), DataFrame(table)):
        np.testing.assert_array_equal(clone(new).fit(other).outlier_scores_, fitted.outlier_scores_)


def test_parameters_set_after_fit_wait_for_the_next(data):
    views, mask = data
    detector = PartialMultiViewOutlierDetector(**SMALL).fit(views, mask)
    before = detector.score_samples(views, mask)
    detector.set_params(hidden=(3, 3), latent=2, activation="tanh", error_weight=5.0, n_neighbors=1, scale=None)
    np.testing.assert_array_equal(detector.score_samples(views, mask), before)
    detector.set_params(view_widths=(5, 6))
    filled = [np.where(mask[:, v, None] > 0, x, np.nan) for v, x in enumerate(views)]
    np.testing.assert_array_equal(detector.score_samples(np.hstack(filled)), before)


def test_layers_are_those_of_the_parameters(data):
    detector = PartialMultiViewOutlierDetector(**SMALL | {"hidden": 7}, activation="tanh", batch_norm=True).fit(*data)
    recipe = detector.recipe_
    assert (recipe.hidden, recipe.activation, recipe.batch_norm) == ((7,), "tanh", True)
    assert detector.pairs_[0].variables["state"]["stats"]["view1"]
    with pytest.raises(ValueError, match="activation: found 'rleu', expected one of relu.*did you mean 'relu'"):
        PartialMultiViewOutlierDetector(**SMALL, activation="rleu").fit(*data)


def test_what_is_wrong_is_said(data, fitted):
    views, mask = data
    new = PartialMultiViewOutlierDetector
    nan = [views[0].copy(), views[1]]
    nan[0][3, 1] = np.nan
    lost = mask.copy()
    lost[4] = 0
    for call, message in (
        (lambda: new(**SMALL, contamination=0.7).fit(views, mask), "contamination: found 0.7"),
        (
            lambda: new(**SMALL).set_params(contamination="auto").fit(views, mask),
            "contamination: found auto, expected more than 0",
        ),
        (lambda: new(**SMALL).fit([]), "X: found nothing, expected a list of views"),
        (lambda: new(**SMALL).fit(np.hstack(views)), "X: found one array, expected a list of views, or view_widths"),
        (lambda: new(**SMALL, view_widths=(6, 6)).fit(np.hstack(views)), r"X: found shape \(64, 11\), expected"),
        (lambda: new(**SMALL).fit([views[0], views[1][:-1]]), r"view 1: found shape \(63, 5\), expected \(64"),
        (lambda: new(**SMALL).fit(views, mask[:, :1]), r"mask: found shape \(64, 1\), expected \(64, 2\)"),
        (lambda: new(**SMALL).fit(nan), "view 0, row 3: found NaN or infinity"),
        (lambda: new(**SMALL).fit(views, lost), "mask, row 4: the object has no view at all"),
        (lambda: new(**SMALL | {"negative": 64}).fit(views), "view 0: 64 objects have it, expected more than 64"),
        (lambda: fitted.predict(views[::-1], mask), r"X: found views of \(5, 6\) features, expected \(6, 5\)"),
        (lambda: fitted.predict(nan), "view 0, row 3: found NaN or infinity"),
        (lambda: fitted.predict(views, lost), "row 4: the object has no view at all"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(NotFittedError):
        new().predict(views)
