"""Flags that every experiment shares say where to run, and change no run's name."""

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import command, graphs, outliers, reasoning, recommendation, vtab
from experiments.running import Running, check, content, fingerprint, fit_options, mesh_of, place_of

COMMANDS = (graphs, outliers, reasoning, recommendation, vtab)


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_has_them_after_its_own(module):
    names = [field.name for field in dataclasses.fields(module.Config)]
    shared = [field.name for field in dataclasses.fields(Running)]
    assert names[0] == "method" and names[-len(shared) :] == shared


def test_a_fingerprint_follows_what_is_computed():
    config = graphs.Config()
    name = fingerprint(config, "n2", "data", ignoring=("split",))
    for flags in ({"mesh": "data:8"}, {"resume": True}, {"workdir": Path("other")}, {"seeds": (7,)}, {"split": "all"}):
        assert fingerprint(dataclasses.replace(config, **flags), "n2", "data", ignoring=("split",)) == name
    changed = (dataclasses.replace(config, width=3), "n2", "data"), (config, "gcn", "data"), (config, "n2", "other")
    assert name not in {fingerprint(*each, ignoring=("split",)) for each in changed}


def test_flags_become_options_of_fit_and_a_mesh():
    config = graphs.Config(save_every=5, on_nan="skip")
    assert fit_options(config) == {"save_every": 5, "on_nan": "skip", "stall_factor": None}
    assert fit_options(vtab.Config())["stall_factor"] == 20.0
    assert mesh_of(config) is None and place_of(config) is None
    found = mesh_of(dataclasses.replace(config, mesh="data:4,model:2"))
    assert found is not None and dict(found.shape) == {"data": 4, "fsdp": 1, "model": 2}
    assert place_of(dataclasses.replace(config, data_dir=Path("x"))) == str(Path("x").resolve())


def test_data_are_told_apart_by_what_they_hold():
    one = {"a": np.arange(3), "b": [None, "x"]}
    assert content(one) == content({"a": np.arange(3), "b": [None, "x"]})
    others = [{"a": np.arange(3.0)}, {"a": np.array([0, 1, 3])}, {"a": np.arange(3)[:, None]}, {"c": np.arange(3)}]
    assert len({content(each | {"b": [None, "x"]}) for each in others} | {content(one)}) == 5
    assert len({content(one | {"b": b}) for b in ([None, "x"], ["x"], [None, "y"], [None, "x", ""])}) == 4


@pytest.mark.parametrize("where", ["host", "device"])
def test_memory_that_runs_out_is_one_line(where, monkeypatch, capsys):
    def large(config):
        if where == "host":
            np.zeros(2**45)
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating\n7 bytes")

    monkeypatch.setattr(sys, "argv", ["experiment"])
    with pytest.raises(SystemExit) as stop:
        command.run(large, graphs.Config, "", "experiments.any")
    error = capsys.readouterr().err
    expected = {"host": "Unable to allocate", "device": "RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes"}[where]
    assert f"Error: not enough memory: {expected}" in error and error.count("\n") == 1 and stop.value.code == 3

    def broken(config):
        raise jax.errors.JaxRuntimeError("INTERNAL: a defect")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        command.run(broken, graphs.Config, "", "experiments.any")


def refused(monkeypatch, capsys, module, *argv):
    """Standard error of a command line that is refused before its main function begins."""
    monkeypatch.setattr(sys, "argv", ["experiment", *argv])
    with pytest.raises(SystemExit) as stop:
        command.run(lambda config: pytest.fail("began"), module.Config, "", "experiments.any")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("module", COMMANDS)
@pytest.mark.parametrize("rate", ["-1", "0", "nan"])
def test_no_command_takes_a_learning_rate_that_cannot_learn(module, rate, monkeypatch, capsys):
    error = refused(monkeypatch, capsys, module, "--learning_rate", rate)
    assert f"Error: --learning_rate: found {rate}, expected a positive number" in error


@pytest.mark.parametrize("module", COMMANDS)
def test_no_command_takes_a_seed_twice(module, monkeypatch, capsys):
    error = refused(monkeypatch, capsys, module, "--seeds", "3", "0", "3")
    assert "Error: --seeds: found 3 twice, expected different ones" in error


@pytest.mark.parametrize(
    ("module", "flag"),
    [
        (graphs, "weight_decay"),
        (vtab, "weight_decay"),
        (recommendation, "weight_decay"),
        *(
            (recommendation, flag)
            for flag in ("diversity", "low", "covariance", "distance", "neighbourhood", "tie_items")
        ),
        *((outliers, flag) for flag in ("error_weight", "contrast_weight", "neighbour_weight", "warmup_peak")),
    ],
)
def test_weights_are_not_negative(module, flag):
    for value in (-1.0, float("nan"), float("inf")):
        config = module.Config(**{flag: (value,) if isinstance(getattr(module.Config(), flag), tuple) else value})
        with pytest.raises(ValueError, match=f"--{flag}: found {value:g}, expected 0 or a positive number"):
            check(config)
            module.check(config)


def test_a_margin_is_positive():
    with pytest.raises(ValueError, match="--margin: found -1, expected a positive number"):
        recommendation.check(recommendation.Config(margin=-1.0))
