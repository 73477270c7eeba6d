"""One network on one split of a graph data set: build, train through `jm.fit`, judge, add a row to the results file."""

import contextlib
import dataclasses
import functools
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments import graph_data, graph_methods
from experiments.graph_data import Problem
from experiments.graph_judging import LESS_IS_BETTER, Judge
from experiments.graph_methods import Recipe
from experiments.judged import fit_judged
from experiments.running import Setup, content, fingerprint
from experiments.runs import begin_folder, plain, previous_of, write_result
from jaxmodels.data.graph_files import Split
from jaxmodels.graphs.bucketed import Bucketed
from jaxmodels.graphs.graph_method import graph_method
from jaxmodels.graphs.node_parts import NodeParts
from jaxmodels.graphs.rows import Repeated, node_rows, on_rows
from jaxmodels.graphs.schedule import warmup_power
from jaxmodels.method import Method
from jaxmodels.rules import count
from jaxmodels.training.checkpoint import has_checkpoint
from jaxmodels.training.memory import peak_bytes
from jaxmodels.training.mesh import fetch, local_rows, put_batch, row_shards
from jaxmodels.training.optimizer import partitioned
from jaxmodels.training.processes import is_main
from jaxmodels.training.results import find_result

BOOKKEEPING = ("split",)  # flags that change no result, beside those of every experiment


class Built(NamedTuple):
    """A network ready to train; runs with equal settings share it, and so its compiled programs."""

    module: Any
    method: Method
    optimizer: optax.GradientTransformation
    predict: Callable[[Any, Any], Any]


class Programs:
    """Counts the train and evaluation programs that XLA compiles, or loads from the cache, while it is open."""

    _EVENT, _NAMES = "/jax/core/compile/backend_compile_duration", ("step", "placed_step", "graph_outputs")

    def __init__(self):
        self.count = 0

    def _hear(self, event: str, duration_secs: float, **about: Any) -> None:
        name = str(about.get("fun_name", ""))
        self.count += event == self._EVENT and name.removeprefix("jit_").removeprefix("jit(").rstrip(")") in self._NAMES

    @contextlib.contextmanager
    def listening(self) -> Iterator["Programs"]:
        """Counts while the context is open."""
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        try:
            yield self
        finally:
            jax.monitoring.unregister_event_duration_listener(self._hear)


def for_method(config: Any, name: str) -> Any:
    """The flags as they apply to a network: those that set the chosen one are not meant for its references."""
    if name == config.method:
        return config
    own = ("recipe", "learning_rate", "learning_rate_decay", "weight_decay", *graph_methods.FLAGS)
    unset = {flag: type(config).__dataclass_fields__[flag].default for flag in own}
    return dataclasses.replace(config, **unset)


def network_flags(config: Any) -> dict[str, Any]:
    """The flags of a network that were given."""
    fields = type(config).__dataclass_fields__
    return {
        flag: getattr(config, flag) for flag in graph_methods.FLAGS if getattr(config, flag) != fields[flag].default
    }


class Settings(NamedTuple):
    """Everything that a run of a network needs beside the data; flags win over the recipe, that over the defaults."""

    options: Mapping[str, Any]
    learning_rate: float
    learning_rate_decay: float
    weight_decay: float
    epochs: int
    patience: int
    batch_size: int
    warmup: int


def settings_of(config: Any, name: str, problem: Problem) -> Settings:
    """The settings of a network on a data set."""
    flags = for_method(config, name)
    recipe: Recipe = graph_methods.recipe_of(flags.recipe, name, problem.name)
    choice = graph_methods.METHODS[name]

    def first(*values: Any) -> Any:
        return next(value for value in values if value is not None)

    return Settings(
        graph_methods.options_of(name, problem.level, network_flags(flags), recipe),
        first(flags.learning_rate, recipe.learning_rate, choice.learning_rate),
        flags.learning_rate_decay,
        first(flags.weight_decay, recipe.weight_decay, choice.weight_decay),
        first(flags.epochs, recipe.epochs, 200),
        first(flags.patience, recipe.patience, 50),
        first(flags.batch_size, recipe.batch_size, 32),
        recipe.warmup * config.parts,  # as released: epochs of so many steps
    )


