"""The graphs command line: every network runs, results are kept, runs stop and resume, a mesh changes nothing."""

import dataclasses
import json
import signal

import numpy as np
import pytest

from experiments import (
    graph_data,
    graph_folds,
    graph_judging,
    graph_methods,
    graph_picture,
    graph_runs,
    graphs,
    running,
    tables,
)
from experiments.graph_methods import METHODS, PAPER
from jaxmodels.data.graph_files import Split
from jaxmodels.graphs.graph import batch_graphs
from jaxmodels.training.fit import Interrupted
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.results import read_results
from jaxmodels.weights.files import read_arrays
from tests.data.graph_folders import OGB_NODES, ogb_files
from tests.experiments.graph_sets import graph_set, node_set

pytestmark = pytest.mark.usefixtures("unoptimised")

N2 = dict(method="n2", layers=2, width=8, state_width=8, pieces=2, pseudo_nodes=4)
QUICK = graphs.Config(method="gcn", epochs=3, seeds=(0,), references=False, picture=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return graph_set(node_set(tmp_path_factory.mktemp("data")))


def run(workdir, folder, **flags):
    graphs.main(dataclasses.replace(QUICK, workdir=workdir, **(dict(dataset="tiny", data_dir=folder) | flags)))
    return read_results(workdir / "results.jsonl")


@pytest.mark.parametrize(
    ("metric", "classes", "shown"),
    [
        ("", 2, "ROC-AUC"),
        ("accuracy", 2, "accuracy"),
        ("average_precision", 2, "average precision"),
        ("f1", 3, "macro F1"),
        ("f1_micro", 3, "micro F1"),
    ],
)
def test_the_metric_that_is_asked_for_is_reported(metric, classes, shown, tmp_path, capsys):
    (row,) = run(tmp_path, node_set(tmp_path / "data", classes=classes), metric=metric, epochs=1)
    assert row["metric"] == (metric or "roc_auc") and f"tiny: {shown}, %" in capsys.readouterr().out
    assert 0 <= row["test"] <= 100


@pytest.mark.parametrize(
    ("metric", "labels"), [("average_precision_micro", lambda i: f"{i % 2},{i // 2 % 2}"), ("mae", lambda i: i / 10)]
)
def test_folders_of_ogb_hold_tasks_or_numbers(metric, labels, tmp_path):
    text = "".join(f"{labels(i)}\n" for i in range(12))
    sizes = {"raw/num-node-list.csv": "12\n", "raw/node-feat.csv": "0.5,1\n1.5,0\n" * 6, "raw/node-label.csv": text}
    parts = {f"split/time/{part}.csv": f"{i}\n{i + 1}\n{i + 2}\n{i + 3}\n" for i, part in ((0, "train"), (4, "valid"),
             (8, "test"))}  # fmt: skip
    place = ogb_files(tmp_path / "mini", OGB_NODES, **sizes, **parts)
    (row,) = run(tmp_path, place, dataset="", metric=metric, epochs=1)
    assert row["metric"] == metric and np.isfinite(row["test"])


def rows_of(workdir, row):
    return read_metrics(workdir / row["run"] / f"split{row['split']}-seed{row['seed']}" / "metrics.jsonl")


def test_n2_stands_next_to_every_network_and_is_drawn(tmp_path, folder, capsys):
    rows = run(tmp_path, folder, **N2, references=True, picture=True)
    assert [row["method"] for row in rows] == list(METHODS)
    printed = capsys.readouterr().out
    assert all(name in printed for name in METHODS) and "48 nodes, 3 features" in printed and "2 + 0" in printed
    for row in rows:
        assert 0 <= row["test"] <= 100 and row["epochs"] == 3 and row["level"] == "node" and row["metric"] == "accuracy"
        assert (row["programs_first"], row["programs_later"]) == (2, 0)
    (summary,) = tmp_path.glob("tiny-n2-*/summary.png")
    assert summary.stat().st_size > 30_000
    setup = running.Setup(
        dataclasses.replace(QUICK, **N2, workdir=tmp_path, dataset="tiny", data_dir=folder),
        graph_data.load(dataclasses.replace(QUICK, dataset="tiny", data_dir=folder)), None, [],
    )  # fmt: skip
    q, r, psi = graph_picture.space(setup, 0, 0)
    assert q.shape == (48, 8) and r.shape == (4, 8) and psi.shape == (48, 4)
    # The drawn pseudo node is what the proximity sees, up to one positive factor: no clip at this size.
    ratio = psi / (q @ r.T)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)


