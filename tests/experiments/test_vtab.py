"""The main command line: every method runs, results are kept, runs resume, wrong input is one line."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from PIL import Image

from experiments import adapting, command, runs, tables, vtab
from experiments.methods import METHODS
from jaxmodels.training.fit import Interrupted
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.results import read_results
from jaxmodels.tuning.tuner_file import read_header

QUICK = vtab.Config(tasks="digits", steps=2, batch_size=32, references=False)


def quick(tmp_path, **flags):
    return dataclasses.replace(QUICK, workdir=tmp_path, **flags)


def exit_of(monkeypatch, capsys, *argv):
    """Exit status and standard error of a command line."""
    monkeypatch.setattr(sys, "argv", ["vtab", *argv])
    with pytest.raises(SystemExit) as stop:
        command.run(vtab.main, vtab.Config, vtab.__doc__, "experiments.vtab")
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_tests_and_saves(name, tmp_path):
    vtab.main(quick(tmp_path, method=name))
    (row,) = read_results(tmp_path / "results.jsonl")
    assert row["method"] == name and 0 <= row["accuracy"] <= 100 and row["trained"] > 900 and row["real"]
    folder = tmp_path / row["run"] / "digits-seed0"
    header = read_header(folder / "tuner.safetensors")
    assert header["task"]["num_classes"] == 10 and header["task"]["normalisation"] == "inception"
    assert [r["step"] for r in read_metrics(folder / "metrics.jsonl")] == [1, 2]
    assert json.loads((folder / "config.json").read_text())["flags"]["method"] == name
    assert (tmp_path / row["run"] / "summary.png").stat().st_size > 10_000


def test_references_are_trained_once(tmp_path, capsys):
    config = quick(tmp_path, method="bitfit", references=True)
    vtab.main(config)
    capsys.readouterr()
    vtab.main(config)
    assert [row["method"] for row in read_results(tmp_path / "results.jsonl")] == ["linear", "full", "bitfit", "bitfit"]
    printed = capsys.readouterr().out
    assert "Top-1 accuracy" in printed and "bitfit on digits" in printed and "full on digits" not in printed


def test_resume_skips_what_is_finished(tmp_path):
    config = quick(tmp_path, method="linear", tasks="digits,tissue")
    vtab.main(config)
    vtab.main(dataclasses.replace(config, resume=True))
    assert len(read_results(tmp_path / "results.jsonl")) == 2


def test_an_interrupted_run_resumes_to_the_same_result(tmp_path, monkeypatch):
    config = quick(tmp_path, method="linear", steps=6)
    vtab.main(dataclasses.replace(config, workdir=tmp_path / "whole"))

    def press(*_):
        def log(row):
            if row["step"] == 3:
                import signal

                signal.raise_signal(signal.SIGINT)

        return log

    with monkeypatch.context() as patched:
        patched.setattr(tables, "progress", press)
        with pytest.raises(Interrupted):
            vtab.main(dataclasses.replace(config, workdir=tmp_path / "parts"))
    vtab.main(dataclasses.replace(config, workdir=tmp_path / "parts", resume=True))
    accuracies = [read_results(tmp_path / name / "results.jsonl")[0]["accuracy"] for name in ("whole", "parts")]
    assert accuracies[0] == accuracies[1]


def test_ctrl_c_says_how_to_resume(tmp_path, monkeypatch, capsys):
    def stop(config):
        raise Interrupted(7, saved=True)

    monkeypatch.setattr(sys, "argv", ["vtab", "--method=lora", f"--workdir={tmp_path}"])
    with pytest.raises(SystemExit) as status:
        command.run(stop, vtab.Config, vtab.__doc__, "experiments.vtab")
    assert status.value.code == 130
    expected = f"Resume with: python -m experiments.vtab --method=lora --workdir={tmp_path} --resume"
    assert expected in capsys.readouterr().err


def test_several_seeds_give_mean_and_deviation(tmp_path, capsys):
    vtab.main(quick(tmp_path, method="linear", seeds=(0, 1)))
    rows = read_results(tmp_path / "results.jsonl")
    assert [row["seed"] for row in rows] == [0, 1]
    mean, deviation = np.mean([r["accuracy"] for r in rows]), np.std([r["accuracy"] for r in rows], ddof=1)
    assert f"{mean:.1f} ± {deviation:.1f}" in capsys.readouterr().out


def test_a_mesh_changes_no_result(tmp_path):
    rows = []
    for mesh in ("", "data:4,fsdp:2"):
        vtab.main(quick(tmp_path / f"mesh{len(mesh)}", method="linear", steps=10, mesh=mesh))
        rows += read_results(tmp_path / f"mesh{len(mesh)}" / "results.jsonl")
    assert rows[0]["accuracy"] == pytest.approx(rows[1]["accuracy"], abs=0.2)


def test_several_rates_are_compared_on_the_validation_images(tmp_path):
    config = quick(tmp_path, method="linear", steps=20, learning_rate=(1e-9, 1e-2))
    vtab.main(config)
    (row,) = read_results(tmp_path / "results.jsonl")
    assert row["settings"]["recipe"]["lr"] == 1e-2
    folder = tmp_path / row["run"] / "digits-seed0"
    tried = [read_results(f"{folder}-candidate{i}/result.jsonl")[0] for i in range(2)]
    assert tried[0]["accuracy"] < tried[1]["accuracy"]


@pytest.mark.parametrize(("select", "metric"), [("best_val", "val_accuracy"), ("best_test", "test_accuracy")])
def test_model_selection(select, metric, tmp_path):
    config = quick(tmp_path, method="linear", steps=None, epochs=4, select=select)
    vtab.main(config)
    (row,) = read_results(tmp_path / "results.jsonl")
    rows = read_metrics(tmp_path / row["run"] / "digits-seed0" / "metrics.jsonl")
    judged = [r for r in rows if r.get(metric) is not None]
    best = max(judged, key=lambda r: r[metric])
    assert len(judged) >= 4 and row["accuracy"] == pytest.approx(100 * best["test_accuracy"])
    assert row["select"] == select


def test_flags_reach_the_tuner(tmp_path):
    for flags, trained in (({"rank": 1}, 1), ({"rank": 3}, 3)):
        vtab.main(quick(tmp_path, method="lora", **flags))
        row = read_results(tmp_path / "results.jsonl")[-1]
        assert row["trained"] == 4 * 3 * 2 * 96 * trained + 97 * 10


def test_a_recipe_replaces_the_flags():
    setup = runs.Setup(vtab.Config(method="ssf", recipe="ssf"), None, None, "", [], None, [])
    task = type("Task", (), {"name": "svhn", "train": range(800)})()
    (recipe,) = adapting.candidates(setup, "ssf", task)
    assert (recipe.lr, recipe.weight_decay) == (1e-2, 5e-5)
    (reference,) = adapting.candidates(setup, "linear", task)
    assert reference.lr == METHODS["linear"].learning_rate


def class_folders(folder, classes=("cats", "dogs"), images=6):
    random = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(images):
            Image.fromarray(random.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_a_persons_own_folder(tmp_path):
    folder = class_folders(tmp_path / "pets")
    vtab.main(quick(tmp_path / "run", method="linear", tasks="", data="folder", data_dir=folder, batch_size=4))
    (row,) = read_results(tmp_path / "run" / "results.jsonl")
    assert row["task"] == "pets" and row["data"] == "folder"
    assert read_header(tmp_path / "run" / row["run"] / "pets-seed0" / "tuner.safetensors")["task"]["class_names"] == [
        "cats",
        "dogs",
    ]


def test_wrong_flags(tmp_path, monkeypatch, capsys):
    def status(*argv):
        return exit_of(monkeypatch, capsys, f"--workdir={tmp_path}", *argv)

    code, error = status("--method=lorra")
    assert code == 2 and "lora" in error and "res_tuning" in error
    for argv, message in [
        (("--steps=0",), "Error: --steps: found 0, expected at least 1"),
        (("--batch_size=5000", "--tasks=digits"), "Error: --batch_size=5000: expected 1 to 800"),
        (("--data=vtab1k",), "Error: --data_dir: --data=vtab1k needs the folder that holds it, found none"),
        (("--data=folder", f"--data_dir={tmp_path}/nowhere"), "nowhere"),
        (("--tasks=digts",), "digits"),
        (("--backbone=b16",), "Error: --weights: --backbone=b16 needs a checkpoint"),
        (("--weights=/nowhere/vit.npz",), "/nowhere/vit.npz"),
        (("--method=ssf", "--rank=3"), "Error: --rank: --method=ssf has no such option"),
        (("--recipe=snell", "--tasks=digits", "--method=snell"), "Error: --recipe=snell: nothing is published"),
    ]:
        code, error = status(*argv)
        assert code == 2 and message in error and error.count("\n") == 1, error


def test_wrong_files(tmp_path, monkeypatch, capsys):
    truncated = tmp_path / "vit.safetensors"
    truncated.write_bytes(vtab.MINI_WEIGHTS.read_bytes()[:5000])
    code, error = exit_of(monkeypatch, capsys, f"--weights={truncated}")
    assert code == 2 and "vit.safetensors" in error and error.count("\n") == 1
    folder = class_folders(tmp_path / "pets")
    (folder / "cats" / "0.png").write_text("no image")
    flags = ("--data=folder", f"--data_dir={folder}", "--method=linear", "--steps=2", f"--workdir={tmp_path}/run")
    code, error = exit_of(monkeypatch, capsys, *flags)
    assert code == 2 and "0.png" in error and error.count("\n") == 1
    lonely = class_folders(tmp_path / "lonely", images=1)
    code, error = exit_of(monkeypatch, capsys, *flags[:1], f"--data_dir={lonely}", *flags[2:])
    assert code == 2 and "lonely" in error and error.count("\n") == 1
