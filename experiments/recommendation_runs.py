"""One recommender with one seed: build, train through `jm.fit`, test, save, add a row to the results file."""

import dataclasses
import functools
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments import recommendation_methods
from experiments.best_params import read_best
from experiments.judged import fit_judged
from experiments.recommendation_data import EMBEDDED, Loaded
from experiments.recommendation_judging import Judge, Measure
from experiments.running import Setup, content, fingerprint
from experiments.runs import begin_folder, plain, previous_of, write_result
from jaxmodels.data.interactions import Interactions
from jaxmodels.method import Method
from jaxmodels.recommendation.batches import PairBatches
from jaxmodels.recommendation.known import known_of
from jaxmodels.recommendation.model_file import save_recommender
from jaxmodels.recommendation.recommend import Recommender
from jaxmodels.recommendation.spare_rows import with_spare_rows
from jaxmodels.rules import count
from jaxmodels.training.checkpoint import has_checkpoint
from jaxmodels.training.memory import peak_bytes
from jaxmodels.training.mesh import local_rows
from jaxmodels.training.processes import is_main, wait_for_all
from jaxmodels.training.results import find_result

MODEL = "model"  # folder of a run's recommender, which `load_recommender` reads
# Flags that change no result, beside those of every experiment.
BOOKKEEPING = ("plan_users", "plan_items", "plan_interactions", "methods", "chunk")


class Settings(NamedTuple):
    """What a run needs beside the data; flags win over what is published for the method."""

    options: dict[str, Any]
    learning_rate: float
    weight_decay: float
    dim: int
    batch_size: int
    epochs: int


class Built(NamedTuple):
    """A method ready to train; runs with equal settings share it, and so its compiled programs."""

    method: Method
    optimizer: optax.GradientTransformation
    given: dict[str, Any]  # known positives, for `init`


def for_method(config: Any, name: str) -> Any:
    """The flags as they apply to a method: those that set the chosen one are not meant for its references."""
    if name == config.method:
        return config
    unset = dict.fromkeys((*recommendation_methods.FLAGS, "learning_rate", "weight_decay"))
    return dataclasses.replace(config, **unset)


def settings_of(config: Any, name: str, *, embedded: bool = False) -> Settings:
    """The settings of a method, on the embedded data or others.

    Raises:
        ValueError: a flag that it does not have.
    """
    flags, choice = for_method(config, name), recommendation_methods.METHODS[name]
    given = {f: getattr(flags, f) for f in recommendation_methods.FLAGS if getattr(flags, f) is not None}
    usual = choice.embedded if embedded else choice.learning_rate
    rate = usual if flags.learning_rate is None else flags.learning_rate
    decay = choice.weight_decay if flags.weight_decay is None else flags.weight_decay
    options = recommendation_methods.options_of(name, given, embedded=embedded)
    return Settings(options, rate, decay, config.dim, config.batch_size, config.epochs)


def settings_for(setup: Setup[Loaded], name: str) -> Settings:
    """The settings of a method in a command."""
    return settings_of(setup.config, name, embedded=setup.problem.name == EMBEDDED)


def method_folder(setup: Setup[Loaded], name: str) -> Path:
    """Where a method's runs lie: data set, its name, and a short hash of all that changes a result."""
    config = for_method(setup.config, name)
    data = content(setup.problem._replace(about="", kinds=None))  # ids are kept with the model
    short = fingerprint(config, name, data, ignoring=BOOKKEEPING)
    return setup.config.workdir / f"{setup.problem.name}-{name}-{short}"


def run_folder(setup: Setup[Loaded], name: str, seed: int) -> Path:
    """The folder of one run."""
    return method_folder(setup, name) / f"seed{seed}"


def run(setup: Setup[Loaded], name: str, seed: int) -> dict[str, Any]:
    """The result row of one method and seed: taken from the results file, or trained now."""
    folder, config = run_folder(setup, name, seed), setup.config
    key = {"run": folder.parent.name, "method": name, "dataset": setup.problem.name, "seed": seed}
    known = find_result(config.workdir / "results.jsonl", key)
    if known and (folder / MODEL).exists() and (config.resume or name != config.method):
        return known
    row = {**key, **train(setup, name, seed, folder)}
    write_result(config.workdir / "results.jsonl", row)
    return row


@functools.lru_cache(maxsize=2)
def _known(loaded_train: "_Same") -> dict[str, Any]:
    data = loaded_train.data
    users, items = data.users, data.items
    by_user = known_of(users, items, num_users=data.num_users, num_items=data.num_items)
    # An item that every user has is no error here: lists of items are only intersected.
    by_item = known_of(items, users, num_users=data.num_items, num_items=data.num_users + 1)
    return {"known": by_user, "known_items": by_item}