def test_graphs_come_in_few_programs(tmp_path, folder):
    flags = dict(method="gin", dataset="MUTAG", batch_size=8, buckets=2, epochs=4, width=8, layers=1)
    (row,) = run(tmp_path, folder, **flags)
    assert row["dataset"] == "mutag" and row["level"] == "graph" and row["trained"] < 1000
    assert 2 <= row["programs_first"] + row["programs_later"] <= 4 and 0 < row["padding"] < 0.5
    found = rows_of(tmp_path, row)
    assert sum(each["programs"] for each in found) == row["programs_first"] + row["programs_later"]
    assert [each["step"] for each in found] == [4, 8, 12, 16]  # 32 graphs train, 4 choose, 4 are reported


@pytest.mark.slow
def test_nodes_may_train_in_parts(tmp_path, folder):
    (row,) = run(tmp_path, folder, parts=2)
    assert [each["step"] for each in rows_of(tmp_path, row)] == [2, 4, 6] and row["programs_later"] == 0
    assert row["settings"]["warmup"] == 2
    with pytest.raises(ValueError, match="--parts=2: mutag has many graphs, expected --batch_size"):
        run(tmp_path, folder, parts=2, dataset="MUTAG")


def test_n2_classifies_graphs(tmp_path, folder):
    flags = N2 | dict(dataset="mutag", batch_size=40, buckets=1, epochs=2)
    (row,) = run(tmp_path, folder, **flags)
    assert row["programs_first"] == 2 and row["programs_later"] == 0 and row["settings"]["batch_size"] == 40


def test_a_fold_without_validation_data_chooses_on_its_training_part(folder):
    problem = graph_data.load(dataclasses.replace(QUICK, dataset="mutag", data_dir=folder))
    setup = running.Setup(QUICK, problem, None, [])
    held = graph_runs.parts_of(setup, 3)
    assert len(held.val) == 4 and len(held.train) == 32 and held.test.tolist() == [12, 13, 14, 15]
    assert not set(held.val) & (set(held.train) | set(held.test)) and problem.labels[held.val].sum() == 2
    setup = setup._replace(config=dataclasses.replace(QUICK, protocol="official"))
    official = graph_runs.parts_of(setup, 3)
    assert official.val.tolist() == official.test.tolist() and len(official.train) == 36


def test_folds_share_the_epoch_of_the_best_mean(tmp_path, folder, capsys):
    flags = dict(method="mlp", dataset="mutag", split="0,1,2", epochs=6, patience=6, learning_rate=0.1, width=8)
    rows = run(tmp_path, folder, **flags, protocol="official")
    curves = np.array([[each["val_accuracy"] for each in rows_of(tmp_path, row)] for row in rows])
    best = int(curves.mean(0).argmax())
    mean, deviation = 100 * curves[:, best].mean(), 100 * curves[:, best].std(ddof=1)
    assert curves.shape == (3, 6) and np.ptp(curves.mean(0)) > 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"(GIN's protocol): mlp {mean:.1f} ± {deviation:.1f} (epoch {best + 1})." in printed
    run(tmp_path / "held", folder, **flags)
    run(tmp_path / "seeds", folder, **flags | dict(split="0", seeds=(0, 1)), protocol="official")
    # Neither where the folds have validation graphs of their own, nor for seeds of a single one.
    assert "GIN's protocol" not in capsys.readouterr().out


def test_the_released_test_is_on_every_graph(tmp_path, folder, capsys):
    flags = dict(method="mlp", dataset="mutag", split="0,1", epochs=4, learning_rate=0.1, width=8, protocol="official")
    rows = run(tmp_path, folder, **flags)
    setup = running.Setup(
        dataclasses.replace(QUICK, **flags, data_dir=folder, workdir=tmp_path),
        graph_data.load(dataclasses.replace(QUICK, dataset="mutag", data_dir=folder)), None, [],
    )  # fmt: skip
    labels, scores = setup.problem.labels, []
    settings = graph_runs.settings_of(setup.config, "mlp", setup.problem)
    module = graph_methods.build("mlp", settings.options, outputs=2, level="graph", task="single")
    for row in rows:
        best = graph_judging.Judge.read(graph_runs.run_folder(setup, "mlp", row["split"], 0))
        outputs = module.apply({"params": best["params"]}, batch_graphs(setup.problem.graphs))[: len(labels)]
        scores.append(100 * (np.asarray(outputs).argmax(-1) == labels).mean())
    assert [row["all"] for row in rows] == pytest.approx(scores) and len(labels) == 40
    printed = " ".join(capsys.readouterr().out.split())
    expected = f"mlp {np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}."
    assert f"training ones included, as N2's released code tests: {expected}" in printed
    (held,) = run(tmp_path / "held", folder, **flags | dict(split="0", protocol="heldout"))
    assert held["all"] is None and "released code" not in capsys.readouterr().out