@functools.lru_cache(maxsize=64)
def built(name: str, settings: str, outputs: int, level: str, task: str, loss: str, example: Any = None) -> Built:
    """Module, method and optimizer of settings (as JSON, so that equal ones share compiled programs)."""
    found = Settings(**json.loads(settings))
    module = graph_methods.build(name, found.options, outputs=outputs, level=level, task=task)
    method = on_rows(
        graph_method(module, task=task, level=level, loss=loss), None if example is None else dict(example)
    )

    def make(rate: Any) -> optax.GradientTransformation:
        return optax.chain(optax.add_decayed_weights(found.weight_decay), optax.adam(rate))

    rate = warmup_power(found.learning_rate, warmup=found.warmup, decay=found.learning_rate_decay)

    def graph_outputs(variables, batch):
        return method.predict(variables, batch)

    return Built(module, method, partitioned(method.groups, make, rate), jax.jit(graph_outputs))


def method_folder(setup: Setup[Problem], name: str) -> Path:
    """Where a network's runs lie: data set, its name, and a short hash of all that changes a result."""
    config = for_method(setup.config, name)
    data = content((setup.problem.graphs, setup.problem.labels, setup.problem.splits))
    short = fingerprint(config, name, data, ignoring=BOOKKEEPING)
    return setup.config.workdir / f"{setup.problem.name}-{name}-{short}"


def run_folder(setup: Setup[Problem], name: str, split: int, seed: int) -> Path:
    """The folder of one run."""
    return method_folder(setup, name) / f"split{split}-seed{seed}"


def run(setup: Setup[Problem], name: str, split: int, seed: int) -> dict[str, Any]:
    """The result row of one network, split and seed: taken from the results file, or trained now."""
    folder, config = run_folder(setup, name, split, seed), setup.config
    key = {"run": folder.parent.name, "method": name, "dataset": setup.problem.name, "split": split, "seed": seed}
    results = config.workdir / "results.jsonl"
    known = find_result(results, key)
    if known and (config.resume or name != config.method):
        return known
    row = {**key, **train(setup, name, split, seed, folder)}
    write_result(results, row)
    return row


def released(setup: Setup[Problem], split: int) -> bool:
    """Whether a run goes by the protocol of N2's released code, which is one for folds without validation data."""
    return setup.config.protocol == "official" and not len(setup.problem.splits[split].val)


def parts_of(setup: Setup[Problem], split: int) -> Split:
    """The split of a run under the command's protocol."""
    problem, chosen = setup.problem, setup.problem.splits[split]
    if released(setup, split):
        chosen = chosen._replace(val=chosen.test)
    chosen = graph_data.with_validation(chosen, problem.labels, seed=split)
    graph_data.check_split(chosen, len(problem.labels), f"{problem.name}: split {split}")
    return chosen