class _Same:
    """Interactions as a key: these and no others."""

    def __init__(self, data: Interactions):
        self.data = data

    def __hash__(self) -> int:
        return id(self.data.items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.data.items is self.data.items


@functools.lru_cache(maxsize=64)
def built(name: str, settings: str, train: _Same, shards: int) -> Built:
    """Method and optimizer of settings (as JSON, so that equal ones share compiled programs)."""
    found, data = Settings(*json.loads(settings)), train.data
    choice = recommendation_methods.METHODS[name]
    given = _known(train)
    method = choice.build(data.num_users, data.num_items, found.dim, found.options, np.diff(data.starts))
    shapes = jax.eval_shape(lambda key: method.init(key, given)["params"], jax.random.key(0))
    method = with_spare_rows(method, shapes, shards)
    return Built(method, choice.optimizer(found.learning_rate, found.weight_decay), given)


def made(setup: Setup[Loaded], name: str) -> Built:
    """A method on the data and mesh of a command."""
    shards = 1 if setup.mesh is None else setup.mesh.shape["model"]
    settings = settings_for(setup, name)._replace(epochs=0)
    return built(name, json.dumps(settings), _Same(setup.problem.parts.train), shards)


def batches_of(setup: Setup[Loaded], name: str, seed: int) -> PairBatches:
    """The training batches of a run."""
    config, train = setup.config, setup.problem.parts.train
    settings = settings_for(setup, name)
    users, items = train.users, train.items
    if recommendation_methods.METHODS[name].rows == "users":
        users = items = np.flatnonzero(np.diff(train.starts))
    return PairBatches(
        users,
        items,
        config.batch_size,
        seed=seed,
        times=recommendation_methods.passes(name, settings.options),
        rows=local_rows(setup.mesh, config.batch_size),
    )


def measure(setup: Setup[Loaded], part: str) -> Measure:
    """Metrics of one part of a command's data."""
    config = setup.config
    return Measure(
        setup.problem, part, at=config.at, most=config.eval_users, seed=config.split_seed, chunk=config.chunk
    )


def train(setup: Setup[Loaded], name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains and tests one method and returns what was measured."""
    started, config = time.perf_counter(), for_method(setup.config, name)
    settings, ready, batches = settings_for(setup, name), made(setup, name), batches_of(setup, name, seed)
    steps, every = settings.epochs * batches.per_epoch, config.evaluate_every * batches.per_epoch
    resumed = config.resume and has_checkpoint(folder)
    begin_folder(folder, {"settings": settings._asdict(), "flags": plain(config)}, config.resume)
    judge = Judge(
        measure(setup, "val"),
        ready.method.predict,
        folder,
        select=config.select,
        patience=config.patience,
        steps=every,
        total=steps,
        resume=resumed,
    )
    variables = jax.jit(ready.method.init)(jax.random.key(seed), ready.given)
    label = f"{name} on {setup.problem.name}, seed {seed}"
    options = {"steps": steps, "variables": variables, "seed": seed, "resume": resumed}
    fitted = fit_judged(setup, ready, batches, judge, folder=folder, every=every, label=label, **options)
    rows = fitted.history if fitted else []
    best = {"params": read_best(folder), "state": variables["state"]}
    tested = measure(setup, "test")(ready.method.predict, best, diversity=True)
    save(setup, name, folder, best)
    return {
        "test": {metric: value for metric, value in tested.items() if not np.isnan(value)},
        "val": {m.removeprefix("val_"): v for m, v in judge.best.items() if m != "step" and v is not None},
        "epoch": int(judge.best["step"]) // batches.per_epoch,
        "epochs": (fitted.step if fitted else int(judge.best["step"])) // batches.per_epoch,
        "select": config.select,
        "trained": count(variables["params"]),
        "per_epoch": batches.per_epoch,
        "epoch_seconds": statistics.median(
            [batches.per_epoch / row["steps_per_second"] for row in rows[1:] or rows] or [0.0]
        ),
        "seconds": time.perf_counter() - started,
        "peak_bytes": peak_bytes(),
        "settings": settings._asdict(),
    }


def save(setup: Setup[Loaded], name: str, folder: Path, variables: Any) -> None:
    """Writes the recommender of a run, without the rows that a mesh needed."""
    if is_main():
        loaded, choice = setup.problem, recommendation_methods.METHODS[name]
        rows = {"user": loaded.num_users, "co_user": loaded.num_users, "co_user_bias": loaded.num_users}
        rows |= {"item": loaded.num_items, "co_item": loaded.num_items, "co_item_bias": loaded.num_items}
        rows |= {"threshold": loaded.num_users}
        params = {key: np.asarray(table)[: rows.get(key)] for key, table in variables["params"].items()}
        has = variables["state"].get("has")
        model = Recommender(
            choice.kind,
            {key: params[key] for key in ("user", "item", "key", "memories") if key in params},
            loaded.parts.train,
            has=None if has is None else np.asarray(has),
            users=loaded.users,
            items=loaded.items,
        )
        save_recommender(folder / MODEL, model)
        shutil.rmtree(previous_of(folder), ignore_errors=True)
    wait_for_all("the model is written")
