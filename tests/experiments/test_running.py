"""Flags that every experiment shares say where to run, and change no run's name."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments import graphs, outliers, reasoning, recommendation, vtab
from experiments.running import Running, content, fingerprint, fit_options, mesh_of, place_of

COMMANDS = (graphs, outliers, reasoning, recommendation, vtab)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_them_after_its_own(command):
    names = [field.name for field in dataclasses.fields(command.Config)]
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
