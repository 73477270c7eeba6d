import math

import pytest

from experiments.adapting import schedule_of
from experiments.recipes import RECIPES, candidates
from jaxmodels.data.fgvc import SETS
from jaxmodels.data.vtab import TASKS


@pytest.mark.parametrize("name", ["snell", "ssf", "fact"])
def test_the_tables_cover_all_of_vtab(name):
    assert [task for task in TASKS if task not in RECIPES[name]] == []


def test_every_row_is_a_task_of_a_benchmark():
    rows = {task for recipe in RECIPES.values() if isinstance(recipe, dict) for task in recipe}
    assert rows <= set(TASKS) | set(SETS)
    assert set(SETS) <= set(RECIPES["snell"]) & set(RECIPES["snella"])


def test_spot_checks_against_the_published_tables():
    (snell,) = candidates("snell", "smallnorb_ele")
    assert (snell.options["sparsity"], snell.batch_size, snell.weight_decay, snell.epochs) == (0.08, 16, 0.001, 200)
    assert candidates("snell", "patch_camelyon")[0].lr == 7e-4
    (ssf,) = candidates("ssf", "clevr_dist")
    assert (ssf.lr, ssf.weight_decay, ssf.drop_path, ssf.batch_size) == (5e-2, 5e-2, 0.1, 64)
    (fact,) = candidates("fact", "clevr_dist")
    assert (fact.options, fact.drop_last) == ({"rank": 4, "scale": 10.0}, True)
    vpt = candidates("vpt", "anything")
    assert len(vpt) == 40 and vpt[0].lr == 0.05 * 64 / 256 and {r.optimizer for r in vpt} == {"sgd"}


def test_grids_ascend_so_that_a_tie_takes_the_smallest_rate():
    for name, recipe in RECIPES.items():
        if isinstance(recipe, tuple):
            rates = [r.lr for r in recipe]
            assert rates == sorted(rates), name


def test_published_epochs_and_warmup():
    assert sum(recipe.epochs == 200 for recipe in RECIPES["snell"].values()) == 8
    assert all(r.warmup_epochs == 10 for table in ("snell", "ssf", "fact") for r in RECIPES[table].values())


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match="--recipe=snel: .*did you mean 'snell'"):
        candidates("snel", "dtd")


def test_a_task_without_published_setting_is_told_so():
    with pytest.raises(ValueError, match="--recipe=snella: nothing is published for 'kitti'.*adamw_default"):
        candidates("snella", "kitti")


def test_snell_changes_its_rate_per_epoch_and_lags_by_one():
    (recipe,) = candidates("snell", "dsprites_ori")
    rate = schedule_of(recipe, 100 * 125, 125)
    assert [float(rate(step)) for step in (0, 124, 125, 249)] == pytest.approx([1e-6] * 4)
    assert float(rate(250)) == pytest.approx(1e-6 + (1e-3 - 1e-6) / 10)
    assert float(rate(11 * 125)) == pytest.approx(1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * 0.1)))


def test_other_recipes_change_it_per_step_and_end_at_the_floor():
    (recipe,) = candidates("ssf", "clevr_dist")
    rate = schedule_of(recipe, 3200, 32)
    assert float(rate(0)) == pytest.approx(1e-7, rel=0.02) and float(rate(320)) == pytest.approx(5e-2)
    assert float(rate(3200)) == pytest.approx(1e-8, rel=0.02) and float(rate(1)) > float(rate(0))
