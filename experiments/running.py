"""Where and how an experiment runs: devices, processes, planning, saving; the same flags for every command."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import jax
import numpy as np
from rich.console import Console

import jaxmodels as jm
from jaxmodels.training import processes
from jaxmodels.training.goodput import Clock

Data = TypeVar("Data")


@dataclasses.dataclass(frozen=True)
class Running:
    """Flags that every experiment has. They say where and how to run, not what is computed."""

    mesh: str = ""
    """Sizes of the mesh's axes, such as data:-1,fsdp:4 (-1 takes the devices that are left); empty uses one device."""
    plan: str = ""
    """A TPU slice that need not be there, such as v5e:4x4: print what a step needs on it and train nothing. Needs the
    extra [plan]. Exit status 3 says that it does not fit."""
    plan_out: Path | None = None
    """File for the plan as JSON."""
    distributed: Literal["auto", "none"] = "auto"
    """Join the processes that a TPU pod, GKE, SLURM or Open MPI has started, or run alone."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to join processes that were started by hand; with the next two."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which one this is, from 0."""
    init_timeout: float = 300.0
    """Seconds until all processes must have come."""
    stall_factor: float = 0.0
    """No step within so many times the median step (and a minute) ends the run with status 5, after printing every
    thread's stack and the process that is behind; 0 never does."""
    on_nan: Literal["stop", "skip"] = "stop"
    """A loss or gradient that is no finite number stops the run, or its step is skipped and counted."""
    save_every: int = 0
    """Steps between checkpoints; 0 saves on Ctrl-C and at the end."""
    resume: bool = False
    """Skip finished runs and continue the interrupted one from its checkpoint."""


# Flags that say where, how often or in which company to run, not what is computed.
BOOKKEEPING = (
    *(field.name for field in dataclasses.fields(Running)),
    *("plan_steps", "workdir", "references", "picture", "method", "data_dir", "seed", "seeds"),
)


class Setup(NamedTuple, Generic[Data]):
    """What all runs of one command share.

    Attributes:
        config: the flags.
        problem: the data.
        console: where to print.
        clocks: of the runs so far.
        mesh: devices, None for one.
    """

    config: Any
    problem: Data
    console: Console
    clocks: list[Clock]
    mesh: jax.sharding.Mesh | None = None


def check(config: Any) -> None:
    """Raises a ValueError for values that no command can use, of flags that most have.

    A seed given twice is one: its runs are equal, and their deviation would be too small.
    """
    for rate in _values(config, "learning_rate"):
        if not 0 < rate < math.inf:
            raise ValueError(f"--learning_rate: found {rate:g}, expected a positive number")
    not_negative(config, ("weight_decay",))
    once("seeds", getattr(config, "seeds", ()))


def not_negative(config: Any, flags: Iterable[str]) -> None:
    """Raises a ValueError for a flag that is given and neither 0 nor a positive number; unknown ones are none."""
    for flag in flags:
        for value in _values(config, flag):
            if not 0 <= value < math.inf:
                raise ValueError(f"--{flag}: found {value:g}, expected 0 or a positive number")


def _values(config: Any, flag: str) -> tuple[float, ...]:
    """The numbers of a flag; none of one that a command lacks or that is left open."""
    given = getattr(config, flag, None)
    return given if isinstance(given, tuple) else () if given is None else (given,)


def once(flag: str, values: Sequence[int]) -> None:
    """Raises a ValueError for a value of a flag that is given twice."""
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"--{flag}: found {value} twice, expected different ones")


def seeds(config: Any) -> tuple[int, ...]:
    """The seeds of a command."""
    return config.seeds or (config.seed,)


def compared(config: Any, methods: Iterable[str]) -> tuple[str, ...]:
    """The methods of a command: the chosen one, and the others unless its flags leave them out."""
    return tuple(dict.fromkeys((config.method, *methods))) if config.references else (config.method,)


def join(config: Running) -> Console:
    """Joins the processes that the flags name; the console prints in the first of them alone."""
    processes.start(
        config.coordinator,
        config.num_processes,
        config.process_id,
        automatic=config.distributed == "auto",
        timeout=config.init_timeout,
    )
    return Console(quiet=not processes.is_main())


def mesh_of(config: Running) -> jax.sharding.Mesh | None:
    """The mesh of the flags; one of all devices where several processes run without it, None for one device."""
    return jm.make_mesh(config.mesh or "data:-1") if config.mesh or jax.process_count() > 1 else None


def fit_options(config: Running) -> dict[str, Any]:
    """What the flags mean to `jm.fit`."""
    return {
        "save_every": config.save_every,
        "on_nan": config.on_nan,
        "stall_factor": config.stall_factor or None,
    }


def fingerprint(config: Any, name: str, *more: Any, ignoring: tuple[str, ...] = ()) -> str:
    """A short hash of all that changes a method's result, which tells its folders apart.

    Args:
        config: the flags as they apply to the method.
        name: of the method.
        *more: what else changes it, such as the `content` of the data; JSON values.
        ignoring: flags beside `BOOKKEEPING` that do not.
    """
    flags = dataclasses.asdict(config).items()
    kept = {key: str(value) for key, value in flags if key not in (*BOOKKEEPING, *ignoring)}
    return hashlib.sha256(json.dumps([name, kept, *more], sort_keys=True).encode()).hexdigest()[:8]


def content(data: Any) -> str:
    """Eight letters that tell data apart, by what they hold and not by where they lie.

    Args:
        data: a tree of arrays, or of what `repr` tells apart.
    """
    leaves, structure = jax.tree.flatten(data)
    found = hashlib.sha256(str(structure).encode())
    for leaf in leaves:
        if isinstance(leaf, np.ndarray | jax.Array):
            found.update(f"{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes())
        else:
            found.update(f"{leaf!r};".encode())
    return found.hexdigest()[:8]


def place_of(config: Any) -> str | None:
    """Where the data lie, None for embedded ones."""
    return None if config.data_dir is None else str(Path(config.data_dir).resolve())
