"""Neighbours across views, the bank, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.data.view_masks import view_mask
from jaxmodels.data.view_outliers import inject_outliers
from jaxmodels.outliers.memory import new_bank, push
from jaxmodels.outliers.neighbours import check_count, neighbours
from jaxmodels.outliers.rcpmod import Options, rcpmod


def test_an_object_without_a_view_takes_its_neighbours_from_the_other():
    random = np.random.default_rng(0)
    views = random.random((25, 3)), random.random((25, 4))
    has = np.ones((25, 2), bool)
    has[:6, 0], has[6:10, 1] = False, False
    found = np.asarray(neighbours(tuple(map(jnp.asarray, views)), jnp.asarray(has), 5, block=7))
    for v in (0, 1):
        for i in range(25):
            space = v if has[i, v] else 1 - v
            able = [j for j in range(25) if j != i and has[j, v] and has[j, space]]
            able.sort(key=lambda j: np.sum((views[space][i] - views[space][j]) ** 2))  # noqa: B023
            assert found[v, i].tolist() == able[:5]


def test_too_few_objects_for_the_neighbours_are_named():
    has = np.ones((6, 2), bool)
    has[:4, 1] = False
    with pytest.raises(ValueError, match="view 1: 2 objects have it, expected more than 3"):
        check_count(has, 3)


def test_the_bank_takes_the_least_agreeing_rows_and_forgets_the_oldest_block():
    bank = new_bank(2, 8, 0.25, (1, 1), jnp.dtype("float32"))
    for k in range(3):
        x = jnp.arange(8.0)[:, None] + 10 * k
        counted = jnp.array([True] * 7 + [False])
        agreement = jnp.array([0.5, -0.2, 0.9, -0.7, 0.1, 0.3, 0.0, -1.0])  # the last does not count
        bank = push(bank, (x, -x), agreement, counted, share=0.3)
    assert np.asarray(bank.counted).tolist() == [[True, True], [True, True]]
    assert np.asarray(bank.views[0])[..., 0].tolist() == [[23.0, 21.0], [13.0, 11.0]]
    same = push(bank, (x, -x), agreement, jnp.zeros(8, bool), share=0.3)
    assert int(same.at) == int(bank.at) and (same.views[0] == bank.views[0]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda views, mask: (views[0][:-1], views[1]), "view 0: found shape"),
        (lambda views, mask: mask.__setitem__((slice(None), 1), 0), "view 1: all 20 objects lack it"),
        (lambda views, mask: views[1].__setitem__((3, 0), np.nan), "view 1, row 3: found NaN or infinity"),
        (lambda views, mask: mask.__setitem__(2, 0), "mask, row 2: the object has no view at all"),
    ],
)
def test_wrong_views_are_named(change, message):
    random = np.random.default_rng(0)
    views, mask = (random.random((20, 3)), random.random((20, 2))), np.ones((20, 2), np.int32)
    views = change(views, mask) or views
    with pytest.raises(ValueError, match=message):
        inject_outliers(views, np.arange(20) % 4, mask, np.random.RandomState(0))


def test_rates_and_options_out_of_range_are_named():
    with pytest.raises(ValueError, match="missing_rate: found 1.5, expected 0 to 1"):
        view_mask(10, 2, 1.5, np.random.RandomState(0))
    with pytest.raises(ValueError, match="contrast: found 'none at all'"):
        rcpmod(((3, 2), (4, 2)), options=Options(contrast="none at all"))
    with pytest.raises(ValueError, match="widths: latent vectors of 2 and 3"):
        rcpmod(((3, 2), (4, 3)))
