"""What each tuner's train step needs on a TPU slice stays within a stored budget.

    python -m tests.planning.test_budgets --write        plans every method again and rewrites budgets.json

A budget is what the TPU compiler counted when it was written; 2 % more fails, less does not. Rewrite the file where a
step has become smaller, or where it had to become larger: the difference is then part of the change.
"""

import argparse
import importlib.metadata
import importlib.util
import json
from pathlib import Path

import pytest

import jaxmodels as jm
from jaxmodels.backbones.vit import Size, vit
from jaxmodels.planning.training import plan_train
from tests.tiny_vit import BACKBONE

FILE = Path(__file__).with_name("budgets.json")
COMMAND = "python -m tests.planning.test_budgets --write"
CHIPS, BATCH, GROWTH = "v5e:2x2", 8, 1.02

TUNERS = {
    "full": lambda: jm.full(),
    "lora": lambda: jm.lora(2),
    "snell": lambda: jm.snell(4),
    "res_tuning": lambda: jm.res_tuning(2),
    "res_tuning_bypass": lambda: jm.res_tuning_bypass(2),
}

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


def reduced(plan):
    return sum(each.bytes for each in plan.collectives if each.kind == "all-reduce")


def planned(tuner, backbone=BACKBONE):
    method = jm.classifier(backbone, tuner, num_classes=3)
    return plan_train(method, jm.adamw(method.groups, 1e-3), chips=CHIPS, batch_size=BATCH)


def measured(name):
    plan = planned(TUNERS[name]())
    return {"needed": plan.needed, "flops": plan.flops, "accessed": plan.accessed, "all_reduced": reduced(plan)}


def over_budget(name, found, budget, versions=""):
    """A line for each quantity that grew too much."""
    return [
        f"{name}: {quantity} grew from {budget[quantity]:,.0f} to {found[quantity]:,.0f} "
        f"(+{100 * (found[quantity] / budget[quantity] - 1):.1f} %){versions}; if that is meant: {COMMAND}"
        for quantity in budget
        if found[quantity] > GROWTH * budget[quantity]
    ]


@needs_libtpu
@pytest.mark.parametrize("name", TUNERS)
def test_no_method_needs_more_than_its_budget(name):
    stored = json.loads(FILE.read_text())
    installed = importlib.metadata.version("libtpu")
    versions = "" if installed == stored["libtpu"] else f", libtpu {installed} after {stored['libtpu']}"
    grown = over_budget(name, measured(name), stored["budgets"][name], versions)
    assert not grown, "\n".join(grown)


def growth(tuner):
    """Temporaries that three further layers add; what neighbouring layers work on at a time is in both and cancels."""
    few, many = (vit(Size(width=2048, depth=depth, heads=8, patch=4), image_size=8) for depth in (4, 7))
    return planned(tuner, many).temporaries - planned(tuner, few).temporaries


@needs_libtpu
@pytest.mark.slow
def test_snell_keeps_no_merged_matrix_for_the_backward_pass():
    # Wide: what fits into a TPU's on-chip memory (128 MiB on v5e) is not among its temporaries.
    merged = 3 * 4 * 2048 * (4 * 2048)  # bytes of fc1's update in float32, of three layers
    snell = growth(jm.snell(2, targets=("fc1",), dropout=0.0, drop_path=0.0))
    lora = growth(jm.lora(2, targets=("fc1",)))
    assert snell - lora < merged / 4, f"SNELL keeps {snell - lora:,} bytes more than LoRA, {merged:,} are merged"


def test_every_method_has_a_budget_of_positive_figures():
    budgets = json.loads(FILE.read_text())["budgets"]
    assert list(budgets) == list(TUNERS)
    assert all(figure > 0 for budget in budgets.values() for figure in budget.values())


def test_what_grew_is_named_with_both_figures_and_the_command():
    budget = {"needed": 1000, "flops": 1000.0}
    assert over_budget("lora", {"needed": 1020, "flops": 500.0}, budget) == []
    (line,) = over_budget("lora", {"needed": 1021, "flops": 1000.0}, budget)
    assert line.startswith("lora: needed grew from 1,000 to 1,021 (+2.1 %)") and COMMAND in line


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="rewrite budgets.json")
    write = parser.parse_args().write
    budgets = {name: measured(name) for name in TUNERS}
    text = json.dumps({"libtpu": importlib.metadata.version("libtpu"), "budgets": budgets}, indent=1) + "\n"
    print(text, end="")
    if write:
        FILE.write_text(text)


if __name__ == "__main__":
    main()
