import pytest

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
