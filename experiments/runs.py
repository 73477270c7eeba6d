"""The runs of one command: what they share, what each is made of, and where it lies."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from rich.console import Console

from experiments import methods
from experiments.running import fingerprint, place_of
from jaxmodels.atomic import write_text
from jaxmodels.backbones.backbone import Backbone
from jaxmodels.data.tasks import Task
from jaxmodels.method import Method
from jaxmodels.training.goodput import Clock
from jaxmodels.training.processes import is_main, wait_for_all
from jaxmodels.training.results import add_result
from jaxmodels.tuning.heads import Head
from jaxmodels.tuning.tuner import Tuner

BOOKKEEPING = ("tasks", "cache", "workers")  # flags that change no result, beside those of every experiment


class Setup(NamedTuple):
    """What all runs of one command share.

    Attributes:
        config: the flags.
        backbone: what is tuned.
        params: its published parameters.
        digest: their hash.
        tasks: all tasks of the command.
        console: where to print.
        clocks: of the runs so far.
        mesh: devices, None for one.
    """

    config: Any
    backbone: Backbone
    params: Any
    digest: str
    tasks: list[Task]
    console: Console
    clocks: list[Clock]
    mesh: jax.sharding.Mesh | None = None


class Built(NamedTuple):
    """A method ready to train; runs with equal settings share it, and so its compiled step."""

    tuner: Tuner
    head: Head
    method: Method
    optimizer: optax.GradientTransformation


def write_result(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a row in the first process; all see it afterwards."""
    if is_main():
        add_result(path, row)
    wait_for_all(f"{path.name} is written")


def method_folder(setup: Setup, name: str) -> Path:
    """Where a method's runs lie: its name, and a short hash of all that changes a result."""
    config = for_method(setup.config, name)
    shared = max(task.num_classes for task in setup.tasks) if setup.config.data == "embedded" else None
    place = place_of(config)
    short = fingerprint(config, name, shared, place, setup.digest, ignoring=BOOKKEEPING)
    return setup.config.workdir / f"{name}-{short}"


def run_folder(setup: Setup, name: str, task: Task, seed: int) -> Path:
    """The folder of one run."""
    return method_folder(setup, name) / f"{task.name}-seed{seed}"


def begin_folder(folder: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Makes the folder of a run, in the first process; an earlier run's is kept until the new one has succeeded."""
    if is_main():
        if folder.exists() and not resume:  # the same settings and seed
            shutil.rmtree(previous_of(folder), ignore_errors=True)
            folder.rename(previous_of(folder))
        write_text(folder / "config.json", json.dumps(settings, indent=1) + "\n")
    wait_for_all(f"{folder.name} is made")


def previous_of(folder: Path) -> Path:
    """Where an earlier run of the same settings and seed is kept."""
    return folder.with_name(f"{folder.name}.previous")


def plain(config: Any) -> dict[str, Any]:
    """The flags as JSON values."""
    values = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def for_method(config: Any, name: str) -> Any:
    """The flags as they apply to a method: those that tune the chosen one are not meant for its references."""
    if name == config.method:
        return config
    unset = {flag: None for flag in methods.FLAGS}
    return dataclasses.replace(config, recipe="flags", learning_rate=(), select="last", **unset)


def tuner_flags(config: Any) -> dict[str, Any]:
    """The flags of a tuner that were given."""
    return {flag: getattr(config, flag) for flag in methods.FLAGS if getattr(config, flag) is not None}