def train(setup: Setup[Problem], name: str, split: int, seed: int, folder: Path) -> dict[str, Any]:
    """Trains one network and returns what was measured."""
    started, config, problem = time.perf_counter(), for_method(setup.config, name), setup.problem
    settings, parts = settings_of(config, name, problem), parts_of(setup, split)
    made = built(name, json.dumps(settings._asdict()), problem.outputs, problem.level, problem.task, config.loss)
    batches, per_epoch, predict, padding = feeding(setup, made, settings, parts, seed)
    steps, every = settings.epochs * per_epoch, config.evaluate_every * per_epoch
    begin_folder(folder, {"settings": settings._asdict(), "flags": plain(config)}, config.resume)
    resumed = config.resume and has_checkpoint(folder)
    with Programs().listening() as programs:
        judge = Judge(
            problem,
            parts,
            predict,
            folder,
            select=config.select,
            patience=max(1, settings.patience // config.evaluate_every),
            steps=every,
            total=steps,
            programs=lambda: programs.count,
            resume=resumed,
        )
        variables = jax.jit(made.method.init)(jax.random.key(seed), batches[0])
        label, shapes = f"{name} on {problem.name}, split {split}, seed {seed}", len(batches.sizes)
        options = {"steps": steps, "variables": variables, "seed": seed, "resume": resumed, "shapes": shapes}
        fitted = fit_judged(setup, made, batches, judge, folder=folder, every=every, label=label, **options)
    if is_main():
        shutil.rmtree(previous_of(folder), ignore_errors=True)
    rows = fitted.history if fitted else []
    percent = 1.0 if problem.metric in LESS_IS_BETTER else 100.0
    best, whole = judge.best, released(setup, split) and problem.level == "graph"
    return {
        "metric": problem.metric,
        "test": percent * best[f"test_{problem.metric}"],
        "val": percent * best[f"val_{problem.metric}"],
        "all": percent * judge.best_on(np.arange(len(problem.labels))) if whole else None,
        "val_loss": best["val_loss"],
        "epoch": int(best["step"]) // per_epoch,
        "epochs": (fitted.step if fitted else int(best["step"])) // per_epoch,
        "protocol": config.protocol,
        "select": config.select,
        "level": problem.level,
        "trained": count(variables["params"]),
        "seconds": time.perf_counter() - started,
        "epoch_seconds": statistics.median([per_epoch / r["steps_per_second"] for r in rows[1:] or rows] or [0.0]),
        "programs_first": int(rows[0]["programs"]) if rows else 0,
        "programs_later": int(sum(row["programs"] for row in rows[1:])),
        "padding": padding,
        "peak_bytes": peak_bytes(),
        "settings": settings._asdict(),
    }


def feeding(
    setup: Setup[Problem], made: Built, settings: Settings, parts: Split, seed: int
) -> tuple[Any, int, Any, float]:
    """Batches of a run, steps per epoch, how to predict, and the share of padding."""
    problem, mesh = setup.problem, setup.mesh
    shards = 1 if mesh is None else row_shards(mesh)
    if problem.level == "node":
        mask = np.zeros(len(problem.labels), np.float32)
        mask[parts.train] = 1.0
        rows = node_rows(problem.graphs[0], problem.labels, mask, shards=shards)
        batch = put_batch(_own(rows, mesh), mesh)
        padding = 1.0 - len(problem.labels) / len(rows["label"])
        if setup.config.parts == 1:
            return Repeated(batch), 1, _whole(made, batch), padding
        graph, number = problem.graphs[0], setup.config.parts
        parts_of_it = NodeParts(graph, problem.labels, mask, parts=number, seed=seed, shards=shards)
        return _Owned(parts_of_it, mesh), number, _whole(made, batch), padding
    bucketed = Bucketed(
        problem.graphs,
        problem.labels,
        parts.train,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=seed,
        buckets=setup.config.buckets,
        shards=shards,
        others=(parts.val, parts.test),
    )
    return _Owned(bucketed, mesh), bucketed.per_epoch, _graphs(made, bucketed, mesh), bucketed.padding


def _own(batch: Any, mesh: Any) -> Any:
    """The rows of a batch that this process puts on its devices; every process has built the whole of it."""
    if jax.process_count() == 1:
        return batch
    return {name: np.asarray(value)[local_rows(mesh, len(value))] for name, value in batch.items()}


class _Owned:
    """Batches, of each this process's rows."""

    def __init__(self, batches: Any, mesh: Any):
        self.sizes, self._batches, self._mesh = batches.sizes, batches, mesh

    def __getitem__(self, step: int) -> Any:
        return _own(self._batches[step], self._mesh)


def _whole(made: Built, batch: Any) -> Callable[[Any], Callable[[np.ndarray], np.ndarray]]:
    """Outputs of nodes: one pass over the whole graph gives those of all."""

    def predict(variables):
        outputs = fetch(made.predict(variables, batch))
        return lambda members: outputs[members]

    return predict


def _graphs(made: Built, bucketed: Bucketed, mesh: Any) -> Callable[[Any], Callable[[np.ndarray], np.ndarray]]:
    """Outputs of graphs, batch by batch; the batches of a part stay on the devices."""
    placed: dict[bytes, list[tuple[Any, int]]] = {}

    def predict(variables):
        def outputs(members):
            key = members.tobytes()
            if key not in placed:
                placed[key] = [
                    (put_batch(_own(b, mesh), mesh), int(b["mask"].sum())) for b in bucketed.inorder(members)
                ]
            found = [fetch(made.predict(variables, batch))[:real] for batch, real in placed[key]]
            return np.concatenate(found)

        return outputs

    return predict
