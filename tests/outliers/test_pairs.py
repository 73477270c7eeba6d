"""Pairs of views: batches, who takes part, what goes on from pair to pair, and that a mesh changes nothing."""

import jax
import numpy as np
import pytest

from jaxmodels.outliers import pairs
from jaxmodels.outliers.pairs import PairBatches, Scores, check_data, merge_scores, train_pair, train_pairs
from jaxmodels.training.mesh import make_mesh
from tests.outliers.tiny import FIXED, RECIPE, tiny

pytestmark = pytest.mark.usefixtures("unoptimised")


def test_an_epoch_has_every_present_object_once_and_no_lone_row():
    has = np.ones((51, 2), bool)
    has[[3, 8]] = False
    for seed in (None, 5):
        batches = PairBatches(has, 16, seed=seed)
        assert batches.per_epoch == 3  # 49 objects: the fourth batch would be a single row
        rows = [batches[i]["rows"] for i in range(6)]
        found = np.concatenate(rows[:3])
        assert len(set(found)) == 48 and not {3, 8} & set(found.tolist())
        assert [int(batches[i]["epoch"][0]) for i in range(6)] == [0, 0, 0, 1, 1, 1]
        assert [int(batches[i]["first"][0]) for i in range(6)] == [1, 0, 0, 1, 0, 0]
        assert (np.array_equal(rows[0], rows[3])) is (seed is None)  # the released order is always the same
    released = np.delete(np.arange(51), [3, 8])[np.random.RandomState(1).permutation(49)]
    np.testing.assert_array_equal(PairBatches(has, 16, seed=None)[1]["rows"], released[16:32])
    padded = PairBatches(has, 20, seed=0, rows=range(5, 20))[2]
    assert padded["weight"].tolist() == [1.0] * 4 + [0.0] * 11


def test_objects_with_neither_view_change_nothing():
    views, mask = tiny()
    mask[[2, 20], :2] = 0
    kept = np.delete(np.arange(len(mask)), [2, 20])
    here = train_pair(views, mask, (0, 1), {}, recipe=FIXED, seed=3).scores
    alone = train_pair([x[kept] for x in views], mask[kept], (0, 1), {}, recipe=FIXED, seed=3).scores
    for found, expected in zip(here, alone, strict=True):
        assert np.isnan(found[[2, 20]]).all() and np.isfinite(expected).all()
        np.testing.assert_allclose(found[kept], expected, rtol=1e-3, atol=1e-4)


def test_autoencoders_go_on_and_scores_are_averaged(monkeypatch):
    views, mask = tiny()
    started = []
    fit = pairs.fit

    def spy(method, batches, optimizer, *, variables, **options):
        fitted = fit(method, batches, optimizer, variables=variables, **options)
        started.append(jax.device_get((variables["params"], fitted.variables["params"])))
        return fitted

    monkeypatch.setattr(pairs, "fit", spy)
    found, scores = train_pairs(views, mask, recipe=FIXED, seed=1)
    assert [pair.views for pair in found] == [(0, 1), (0, 2), (1, 2)]
    (_, first), (second, after), (third, _) = started
    jax.tree.map(np.testing.assert_array_equal, second["view1"], first["view1"])  # view 0 goes on in (0, 2)
    jax.tree.map(np.testing.assert_array_equal, third["view1"], first["view2"])
    jax.tree.map(np.testing.assert_array_equal, third["view2"], after["view2"])
    np.testing.assert_allclose(scores, np.nanmean([pair.scores.total for pair in found], axis=0))


def test_exact_zeros_are_absent_where_the_released_code_is_followed():
    each = [np.array([0.0, 0.4, np.nan]), np.array([0.6, 0.2, 0.5])]
    scores = [Scores(x, x, x) for x in each]
    np.testing.assert_allclose(merge_scores(scores, RECIPE), [0.3, 0.3, 0.5])
    released = RECIPE._replace(options=RECIPE.options._replace(compat=True))
    np.testing.assert_allclose(merge_scores(scores, released), [0.6, 0.3, 0.5])


def test_eight_devices_give_what_one_gives():
    views, mask = tiny(widths=(6, 5))
    one = train_pair(views, mask, (0, 1), {}, recipe=RECIPE, seed=2)
    eight = train_pair(views, mask, (0, 1), {}, recipe=RECIPE, seed=2, mesh=make_mesh("data:8"))
    np.testing.assert_allclose(eight.scores.total, one.scores.total, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(eight.fitted.history[-1]["loss"], one.fitted.history[-1]["loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, m, r: (v[:1], m[:, :1], r), "views: found 1, expected at least 2"),
        (lambda v, m, r: (v, m, r._replace(epochs=0)), "epochs, batch_size: found 0 and 24"),
        (lambda v, m, r: (v[:2], m[:, :2], r._replace(options=r.options._replace(negative=60))),
         r"^view 0: 60 objects have it, expected more than 60, the rank of the triplet's negatives \(negative\)"),
        (lambda v, m, r: (v, m, r._replace(options=r.options._replace(neighbours=58))),
         "pair of views 0 and 1: 56 objects have both views, expected at least 58, the neighbours asked for"),
        (lambda v, m, r: (v, np.where(np.arange(3)[None] == 1, 0, m), r), "view 1: all 64 objects lack it"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_trained_on_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        check_data(*change(*tiny(), RECIPE))
