"""The recommendation command line: the best epoch is reported, runs stop and resume, a mesh changes nothing."""

import dataclasses
import signal

import numpy as np
import pytest
from rich.console import Console

from experiments import (
    recommendation,
    recommendation_data,
    recommendation_methods,
    recommendation_planning,
    recommendation_runs,
    running,
    tables,
)
from experiments.recommendation_judging import Measure
from experiments.recommendation_methods import METHODS, passes
from jaxmodels.data.interactions import Divided
from jaxmodels.recommendation.model_file import load_recommender
from jaxmodels.recommendation.recommend import recommend
from jaxmodels.training.fit import Interrupted
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.results import read_results
from tests.experiments.recommendation_sets import ratings_csv, users_dat

pytestmark = pytest.mark.usefixtures("unoptimised")

QUICK = recommendation.Config(
    method="hars", dataset="tiny", epochs=3, dim=4, batch_size=32, references=False, picture=False, select="mrr",
    learning_rate=0.05, at=(1, 2), chunk=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ratings_csv(users_dat(tmp_path_factory.mktemp("data")))


def run(workdir, folder, **flags):
    recommendation.main(dataclasses.replace(QUICK, workdir=workdir, data_dir=folder, **flags))
    return read_results(workdir / "results.jsonl")


def rows_of(workdir, row):
    return read_metrics(workdir / row["run"] / f"seed{row['seed']}" / "metrics.jsonl")


def setup_of(folder, **flags):
    config = recommendation.settled(dataclasses.replace(QUICK, data_dir=folder, **flags), embedded=False)
    return running.Setup(config, recommendation_data.load(config), Console(quiet=True), [])


def test_dpcml_is_trained_tested_saved_and_drawn(tmp_path, folder, capsys):
    (row,) = run(tmp_path, folder, method="dpcml", vectors=2, negatives=3, picture=True, epochs=12)
    printed = capsys.readouterr().out
    assert "dpcml2" in printed and "24 users, 30 items" in printed and "MaxDiv@2" in printed
    found = rows_of(tmp_path, row)
    best = int(np.argmax([each["val_mrr"] for each in found]))
    assert row["method"] == "dpcml2" and row["epochs"] == len(found) == 12 and row["epoch"] == best + 1
    assert row["val"]["mrr"] == found[best]["val_mrr"] and found[-1]["loss"] < 0.9 * found[0]["loss"]
    assert row["trained"] == (24 * 2 + 30) * 4 and row["settings"]["options"]["vectors"] == 2
    place = tmp_path / row["run"]
    assert (place / "summary.png").stat().st_size > 30_000
    # What was saved ranks the test items as the row says.
    model, loaded = load_recommender(place / "seed0" / "model"), setup_of(folder).problem
    best, test = recommend(model, np.arange(24), 1).items[:, 0], loaded.parts.test
    hits = [item in test.items[test.starts[u] : test.starts[u + 1]] for u, item in enumerate(best)]
    assert row["test"]["precision@1"] == pytest.approx(np.mean(hits))


@pytest.mark.slow
def test_every_method_stands_in_the_table(tmp_path, folder, capsys):
    rows = run(tmp_path, folder, references=True, learning_rate=None)
    assert sorted(row["method"] for row in rows) == sorted(METHODS)
    printed = capsys.readouterr().out
    assert all(name in printed for name in METHODS) and "reconstructed" in printed
    assert all(0 <= row["test"]["auc"] <= 1 for row in rows)


def test_several_seeds_give_mean_and_deviation_and_are_kept(tmp_path, folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    rows = run(tmp_path, folder, seeds=(0, 1))
    values = [100 * row["test"]["auc"] for row in rows]
    assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in " ".join(capsys.readouterr().out.split())
    assert len(run(tmp_path, folder, seeds=(0, 1), resume=True)) == 2


def test_an_interrupted_run_resumes_to_the_same_result(tmp_path, folder, monkeypatch):
    (whole,) = run(tmp_path / "whole", folder, epochs=6)

    def press(*_):
        return lambda row: signal.raise_signal(signal.SIGINT) if row["step"] == 2 * whole["per_epoch"] else None

    with monkeypatch.context() as patched:
        patched.setattr(tables, "progress", press)
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", folder, epochs=6)
    (parts,) = run(tmp_path / "parts", folder, epochs=6, resume=True)
    assert all(parts[name] == whole[name] for name in ("test", "val", "epoch", "epochs"))


def test_sharded_tables_change_no_result(tmp_path, folder):
    for name, mesh in (("one", ""), ("many", "model:-1")):  # 8 devices divide 24 users, and not 30 items
        (row,) = run(tmp_path / name, folder, mesh=mesh, method="dpcml2", vectors=2)
        losses = [each["loss"] for each in rows_of(tmp_path / name, row)]
        expected = losses if name == "one" else expected
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
        model = load_recommender(tmp_path / name / row["run"] / "seed0" / "model")
        assert (model.num_users, model.num_items) == (24, 30)


def test_a_run_ends_when_nothing_better_comes(tmp_path, folder):
    (row,) = run(tmp_path, folder, epochs=60, patience=2, learning_rate=1e-8)
    assert row["epochs"] == row["epoch"] + 2 < 60


def test_evaluations_may_be_rarer_than_epochs(tmp_path, folder):
    (row,) = run(tmp_path, folder, epochs=5, evaluate_every=2)
    assert [each["step"] // row["per_epoch"] for each in rows_of(tmp_path, row)] == [2, 4, 5]


def test_flags_reach_the_method(folder, monkeypatch):
    calls = []

    def keep(*sizes, **options):
        calls.append((sizes, options))

    monkeypatch.setattr(recommendation_methods, "dpcml", keep)
    cml = {
        **{"margin": 2.0, "form": "cvar", "negatives": 4, "strategy": "two_stage", "pool": 12, "beta": 0.4},
        **{"temperature": 0.7, "diversity": 3.0, "low": 0.1, "high": 0.3, "bounds": "paper", "reduction": "mean"},
    }
    given = cml | {"vectors": 3, "assignment": "apa", "norm": "ball"}
    options = recommendation_methods.options_of("dpcml2", given)
    METHODS["dpcml2"].build(3, 9, 6, options, np.array([1, 4, 100]))
    ((sizes, found),) = calls
    assert sizes == (3, 9) and found["objective"]._asdict() == cml and found["counts"].tolist() == [1, 2, 3]
    assert (found["dim"], found["vectors"], found["norm"]) == (6, 3, "ball")
    METHODS["unis"].build(3, 9, 6, recommendation_methods.options_of("unis", {"negatives": 7}), np.ones(3))
    assert calls[-1][1]["objective"].negatives == 1 and calls[-1][1]["counts"] is None
    build = recommendation_methods._other(keep, tie_users="alpha", tie_items="beta")
    build(3, 9, 6, recommendation_methods.options_of("crml", {"tie_users": 0.5, "compat": True}), np.ones(3))
    expected = {"dim": 6, "margin": 2.0, "alpha": 0.5, "beta": 0.1, "negatives": 10, "in_batch": False, "compat": True}
    assert calls[-1][1] == expected
    for name in ("cpe", "crml", "lrml", "transcf", "sfcml"):  # its options are those of its function
        METHODS[name].build(3, 9, 6, METHODS[name].options, np.ones(3))
    settings = recommendation_runs.settings_of(dataclasses.replace(QUICK, method="cpe", learning_rate=None), "cpe")
    assert (settings.learning_rate, settings.weight_decay, settings.options["margin"]) == (0.05, 1e-5, 1.2)
    assert passes("unis", METHODS["unis"].options) == 10 and passes("hars", METHODS["hars"].options) == 1
    assert recommendation_runs.batches_of(setup_of(folder), "sfcml", 0).per_epoch == 1


def test_two_files_hold_the_same_and_times_divide_them(folder):
    random = [setup_of(folder, dataset=name).problem for name in ("tiny", "mine")]
    assert random[0].parts.train.items.tolist() == random[1].parts.train.items.tolist()
    assert random[1].users.tolist()[:2] == [100, 101] and random[0].users.tolist()[:2] == [0, 1]
    latest = setup_of(folder, dataset="mine", split="latest").problem
    assert latest.parts.test.items.tolist() != random[1].parts.test.items.tolist()
    good = setup_of(folder, dataset="mine", least_rating=5.0).problem
    assert len(good.parts.train.items) < len(random[1].parts.train.items)
    assert setup_of(folder / "mine.csv", dataset="").problem.name == "mine"
    assert setup_of(folder / "tiny", dataset="").problem.name == "tiny"


@pytest.mark.parametrize("dataset", ["ml-10m", "ml-100k"])
def test_movielens_is_known_by_its_name_and_other_ratings_count_all(tmp_path, dataset):
    place = tmp_path / {"ml-10m": "ml-10M100K", "ml-100k": "ml-100k"}[dataset]
    ratings_csv(place, "u.data")
    rows = [row.split(",") for row in (place / "u.data").read_text().splitlines()[1:]]
    (place / "u.data").write_text("".join(f"{u}\t{i}\t{2 * int(r) - 5}\t{t}\n" for u, i, r, t in rows))  # 5 and 3
    by_name = setup_of(tmp_path, dataset=dataset).problem
    for data_dir in (place, place / "u.data"):
        same = setup_of(data_dir, dataset="").problem
        assert same.name == dataset and "u.data, rows with ratings from 4 count; divided 3:1:1" in same.about
        assert same.num_items == by_name.num_items and (same.items is None) == (dataset == "ml-100k")
    place.rename(tmp_path / "films")
    every = setup_of(tmp_path / "films", dataset="").problem
    assert "u.data, all rows count; " in every.about
    assert sum(len(part.items) for part in every.parts) > sum(len(part.items) for part in by_name.parts)


def test_names_of_users_are_part_of_a_run(folder):
    setup = setup_of(folder, dataset="mine")
    other = setup._replace(problem=setup.problem._replace(users=setup.problem.users + 1))
    again = setup._replace(problem=setup.problem._replace(about="elsewhere"))
    folders = [recommendation_runs.method_folder(each, "hars") for each in (setup, other, again)]
    assert folders[0] != folders[1] and folders[0] == folders[2]


def test_metrics_of_some_users_are_those_of_the_whole_for_them(folder):
    loaded = setup_of(folder).problem
    scores = np.random.default_rng(0).normal(size=(24, 30)).astype(np.float32)

    def predict(variables, batch):
        return variables["params"][batch["user"]]

    some = Measure(loaded, "test", at=(2,), most=6, chunk=4)
    kept = np.isin(np.arange(24), some._users)
    empty = np.concatenate([[0], np.cumsum(np.where(kept, np.diff(loaded.parts.test.starts), 0))])
    mine = np.repeat(kept, np.diff(loaded.parts.test.starts))
    cut = loaded.parts.test._replace(starts=empty, items=loaded.parts.test.items[mine])
    whole = Measure(loaded._replace(parts=Divided(loaded.parts.train, cut, cut)), "test", at=(2,))
    assert some(predict, {"params": scores}) == pytest.approx(whole(predict, {"params": scores}))
    assert some.counted("precision@2") <= 6


@pytest.mark.slow
def test_a_set_is_planned_from_its_sizes(capsys, tmp_path):
    pytest.importorskip("libtpu", reason="needs the extra [plan]")
    config = dataclasses.replace(
        QUICK, method="dpcml2", plan="v5e:2x2", plan_users=4001, plan_items=1000, plan_steps="train"
    )
    recommendation_planning.run(recommendation.settled(config, embedded=False), Console())
    printed = capsys.readouterr().out
    assert "4,001 users, 1,000 items, 80,020 interactions" in printed and "fits" in printed and "all-reduce" in printed
