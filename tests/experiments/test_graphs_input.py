"""Wrong input of the graphs command line: one line that says what was found and what was expected, and status 2."""

import sys

import numpy as np
import pytest

from experiments import command, graphs
from tests.data.graph_folders import OGB_NODES, ogb_files
from tests.experiments.graph_sets import graph_set, node_set


def error_of(monkeypatch, capsys, *argv):
    """Standard error of a command line that fails on wrong input."""
    monkeypatch.setattr(sys, "argv", ["graphs", *argv])
    with pytest.raises(SystemExit) as stop:
        command.run(graphs.main, graphs.Config, graphs.__doc__, "experiments.graphs")
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    return error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--dataset=citesear",), "--dataset: found 'citesear', expected a known name, or --data_dir with it; did you"),
        (("--dataset=cora",), "Error: --data_dir: --dataset=cora needs the folder that holds it, found none"),
        (("--dataset=cora", "--data_dir=/nowhere"), "Error: --data_dir: /nowhere: no such folder"),
        (("--epochs=0",), "Error: --epochs: found 0, expected at least 1"),
        (("--learning_rate_decay=1.5",), "Error: --learning_rate_decay: found 1.5, expected 0 < decay <= 1"),
        (("--metric=auc",), "Error: --metric: found 'auc', expected one of accuracy, f1, f1_micro, roc_auc, average_"),
        (("--metric=mae",), "Error: --metric=mae: found classes 0 to 9 (the last in row 9) as labels of digits"),
        (("--split=11",), "Error: --split=11: expected all, or numbers from 0 to 9 (digits)"),
        (("--split=0,1,0",), "Error: --split: found 0 twice, expected different ones"),
        (("--split=a",), "Error: --split=a: expected all, or numbers"),
        (("--method=gcn", "--pieces=3"), "Error: --pieces: --method=gcn has no such option; it takes --layers"),
        (("--recipe=paper",), "Error: --recipe=paper: Table S6 has no data set 'digits'"),
        (("--method=gat", "--recipe=paper"), "Error: --recipe=paper: --method=gat has none"),
        (("--synthetic_nodes=5",), "Error: --synthetic_nodes=5, --synthetic_edges=50"),
    ],
)
def test_wrong_flags(argv, message, tmp_path, monkeypatch, capsys):
    error = error_of(monkeypatch, capsys, f"--workdir={tmp_path}", *argv)
    assert message in error and error.count("\n") == 1, error


def test_an_unknown_method_names_the_known_ones(monkeypatch, capsys):
    error = error_of(monkeypatch, capsys, "--method=gnn")
    assert "--method" in error and "gcn" in error and "graphsage" in error


def nan_features():
    features = np.ones((48, 3), np.float32)
    features[7, 1] = np.nan
    return {"node_features": features}


def overlapping():
    masks = {f"{name}_masks": np.zeros((2, 48), bool) for name in ("train", "val", "test")}
    for i, mask in enumerate(masks.values()):
        mask[:, i : i + 10] = True
    return masks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (nan_features(), "tiny.npz: features of row 7 hold NaN or infinity"),
        (overlapping(), "tiny.npz: split 0: train and val share 9 indices, the first is 1"),
        ({"edges": np.array([[0, 1], [3, 48]])}, "tiny.npz: edge 1 is (3, 48); expected nodes 0 to 47"),
    ],
)
def test_wrong_files(changes, message, tmp_path, monkeypatch, capsys):
    folder = node_set(tmp_path / "data", **changes)
    error = error_of(monkeypatch, capsys, f"--data_dir={folder}", "--dataset=tiny", f"--workdir={tmp_path}/run")
    assert message in error and error.count("\n") == 1, error


@pytest.mark.parametrize(
    ("metric", "labels", "message"),
    [
        ("", "0,1\n1,\n,1\n0,0\n", "--metric=accuracy: found 2 columns of 0 and 1 as labels of mini, expected"),
        ("f1", "0,1\n1,\n,1\n0,0\n", "--metric=f1: found 2 columns of 0 and 1 as"),
        ("roc_auc", "0\n1\n2\n0\n", "--metric=roc_auc: found classes 0 to 2 (the last in row 2) as"),
        ("average_precision_micro", "0\n1\n2\n0\n", "--metric=average_precision_micro: found classes 0 to 2"),
        ("mae", "0\n1\nnan\n0\n", "--metric=mae: found 1 column of 0 and 1 as labels of mini, expected roc_auc or"),
        ("accuracy", "0\n1\n-1\n0\n", "node-label.csv: row 2 holds -1, expected a class (0, 1, 2, ...)"),
    ],
)
def test_a_metric_that_does_not_fit_the_labels(metric, labels, message, tmp_path, monkeypatch, capsys):
    folder = ogb_files(tmp_path / "mini", OGB_NODES, **{"raw/node-label.csv": labels})
    error = error_of(monkeypatch, capsys, f"--data_dir={folder}", f"--metric={metric}", f"--workdir={tmp_path}/run")
    assert message in error and error.count("\n") == 1, error


def test_a_folder_without_the_data_set(tmp_path, monkeypatch, capsys):
    folder = graph_set(tmp_path / "data")
    error = error_of(monkeypatch, capsys, f"--data_dir={folder}", "--dataset=proteins", f"--workdir={tmp_path}/run")
    assert "holds no 'PROTEINS' in a known layout, expected one of ind.PROTEINS.graph (Planetoid)" in error
    (folder / "tiny.npz").write_bytes(b"no archive")
    error = error_of(monkeypatch, capsys, f"--data_dir={folder}", "--dataset=tiny", f"--workdir={tmp_path}/run")
    assert "tiny.npz" in error and error.count("\n") == 1
