"""The reasoning command line: base and LoD train, results are kept, runs resume, wrong input is one line."""

import dataclasses
import functools
import signal
import sys

import chex
import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import command, reasoning, reasoning_data, reasoning_picture, reasoning_runs, tables
from jaxmodels.data.query_files import read_queries, write_queries
from jaxmodels.reasoning.reasoner_file import load_reasoner
from jaxmodels.training.fit import Interrupted
from jaxmodels.training.results import read_results
from tests.experiments.query_sets import query_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return query_set(tmp_path_factory.mktemp("graph"))


def quick(folder, workdir, **flags):
    sizes = {"dim": 4, "batch_size": 16, "negatives": 4, "steps": 2, "eval_queries": 12}
    return reasoning.Config(data_dir=folder, workdir=workdir, **{"base": "gqe", **sizes, **flags})


def exit_of(monkeypatch, capsys, *argv):
    monkeypatch.setattr(sys, "argv", ["reasoning", *argv])
    with pytest.raises(SystemExit) as stop:
        command.run(reasoning.main, reasoning.Config, reasoning.__doc__, "experiments.reasoning")
    return stop.value.code, capsys.readouterr().err


def test_lod_stands_beside_the_base(folder, tmp_path, capsys):
    config = quick(folder, tmp_path, noise="answer", pool_per_structure=100)
    reasoning.main(config)
    base, lod = read_results(tmp_path / "results.jsonl")
    assert (base["method"], lod["method"]) == ("base", "lod") and base["updates"] == 6 and lod["unseen"] == ["ip"]
    assert list(lod["structures"]) == ["1p", "ip"] and all(0 < row[0] <= 1 for row in lod["structures"].values())
    assert 0 < lod["pool"]["ip"] <= 100 and base["pool"] == {}
    place = tmp_path / lod["run"]
    assert (place / "query.png").stat().st_size > 10_000 and load_reasoner(place / "seed0" / "model").entities
    printed = capsys.readouterr().out
    assert "ip (unseen; in LoD's pool)" in printed and "mean of unseen" in printed
    reasoning.main(dataclasses.replace(config, resume=True))
    assert len(read_results(tmp_path / "results.jsonl")) == 2


@pytest.mark.parametrize(
    ("flags", "q", "mix"),
    [
        ({}, 0.0, 0.0),
        ({"base": "betae"}, 0.0, 0.0),
        ({"noise": "answer"}, 0.3, 0.0),
        ({"noise": "answer", "base": "betae"}, 0.0, 0.7),
        ({"noise": "answer", "base": "betae", "q_warm": 10}, 0.3, 0.0),
        ({"noise": "answer", "base": "betae", "q": 0.1}, 0.1, 0.0),
        ({"noise": "answer", "mix": 0.5}, 0.0, 0.5),
        ({"q": 0.2}, 0.2, 0.0),
    ],
)
def test_the_robust_loss_follows_the_noise_and_the_base(flags, q, mix):
    config = dataclasses.replace(reasoning.Config(), **({"base": "gqe"} | flags))
    found = reasoning_runs.robust_of(config)
    assert (found.q, found.mix, found.warm) == (q, mix, config.q_warm)


@pytest.mark.parametrize(
    ("base", "mode", "pooled"), [("gqe", "logit", 0.25), ("query2box", "param", 0.1), ("betae", "param", 0.25)]
)
def test_what_the_flags_leave_open_is_decided_before_the_run_gets_its_name(folder, tmp_path, base, mode, pooled):
    config = quick(folder, tmp_path, base=base, noise="answer")
    found = reasoning_runs.for_method(config, "lod")
    assert (found.adaption, found.pool_fraction) == (mode, pooled) and None not in (found.q, found.mix)
    assert reasoning_runs.for_method(dataclasses.replace(config, pool_fraction=0.0), "lod").pool_fraction == 0.0
    assert reasoning_runs.for_method(found, "lod") == found
    assert reasoning_runs.for_method(dataclasses.replace(config, adaption="off"), "lod").adaption == "off"
    setup = reasoning_runs.Setup(config, reasoning_data.load(config), None, [], {}, {})
    assert reasoning_runs.method_folder(setup, "lod") == reasoning_runs.method_folder(
        setup._replace(config=found), "lod"
    )
    project = setup._replace(config=dataclasses.replace(config, adaption="project"))
    reasoning_runs.check_settings(project)  # which needs the pool that is left open


