"""The outliers command line: methods side by side, what is kept, stopping and resuming, flags that reach the method."""

import csv
import dataclasses
import json
import signal

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from experiments import outlier_data, outlier_planning, outlier_runs, outliers, running, tables
from experiments.outlier_methods import METHODS, PAPER, concatenated, recipe_of
from jaxmodels.outliers.rcpmod import Options
from jaxmodels.training.fit import Interrupted
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.results import read_results
from jaxmodels.weights.files import read_arrays
from tests.experiments.view_sets import view_set

pytestmark = pytest.mark.usefixtures("unoptimised")

QUICK = outliers.Config(
    dataset="tiny", epochs=2, hidden=(6,), latent=3, batch_size=40, neighbours=3, negative=5, seeds=(1,), picture=False,
    evaluate_every=1, class_rate=0.1, both_rate=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return view_set(tmp_path_factory.mktemp("data"))


def run(workdir, folder, **flags):
    outliers.main(dataclasses.replace(QUICK, **(dict(workdir=workdir, data_dir=folder) | flags)))
    return read_results(workdir / "results.jsonl")


def test_rcpmod_stands_next_to_scikit_learns_detectors(tmp_path, folder, capsys):
    rows = run(tmp_path, folder, picture=True, seeds=(1, 2))
    assert [(row["method"], row["seed"]) for row in rows] == [(name, seed) for name in METHODS for seed in (1, 2)]
    printed = capsys.readouterr().out
    assert "57 normal" in printed and "3 attribute" in printed and "lack a view" in printed
    ours = [row["auc"] for row in rows[:2]]
    assert f"{np.mean(ours):.1f} ± {np.std(ours, ddof=1):.1f}" in printed
    (summary,) = tmp_path.glob("tiny-rcpmod-*/summary.png")
    assert summary.stat().st_size > 20_000
    problem = outlier_data.load(dataclasses.replace(QUICK, data_dir=folder))
    for row in rows:
        case = outlier_data.case_of(QUICK, problem, row["seed"])
        place = tmp_path / row["run"] / f"seed{row['seed']}" / "scores.csv"
        found = list(csv.DictReader(place.read_text().splitlines()))
        scores = {int(each["id"]): float(each["score"]) for each in found}
        values = [float(each["score"]) for each in found]
        assert values == sorted(values, reverse=True) and len(scores) == 72
        assert all(each["kind"] == case.kinds[case.kind[int(each["id"])]] for each in found)
        again = roc_auc_score(case.kind > 0, [scores[i] for i in range(72)])
        assert row["auc"] == pytest.approx(100 * again, abs=0.2) and set(row["kinds"]) == set(case.kinds[1:])
    trace = read_metrics(tmp_path / rows[0]["run"] / "seed1" / "metrics.jsonl")
    assert trace[-1]["auc"] == pytest.approx(rows[0]["auc"]) and [each["step"] for each in trace] == [2, 4]
    assert len(run(tmp_path, folder, resume=True, seeds=(1, 2))) == len(rows)  # finished: nothing is done again


def test_an_interrupted_run_goes_on_in_its_pair(tmp_path, monkeypatch):
    folder = view_set(tmp_path / "data", views=3)
    flags = dict(references=False, missing_rate=0.2)
    (whole,) = run(tmp_path / "whole", folder, **flags)
    seen = []

    def press(console, name, steps):
        seen.append(name)
        last = name.endswith("views 0 and 2")
        return lambda row: signal.raise_signal(signal.SIGINT) if last and row["step"] == 2 else None

    with monkeypatch.context() as patched:
        patched.setattr(tables, "progress", press)
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", folder, **flags)
        (inner,) = (tmp_path / "parts").glob("*/seed1")
        assert (inner / "pair0-1" / "autoencoders.safetensors").exists() and len(seen) == 2
        patched.setattr(tables, "progress", lambda console, name, steps: seen.append(name) or (lambda row: None))
        (parts,) = run(tmp_path / "parts", folder, **flags, resume=True)
    assert [name[-13:] for name in seen[2:]] == ["views 0 and 2", "views 1 and 2"]  # the first pair was read
    for name in ("auc", "kinds", "auc_error", "auc_contrast", "trained", "pairs"):
        assert parts[name] == whole[name]
    assert whole["pairs"] == 3


def test_data_may_lack_views_and_labels_of_their_own(tmp_path, capsys):
    tables_of = tmp_path / "mine"
    tables_of.mkdir()
    random = np.random.default_rng(0)
    for name, width in (("a", 3), ("b", 2)):
        lines = [",".join(f"{x:.3f}" for x in random.random(width)) for _ in range(60)]
        lines[7 if name == "a" else 9] = ""
        (tables_of / f"{name}.csv").write_text("\n".join(lines) + "\n")
    flags = dict(data_dir=tmp_path, dataset="mine", outliers="unknown", method="lof", references=False, picture=False)
    outliers.main(outliers.Config(workdir=tmp_path / "runs", seeds=(1,), **flags))
    (row,) = read_results(tmp_path / "runs" / "results.jsonl")
    printed = capsys.readouterr().out
    assert row["auc"] is None and row["kinds"] == {} and "Outliers are not known: scores alone" in printed
    (scores,) = (tmp_path / "runs").glob("mine-lof-*/seed1/scores.csv")
    lines = scores.read_text().splitlines()
    assert lines[0] == "id,score" and len(lines) == 61 and f"seed 1: {lines[1].split(',')[0]} (" in printed
    (tables_of / "labels.csv").write_text("\n".join("1" if i < 5 else "0" for i in range(60)) + "\n")
    labelled = dataclasses.replace(QUICK, data_dir=tables_of, dataset="", outliers="labelled")
    case = outlier_data.case_of(labelled, outlier_data.load(labelled), 0)
    assert np.flatnonzero(case.kind).tolist() == [0, 1, 2, 3, 4]
    assert case.mask.sum() == 118 and case.mask[7].tolist() == [0, 1]
    assert set(outlier_runs.judged(case, np.arange(60.0))["kinds"]) == {"outlier"}
    for normal, outlier in (("1", "-1"), ("0.0", "1.0"), ("normal", "Anomaly"), ("Inlier", "outlier"), ("no", "yes")):
        (tables_of / "labels.csv").write_text("\n".join(outlier if i < 5 else normal for i in range(60)) + "\n")
        again = outlier_data.case_of(labelled, outlier_data.load(labelled), 0)
        np.testing.assert_array_equal(again.kind, case.kind)
    (tables_of / "labels.csv").write_text("\n".join("1" if i < 5 else "2" for i in range(60)) + "\n")
    with pytest.raises(ValueError, match="mine has classes 1, 2, expected two of normal objects and outliers: 0 and 1"):
        outlier_data.load(labelled)


def test_what_a_seed_makes_of_the_data_is_the_published_protocol(folder):
    problem = outlier_data.load(dataclasses.replace(QUICK, data_dir=folder))
    one, same, other = (outlier_data.case_of(QUICK, problem, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.views[0], same.views[0])
    assert not np.array_equal(one.mask, other.mask) and np.bincount(one.kind).tolist() == [57, 6, 3, 6]
    assert (~one.mask.all(1)).mean() == pytest.approx(0.3, abs=0.02)
    more = outlier_data.case_of(dataclasses.replace(QUICK, missing_rate=0.6, attribute_rate=0.5), problem, 1)
    assert (~more.mask.all(1)).mean() == pytest.approx(0.6, abs=0.02) and (more.kind == 2).sum() == 36
    filled = concatenated(one.views, one.mask)
    lacking = np.flatnonzero(one.mask[:, 1] == 0)
    mean = one.views[1][one.mask[:, 1] > 0].mean(0)
    np.testing.assert_allclose(filled[lacking, 4:], np.repeat(mean[None], len(lacking), 0))


def test_the_digits_have_two_honest_views():
    problem = outlier_data.load(outliers.Config())
    pixels, fourier = problem.data.views
    assert pixels.shape == (1797, 64) and fourier.shape == (1797, 40) and "computed from them here" in problem.about
    shifted = np.abs(np.fft.rfft2(np.roll(pixels[5].reshape(8, 8), 3, 1))).ravel()
    np.testing.assert_allclose(shifted, fourier[5], atol=1e-9)
    np.testing.assert_allclose(fourier[:, 0], pixels.sum(1))
    assert np.bincount(outlier_data.case_of(outliers.Config(), problem, 1).kind).tolist() == [1532, 34, 89, 142]


def test_flags_reach_the_method_and_the_released_settings():
    flags = dict(temperature=0.7, contrast="plain", spread=("uniform",), schedule_epochs=0, refresh_neighbours=-1,
                 impute_from=-1, share=0.2, bank=3, compat=True, activation="tanh", error_weight=0.9)  # fmt: skip
    found = recipe_of(dataclasses.replace(QUICK, **flags), "tiny")
    assert (found.hidden, found.latent, found.epochs, found.activation, found.error_weight) == ((6,), 3, 2, "tanh", 0.9)
    expected = Options(
        neighbours=3, negative=5, temperature=0.7, contrast="plain", spread=("uniform",), share=0.2, bank=3,
        schedule_epochs=None, refresh_neighbours=None, impute_from=None, compat=True,
    )  # fmt: skip
    assert found.options == expected
    released = recipe_of(outliers.Config(recipe="paper", hidden=(256, 256)), "landuse21")
    assert (released.hidden, released.latent, released.epochs, released.error_weight) == ((256, 256), 64, 115, 0.6)
    assert PAPER["handwritten"].epochs == 50 and PAPER["handwritten"].error_weight == 0.7
    assert PAPER["scene15"].options.schedule_epochs == 400 and PAPER["scene15"].options.spreading_weight == 0.4
    assert PAPER["fashion"].latent == 256 and PAPER["fashion"].options.warmup_peak == 0.05
    assert all(recipe.options.compat for recipe in PAPER.values())


def test_every_flag_of_a_run_changes_its_folder(folder, tmp_path):
    problem = outlier_data.load(dataclasses.replace(QUICK, data_dir=folder))

    def place(method="rcpmod", **flags):
        config = dataclasses.replace(QUICK, data_dir=folder, workdir=tmp_path, **flags)
        return outlier_runs.method_folder(running.Setup(config, problem, Console(quiet=True), []), method)

    assert place() == place(seeds=(4,), mesh="data:8", resume=True)
    assert len({place(), place(epochs=3), place(missing_rate=0.1), place(contrast="none"), place("lof")}) == 5
    assert place("lof") == place("lof", epochs=7) != place("lof", attribute_rate=0.1)
    first, before = problem.data.views[0], place()
    problem = problem._replace(data=problem.data._replace(views=(first + 1, *problem.data.views[1:])))
    assert place() != before


def test_a_detector_of_the_host_is_not_planned(folder):
    config = dataclasses.replace(QUICK, data_dir=folder, method="lof", plan="v5e:2x2")
    with pytest.raises(ValueError, match="--plan: --method=lof runs on the host alone, expected rcpmod"):
        outlier_planning.run(config, outlier_data.load(config), Console(quiet=True))


@pytest.mark.slow
def test_a_step_is_planned_for_a_slice(folder, tmp_path, capsys):
    pytest.importorskip("libtpu", reason="needs the extra [plan]")
    file = tmp_path / "plan.json"
    config = dataclasses.replace(QUICK, data_dir=folder, plan="v5e:2x2", plan_out=file, plan_steps="train")
    outlier_planning.run(config, outlier_data.load(config), Console())
    assert "rcpmod on 72 objects, views of 4 and 4 features, 40 rows a step, v5e:2x2" in capsys.readouterr().out
    plan = json.loads(file.read_text())["train"]
    weights = sum(2 * d * 6 + d + 6 + 2 * 18 + 9 for d in (4, 4))  # and biases, of two autoencoders D-6-3-6-D
    assert plan["devices"] == 4 and plan["fits"] and plan["trained"] == weights


def test_saved_autoencoders_are_those_that_scored(tmp_path, folder):
    (row,) = run(tmp_path, folder, references=False)
    arrays = read_arrays(tmp_path / row["run"] / "seed1" / "autoencoders.safetensors")
    assert sum(x.size for name, x in arrays.items() if "/params/" in name) == row["trained"]
    assert {f"scores/{name}" for name in ("total", "error", "contrast")} < set(arrays)
    assert row["settings"]["options"]["negative"] == 5 and row["auc_error"] != row["auc_contrast"]
