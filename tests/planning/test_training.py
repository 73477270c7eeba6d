"""Plans of real methods on slices that are not there."""

import importlib.util
import json

import jax
import pytest

import jaxmodels as jm
from experiments import command, planning, vtab
from jaxmodels.planning.training import plan_method, trained_bytes
from tests.tiny_vit import BACKBONE
from tests.training.small import small_method

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


def planned(tuner, **options):
    method = jm.classifier(BACKBONE, tuner, num_classes=3)
    plans = plan_method(method, jm.adamw(method.groups, 1e-3), chips="v5e:2x2", batch_size=8, **options)
    return method, plans


@needs_libtpu
@pytest.mark.parametrize(
    "tuner",
    [lambda: jm.lora(2), lambda: jm.res_tuning_bypass(2), lambda: jm.snell(2)],
    ids=["lora", "bypass", "snell"],
)
def test_only_what_trains_is_reduced(tuner):
    method, plans = planned(tuner())
    assert plans.fits and plans.train.trained == trained_bytes(method) // 4
    assert {each.kind for each in plans.train.collectives} == {"all-reduce"}
    sent = sum(each.bytes for each in plans.train.collectives)
    metrics = 4 * 4  # totals and weights of loss and accuracy
    assert trained_bytes(method) <= sent <= trained_bytes(method) + metrics
    assert plans.train.frozen * 4 > trained_bytes(method)


@needs_libtpu
def test_frozen_weights_over_fsdp_are_gathered_and_take_less_memory_each():
    _, plain = planned(jm.lora(2))
    _, spread = planned(jm.lora(2), mesh="data:1,fsdp:-1")
    assert spread.train.mesh == {"data": 1, "fsdp": 4, "model": 1}
    assert "all-gather" in {each.kind for each in spread.train.collectives}
    assert spread.train.arguments < plain.train.arguments


@needs_libtpu
def test_the_command_prints_and_writes_the_plan(tmp_path, capsys):
    out = tmp_path / "plan.json"
    vtab.main(vtab.Config(method="linear", plan="v5e:2x2", batch_size=16, plan_out=out))
    text = capsys.readouterr().out
    assert "linear on vit_mini, global batch 16, v5e:2x2" in text and "fits:" in text and "evaluation step" in text
    found = json.loads(out.read_text())
    assert found["train"]["devices"] == 4 and found["train"]["trained"] == (jm.vit("mini").width + 1) * 100


@needs_libtpu
def test_a_method_that_does_not_fit_exits_with_three(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["vtab"])
    real = planning.plans_of

    def too_large(*args, **options):
        return {name: plan._replace(fits=False) for name, plan in real(*args, **options).items()}

    monkeypatch.setattr(planning, "plans_of", too_large)

    def main(_):
        vtab.main(vtab.Config(method="linear", plan="v5e:2x2"))

    with pytest.raises(SystemExit) as status:
        command.run(main, vtab.Config, "", "experiments.vtab")
    assert status.value.code == 3 and "linear on vit_mini does not fit" in capsys.readouterr().err


def test_a_method_that_does_not_know_its_batch_is_told_so():
    method = small_method()._replace(batch=None)
    with pytest.raises(ValueError, match="does not say what its batch looks like"):
        plan_method(method, jm.sgd(method.groups, 0.1), chips="v5e:2x2", batch_size=8)


def test_abstract_batches_are_the_shapes_of_real_ones():
    batch = jm.classifier(BACKBONE, jm.lora(2), num_classes=3).batch(6)
    assert jax.tree.map(lambda x: x.shape, batch) == {"image": (6, 8, 8, 3), "label": (6,)}