def test_the_common_epoch_is_one_that_all_folds_have_reached():
    assert graph_folds.common_epoch([[0.5, 0.7, 1.0], [0.9, 0.8]]) == (1, [0.7, 0.8])
    assert graph_folds.common_epoch([[0.5, 0.7], [0.9, 0.7]]) == (0, [0.5, 0.9])  # a tie: the earlier one
    assert graph_folds.common_epoch([[2.0, 1.0, 3.0], [2.0, 2.0, 3.0]], less_is_better=True) == (1, [1.0, 2.0])


def test_several_splits_and_seeds_give_mean_and_deviation(tmp_path, folder, capsys):
    rows = run(tmp_path, folder, method="mlp", split="all", seeds=(0, 1), learning_rate=0.011)
    assert [(row["split"], row["seed"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    values = [row["test"] for row in rows]
    assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in capsys.readouterr().out
    assert [row["programs_first"] for row in rows] == [2, 0, 0, 0]  # shared by splits and seeds


def test_a_run_ends_when_the_validation_loss_has_not_fallen(tmp_path, folder):
    (row,) = run(tmp_path, folder, method="mlp", epochs=200, patience=4, learning_rate=0.3, dropout=0.0)
    losses = [each["val_loss"] for each in rows_of(tmp_path, row)]
    best = int(np.argmin(losses))
    assert row["epochs"] == len(losses) == best + 5 < 200 and row["epoch"] == best + 1
    assert row["val_loss"] == losses[best]
    parameters = read_arrays(tmp_path / row["run"] / "split0-seed0" / "best.safetensors")
    assert sum(leaf.size for leaf in parameters.values()) == row["trained"]


def test_the_learning_rate_falls_after_every_step(tmp_path, folder):
    flags = dict(method="mlp", epochs=12, learning_rate=0.05, dropout=0.0)
    changes = []
    for decay in (1.0, 0.1):
        (row,) = run(tmp_path / str(decay), folder, **flags, learning_rate_decay=decay)
        losses = [each["val_loss"] for each in rows_of(tmp_path / str(decay), row)]
        changes.append(np.abs(np.diff(losses))[3:].mean())
    assert 0 < changes[1] < 0.01 * changes[0]
    config = dataclasses.replace(QUICK, method="n2", learning_rate_decay=0.1)
    assert graph_runs.for_method(config, "gcn").learning_rate_decay == 1.0  # the references keep theirs


def test_what_is_reported_is_the_test_value_where_validation_is_best(tmp_path, folder):
    flags = dict(method="mlp", epochs=30, learning_rate=0.05)
    for select, key, sign in (("loss", "val_loss", -1), ("metric", "val_accuracy", 1)):
        (row,) = run(tmp_path / select, folder, **flags, select=select)
        found = rows_of(tmp_path / select, row)
        best = max(range(len(found)), key=lambda i: sign * found[i][key])
        assert row["epoch"] == best + 1 and row["test"] == pytest.approx(100 * found[best]["test_accuracy"])


def test_an_interrupted_run_resumes_to_the_same_result(tmp_path, folder, monkeypatch):
    flags = dict(method="mlp", epochs=8)
    (whole,) = run(tmp_path / "whole", folder, **flags)

    def press(*_):
        return lambda row: signal.raise_signal(signal.SIGINT) if row["step"] == 3 else None

    with monkeypatch.context() as patched:
        patched.setattr(tables, "progress", press)
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", folder, **flags)
    (parts,) = run(tmp_path / "parts", folder, **flags, resume=True)
    for name in ("test", "val", "val_loss", "epoch", "epochs"):
        assert parts[name] == whole[name]
    assert len(run(tmp_path / "parts", folder, **flags, resume=True)) == 1  # finished: nothing is done again


def test_a_mesh_changes_no_result(tmp_path, folder):
    losses = []
    for mesh in ("", "data:8"):
        (row,) = run(tmp_path / f"mesh{len(mesh)}", folder, mesh=mesh, dropout=0.1)
        losses.append([each["val_loss"] for each in rows_of(tmp_path / f"mesh{len(mesh)}", row)])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_evaluations_may_be_rarer_than_epochs(tmp_path, folder):
    (row,) = run(tmp_path, folder, method="mlp", epochs=5, evaluate_every=2)
    assert [each["step"] for each in rows_of(tmp_path, row)] == [2, 4, 5] and row["epochs"] == 5


def test_flags_reach_the_network(folder):
    problem = graph_data.load(dataclasses.replace(QUICK, dataset="tiny", data_dir=folder))

    def built(name, **flags):
        config = dataclasses.replace(QUICK, method=name, **flags)
        settings = graph_runs.settings_of(config, name, problem)
        return graph_runs.built(name, json.dumps(settings._asdict()), 3, "node", "single", "plain").module, settings

    n2, settings = built("n2", **{k: v for k, v in N2.items() if k != "method"}, dense=True, own_steps=True, remat=True,
                         without=("local", "messages"), pathway="uniform", dropout=0.2, input_dropout=0.7)  # fmt: skip
    assert (n2.steps, n2.width, n2.state_width, n2.pieces, n2.pseudo_nodes) == (2, 8, 8, 2, 4)
    assert (n2.dropout, n2.input_dropout) == (0.2, 0.7)
    assert n2.dense and not n2.shared and n2.remat and n2.pathway == "uniform" and not n2.linear_order
    assert (n2.local, n2.messages, n2.adaptation, n2.exchange) == (False, False, True, True)
    assert (settings.learning_rate, settings.weight_decay, settings.epochs) == (1e-3, 1e-6, 3)
    gat, settings = built("gat", heads=2, width=6, residual=True, input_dropout=0.8, learning_rate=0.5,
                          weight_decay=0.0, patience=7)  # fmt: skip
    assert (gat.kind, gat.heads, gat.width, gat.residual, gat.input_dropout) == ("gat", 2, 6, True, 0.8)
    assert (settings.learning_rate, settings.weight_decay, settings.patience) == (0.5, 0.0, 7)
    assert built("n2", linear_order=True)[0].linear_order and built("gin", pool="mean")[0].pool == "mean"


def test_the_papers_settings_are_table_s6(folder):
    problem = graph_data.load(dataclasses.replace(QUICK, dataset="tiny", data_dir=folder))
    config = dataclasses.replace(QUICK, method="n2", recipe="paper", epochs=None)
    found = graph_runs.settings_of(config, "n2", problem._replace(name="minesweeper"))
    options = dict(steps=7, width=64, state_width=64, pieces=8, pseudo_nodes=128, dropout=0.3)
    assert found == (options, 1e-3, 1.0, 1e-6, 1000, 300, 32, 1)
    found = graph_runs.settings_of(config, "n2", problem._replace(name="nci1", level="graph"))
    assert found.options["state_width"] == 128 and (found.batch_size, found.warmup) == (256, 256)
    shorter = graph_runs.settings_of(
        dataclasses.replace(config, epochs=9, layers=2), "n2", problem._replace(name="nci1")
    )
    assert shorter.epochs == 9 and shorter.options["steps"] == 2
    assert len(PAPER) == 18
    assert graph_runs.settings_of(config, "gcn", problem).learning_rate == METHODS["gcn"].learning_rate


def test_the_bundled_graph_is_real_digits_with_few_labels():
    problem = graph_data.load(graphs.Config())
    assert problem.name == "digits" and len(problem.labels) == 1797 and "real scanned digits" in problem.about
    split: Split = problem.splits[0]
    assert np.bincount(problem.labels[split.train]).tolist() == [5] * 10 and len(split.val) == 200
    assert sum(map(len, split)) == 1797 and not set(split.train) & set(split.test)
    graph = problem.graphs[0]
    assert (problem.labels[graph.senders] == problem.labels[graph.receivers]).mean() > 0.9


def test_losses_and_normalised_rows():
    logits = np.array([[0.0, 2.0], [1.0, -1.0]])
    labels = np.array([[1.0, np.nan], [0.0, 1.0]])
    expected = np.mean([np.log(2.0), np.log1p(np.exp(1.0)), np.log1p(np.exp(1.0))])
    assert graph_judging.loss_of("multilabel", labels, logits) == pytest.approx(expected)
    single = graph_judging.loss_of("single", np.array([1, 0]), np.log([[0.5, 0.5], [0.25, 0.75]]))
    assert single == pytest.approx(-np.log(0.5 * 0.25) / 2)
    synthetic = graph_data.synthetic(100, 300, features=4)
    rows = graph_data.row_normalised(synthetic.graphs[0])
    np.testing.assert_allclose(np.abs(rows.nodes).sum(1), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_a_large_graph_trains_on_a_cpu(tmp_path):
    config = dataclasses.replace(
        QUICK, **N2, synthetic_nodes=20_000, synthetic_edges=200_000, synthetic_features=8, epochs=2, remat=True,
        linear_order=True, workdir=tmp_path,
    )  # fmt: skip
    graphs.main(config)
    (row,) = read_results(tmp_path / "results.jsonl")
    assert row["dataset"] == "synthetic" and row["peak_bytes"] < 4 * 1024**3 and np.isfinite(row["val_loss"])