def test_the_pool_is_as_large_as_the_largest_structure_of_several_relations():
    assert reasoning_runs.pool_size({"1p": 900, "2p": 200, "2in": 20}) == 200
    assert reasoning_runs.pool_size({"1p": 900}) == 900
    assert reasoning_runs.pool_size({"1p": 5, "2p": 10**6}) == 20_000


def test_the_pool_aims_at_what_is_tested_and_not_trained(folder, tmp_path):
    config = quick(folder, tmp_path)
    setup = reasoning_runs.Setup(config, reasoning_data.load(config), Console(quiet=True), [], {}, {})
    base = reasoning_runs.build_base(setup)
    assert reasoning_runs.names_of(setup, base).targets == ("ip",)
    chosen = setup._replace(config=dataclasses.replace(config, targets=("2p", "ip"), holdout=("ip",)))
    assert reasoning_runs.names_of(chosen, base).targets == ("2p",)


def interrupted(config, monkeypatch):
    """A run that Ctrl-C ends after its second step."""

    def press(*_):
        return lambda row: signal.raise_signal(signal.SIGINT) if row["step"] == 2 else None

    with monkeypatch.context() as patched:
        patched.setattr(tables, "progress", press)
        with pytest.raises(Interrupted):
            reasoning.main(config)


def model_of(config):
    """What the method's only run saved."""
    return load_reasoner(next(config.workdir.glob(f"{config.method}-*")) / "seed0" / "model")


def test_an_interrupted_run_resumes_to_the_same_result(folder, tmp_path, monkeypatch):
    config = quick(folder, tmp_path / "whole", method="base", steps=4)
    reasoning.main(config)

    parts = dataclasses.replace(config, workdir=tmp_path / "parts")
    interrupted(parts, monkeypatch)
    reasoning.main(dataclasses.replace(parts, resume=True))
    model = model_of(parts)
    start = model.base.init(jax.random.key(0))
    assert not np.array_equal(model.params["entity"]["embedding"], start["entity"]["embedding"])
    chex.assert_trees_all_equal(model.params, model_of(config).params)
    one, two = (read_results(config.workdir / "results.jsonl")[0] for config in (config, parts))
    assert one["structures"] == two["structures"]


def test_a_pool_that_is_drawn_anew_resumes_to_the_same_result(folder, tmp_path, monkeypatch):
    config = quick(folder, tmp_path / "whole", steps=4, pool_refresh=1, noise="answer", references=False)
    drawn, draw = [], reasoning_runs.draw_pool

    def recorded(*args):
        drawn.append((args[5] if len(args) > 5 else 0, draw(*args)))
        return drawn[-1][1]

    monkeypatch.setattr(reasoning_runs, "draw_pool", recorded)
    reasoning.main(config)
    assert sorted({again for again, _ in drawn}) == [0, 1, 2, 3]
    pools = [pool.queries["ip"].tolist() for _, pool in drawn]
    assert len({str(pool) for pool in pools}) == len(pools)
    parts = dataclasses.replace(config, workdir=tmp_path / "parts")
    interrupted(parts, monkeypatch)
    reasoning.main(dataclasses.replace(parts, resume=True))
    chex.assert_trees_all_equal(model_of(config).params, model_of(parts).params)


def test_the_base_does_not_depend_on_flags_of_lod(folder, tmp_path):
    def place(method, **flags):
        config = quick(folder, tmp_path, **flags)
        setup = reasoning_runs.Setup(config, reasoning_data.load(config), None, [], {}, {})
        return reasoning_runs.method_folder(setup, method)

    for flags in (
        {"pool_fraction": 0.5},
        {"adaption": "off"},
        {"q": 0.7},
        {"tau": 0.0},
        {"holdout": ("ip",)},
        {"pool_refresh": 1},
    ):
        assert place("base", **flags) == place("base") and place("lod", **flags) != place("lod")
    for flags in ({"noise": "triple"}, {"dim": 8}, {"seed": 3}):
        assert (place("base", **flags) == place("base")) == ("seed" in flags)


