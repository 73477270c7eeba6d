"""Wrong input of the outliers command line: one line that says what was found and what was expected, and status 2."""

import sys

import numpy as np
import pytest

from experiments import command, outliers
from tests.experiments.view_sets import view_set


def error_of(monkeypatch, capsys, *argv):
    """Standard error of a command line that fails on wrong input."""
    monkeypatch.setattr(sys, "argv", ["outliers", *argv])
    with pytest.raises(SystemExit) as stop:
        command.run(outliers.main, outliers.Config, outliers.__doc__, "experiments.outliers")
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    return error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("--dataset=landuse12",),
            "--dataset: found 'landuse12', expected a known name, or --data_dir with it; did",
        ),
        (("--dataset=landuse21",), "Error: --data_dir: --dataset=landuse21 needs the folder that holds it, found none"),
        (("--data_dir=/nowhere",), "Error: --data_dir: /nowhere: no such file or folder"),
        (("--epochs=0",), "Error: --epochs: found 0, expected at least 1"),
        (("--batch_size=1",), "Error: --batch_size: found 1, expected at least 2"),
        (("--hidden", "0"), "Error: --hidden: found (0,), expected at least 1"),
        (("--missing_rate=1.5",), "Error: --missing_rate: found 1.5, expected 0 to 1"),
        (("--class_rate=-0.1",), "Error: --class_rate: found -0.1, expected 0 to 1"),
        (("--attribute_rate=1",), "outliers asked for"),
        (("--views", "0", "2"), "Error: --views: found 2, expected some of 0 to 1 (digits)"),
        (("--views", "1"), "Error: --views: found 1, expected at least two different ones"),
        (("--recipe=paper",), "Error: --recipe=paper: nothing was released for 'digits'"),
        (("--method=lof", "--bank=3"), "Error: --bank: --method=lof has no such option, only rcpmod has"),
        (("--outliers=labelled",), "Error: --outliers=labelled: digits has 10 classes, expected two of normal objects"),
        (("--neighbours=2000",), "the neighbours asked for (neighbours)"),
        (("--negative=2000",), "the rank of the triplet's negatives (negative)"),
        (("--temperature=0",), "Error: temperature: found 0.0, expected more than 0"),
        (("--schedule_epochs=50",), "Error: schedule_epochs: found 50, expected more than the 100 of the warm-up"),
        (("--bank=0",), "Error: bank: found 0, expected at least 1"),
    ],
)
def test_wrong_flags(argv, message, tmp_path, monkeypatch, capsys):
    error = error_of(monkeypatch, capsys, f"--workdir={tmp_path}", *argv)
    assert message in error and error.count("\n") == 1, error


def test_a_planned_batch_that_the_slice_does_not_divide(tmp_path, monkeypatch, capsys):
    pytest.importorskip("libtpu", reason="needs the extra [plan]")
    error = error_of(monkeypatch, capsys, f"--workdir={tmp_path}", "--plan=v5e:4x4", "--batch_size=100")
    assert error == "Error: --batch_size=100: expected a multiple of data x fsdp = 16\n"


def test_an_unknown_method_names_the_known_ones(monkeypatch, capsys):
    error = error_of(monkeypatch, capsys, "--method=pca")
    assert "--method" in error and "rcpmod" in error and "iforest" in error


def test_wrong_files(tmp_path, monkeypatch, capsys):
    folder = view_set(tmp_path / "data")
    at = (f"--data_dir={folder}", f"--workdir={tmp_path}/runs")
    assert "holds no 'scene15', expected scene15.mat, scene15.npz or" in error_of(
        monkeypatch, capsys, *at, "--dataset=scene15"
    )
    views = {"view_0": np.ones((60, 2)), "view_1": np.ones((60, 3))}
    for name, arrays, message in (
        ("few", {"view_0": np.ones((30, 2)), "view_1": np.ones((30, 3)), "labels": np.arange(30) % 2}, "more than 50"),
        ("bare", views, "--outliers=inject: bare has no classes, expected --outliers=unknown"),
        ("gone", views | {"view_1": np.full((60, 3), np.nan)}, "view 1: all 60 objects lack it"),
        ("alone", {"view_0": np.ones((60, 2))}, "--views: found 0, expected at least two different ones"),
    ):
        np.savez(folder / f"{name}.npz", **arrays)
        error = error_of(monkeypatch, capsys, *at, f"--dataset={name}")
        assert message in error and error.count("\n") == 1, error
    (folder / "empty").mkdir()
    (folder / "empty" / "a.csv").write_text("")
    error = error_of(monkeypatch, capsys, *at, "--dataset=empty")
    assert "a.csv: found no rows, expected one per object" in error and error.count("\n") == 1