def test_noise_changes_answers_or_edges_and_nothing_else(folder, tmp_path):
    config = quick(folder, tmp_path)
    loaded = reasoning_data.load(config)
    names = ("1p", "2i")
    clean = reasoning_data.training(config, loaded, names, 0)
    answer = reasoning_data.training(dataclasses.replace(config, noise="answer"), loaded, names, 0)
    triple = reasoning_data.training(dataclasses.replace(config, noise="triple"), loaded, names, 0)
    np.testing.assert_array_equal(answer.graph.edges, clean.graph.edges)
    for name in names:
        np.testing.assert_array_equal(answer.queries[name].tokens, clean.queries[name].tokens)
    assert not np.array_equal(answer.queries["2i"].answers.values, clean.queries["2i"].answers.values)
    same = {tuple(e) for e in clean.graph.edges} & {tuple(e) for e in triple.graph.edges}
    assert 0.6 < len(same) / len(clean.graph.edges) < 0.8
    assert len(reasoning_data.edges_of(triple.queries["1p"])) == len(triple.graph.edges)


def test_settings_reach_the_objective(folder, tmp_path):
    config = quick(folder, tmp_path, noise="answer")
    names = reasoning_runs.Names(("1p",), ("1p", "ip"), ("ip",))
    warm = reasoning_runs.objective_of(dataclasses.replace(config, q_warm=5), names, ("ip",))
    assert "step" in warm.init(("1p",)) and set(warm.init(("1p",))["groups"]) == {"1p"}
    off = reasoning_runs.objective_of(dataclasses.replace(config, adaption="off"), names, ("ip",))
    assert off.init(("1p",)) == {}
    two = reasoning_runs.objective_of(dataclasses.replace(config, adapt_groups="origin"), names, ("1p", "ip"))
    assert set(two.init(("1p", "ip"))["groups"]) == {"seen", "diffused"}
    with pytest.raises(ValueError, match="warm: found 5, expected 0 where q is 0"):
        reasoning_runs.objective_of(dataclasses.replace(config, q=0.0, q_warm=5), names, ())


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--eta=2"], "--eta: found 2.0, expected 0 to 1"),
        (["--union=dm"], "--union=dm: needs negation, which query2box does not have"),
        (["--structures", "2in"], "--structures: found '2in', which query2box cannot use here"),
        (["--targets", "ipp"], "no query structure 'ipp'"),
        (
            ["--batch_size=1", "--no-alternate"],
            "--batch_size: found 1 rows for 1p, 2i, expected a multiple of 1, at least 2",
        ),
        (["--adaption=project", "--pool_fraction=0"], "--adaption=project: found --pool_fraction=0"),
        (["--queries=none.npz"], "none.npz"),
        (["--gamma=nan"], "--gamma: found nan, expected above 0"),
        (["--tau=-1"], "--tau: found -1.0, expected at least 0"),
        (["--pool_refresh=5", "--filter_negatives"], "--pool_refresh: found it with --filter_negatives, whose batches"),
        (["--pool_refresh=5", "--pool_fraction=0"], "--pool_refresh: found it with no pool"),
        (["--pool_depth=0"], "--pool_depth: found 0, expected at least 1"),
        (["--diffusion_stop=0"], "--diffusion_stop: found 0.0, expected above 0 and at most 1"),
        (["--q=0.3", "--mix=0.5"], "--mix: found 0.5 beside --q=0.3, expected one of them to be 0"),
        (["--q=0", "--q_warm=5"], "--q_warm: found 5 updates in which q would grow to 0"),
        (["--adaption=off", "--adapt_rate=1"], "--adapt_rate: found 1.0, but --adaption=off has no weights"),
        (["--adaption=off", "--adapt_groups=origin"], "--adapt_groups=origin: --adaption=off has no weights"),
        (["--pool_fraction=0", "--adapt_groups=origin"], "--adapt_groups=origin: found --pool_fraction=0, expected"),
        (["--targets", "2i", "--adapt_groups=origin"], "--targets: found 2i, which are trained; --adapt_groups=origin"),
        (["--targets", "2i", "--adaption=project"], "--targets: found 2i, which are trained; --adaption=project needs"),
        (["--method=base", "--q=0.3"], "--q: found with --method=base, but is a flag of Logic Diffusion"),
        (["--eta=0.2"], "--eta: found 0.2 without damage to take part in"),
        (["--holdout", "ip"], "--holdout: leaves out all of ip, expected some target of the pool"),
        (["--batch_size=4"], "--pool_fraction: found 0.1 of --batch_size=4"),
    ],
)
def test_wrong_flags_are_one_line(folder, monkeypatch, capsys, flags, message):
    code, err = exit_of(monkeypatch, capsys, f"--data_dir={folder}", *flags)
    assert code == 2 and message in err and err.count("\n") == 1


def test_a_folder_of_triples_says_how_to_draw_queries(tmp_path, monkeypatch, capsys):
    (tmp_path / "train.txt").write_text("a\tr\tb\n")
    code, err = exit_of(monkeypatch, capsys, f"--data_dir={tmp_path}")
    assert code == 2 and f"python -m experiments.sample_queries --triples={tmp_path}" in err


def test_structures_without_an_answer_left_are_not_trained(folder, tmp_path, monkeypatch):
    config = quick(folder, tmp_path, noise="triple", eta=1.0, base="gqe")
    loaded = reasoning_data.load(config)
    names = tuple(name for name in loaded.data.train if "n" not in name)
    whole = reasoning_data.training(config, loaded, names, 0).queries
    real = reasoning_data.answered

    def barren(graph, name, tokens, kept="1p"):
        found = real(graph, name, tokens)
        return found if name == kept else found._replace(tokens=found.tokens[:0])

    monkeypatch.setattr(reasoning_data, "answered", barren)
    assert set(reasoning_data.training(config, loaded, names, 0).queries) == {"1p"} < set(whole)
    reasoning.main(dataclasses.replace(config, references=False, steps=2))  # IndexError, were they there
    monkeypatch.setattr(reasoning_data, "answered", functools.partial(barren, kept=""))
    with pytest.raises(ValueError, match="--eta: found 1.0, which leaves no training query of"):
        reasoning_data.training(config, loaded, names, 0)


def test_other_answers_are_other_data(folder, tmp_path):
    loaded = reasoning_data.load(quick(folder, tmp_path))
    assert loaded.digest == reasoning_data.load(quick(folder, tmp_path)).digest
    data = read_queries(next(folder.glob("*.npz")))
    hard = data.train["1p"].hard
    idx, only = hard.idx.copy(), hard.ptr[np.flatnonzero(np.diff(hard.ptr) == 1)[0]]
    idx[only] = (idx[only] + 1) % len(data.entities)
    other = data.train["1p"]._replace(hard=hard._replace(idx=idx))
    (tmp_path / "other").mkdir()
    write_queries(tmp_path / "other" / "queries.npz", data._replace(train=data.train | {"1p": other}))
    assert reasoning_data.load(quick(tmp_path / "other", tmp_path)).digest != loaded.digest


def test_a_query_becomes_a_graph():
    drawing = reasoning_picture.drawing_of("pin", np.array([7, 0, 3, 8, 5, -2]))
    assert sorted(drawing.anchors.values()) == [7, 8] and drawing.joined == {0: "and"}
    assert [(edge.relation, edge.negated) for edge in drawing.edges] == [(3, False), (0, False), (5, True)]
    up = reasoning_picture.drawing_of("up-DNF", np.array([1, 0, 2, 1, -1, 4]))
    (last,) = (edge for edge in up.edges if edge.end == 0)
    assert last.relation == 4 and up.joined == {last.start: "or"}
    assert reasoning_picture.places_of(up)[0] == (0.0, -1.5)
