"""One method on one task: build, train, test, save the tuner, add a row to the results file."""

import dataclasses
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jaxmodels.data.batches import batches, eval_batches, steps_per_epoch
from jaxmodels.data.tasks import Task
from jaxmodels.tuning.cache import cached_reads
from rich.console import Console

import jaxmodels as jm
from experiments import recipes, tables
from experiments.methods import METHODS
from jaxmodels.backbones.backbone import Backbone
from jaxmodels.method import Method
from jaxmodels.rules import count, split
from jaxmodels.training.memory import peak_bytes
from jaxmodels.training.metrics import read_metrics, write_text
from jaxmodels.training.precision import precision, store_frozen
from jaxmodels.training.results import add_result, find_result
from jaxmodels.tuning.heads import Head
from jaxmodels.tuning.tuner import Tuner
from jaxmodels.tuning.tuner_file import save_tuner

EVALUATION_BATCH = 200
# Flags that say where and how to run, not what is computed: they do not belong to a run's identity.
BOOKKEEPING = ("workdir", "resume", "references", "tasks", "save_every", "method")


class Setup(NamedTuple):
    """What all runs of one command share.

    Attributes:
        config: the flags.
        backbone: what is tuned.
        params: its published parameters.
        digest: their hash.
        tasks: all tasks of the command.
        console: where to print.
    """

    config: Any
    backbone: Backbone
    params: Any
    digest: str
    tasks: list[Task]
    console: Console


class Built(NamedTuple):
    """A method ready to train; runs with equal settings share it, and so its compiled step."""

    tuner: Tuner
    head: Head
    method: Method
    optimizer: optax.GradientTransformation


def settings_of(config: Any, name: str, task: Task) -> Any:
    """The flags for one method on one task: the recipe's values, or the method's own learning rate."""
    if name != config.method:  # a reference: the user's tuner flags are not meant for it
        return dataclasses.replace(config, method=name, recipe="default", learning_rate=METHODS[name].learning_rate)
    if config.recipe != "default":
        return dataclasses.replace(config, **recipes.settings(config.recipe, task.name))
    return dataclasses.replace(config, learning_rate=config.learning_rate or METHODS[name].learning_rate)


def run_folder(setup: Setup, name: str) -> Path:
    """Where a method's runs lie: its name, and a short hash of every setting that changes the result."""
    config = setup.config if name == setup.config.method else settings_of(setup.config, name, setup.tasks[0])
    flags = {k: str(v) for k, v in dataclasses.asdict(config).items() if k not in BOOKKEEPING}
    outputs = _outputs(setup, setup.tasks[0]) if setup.config.data == "embedded" else None
    identity = json.dumps([name, flags, outputs, setup.digest], sort_keys=True)
    return setup.config.workdir / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def run(setup: Setup, name: str, task: Task) -> dict[str, Any]:
    """The result row of one method on one task: taken from the results file, or trained now."""
    folder = run_folder(setup, name) / task.name
    key = {"run": folder.parent.name, "method": name, "task": task.name, "seed": setup.config.seed}
    results = setup.config.workdir / "results.jsonl"
    known = find_result(results, key)
    if known and (setup.config.resume or name != setup.config.method):
        return known
    row = {**key, **train(setup, settings_of(setup.config, name, task), task, folder)}
    add_result(results, row)
    return row


@functools.lru_cache(maxsize=64)
def build(config: Any, backbone: Backbone, outputs: int, per_epoch: int, steps: int) -> Built:
    """Tuner, method and optimizer of one setting."""
    choice = METHODS[config.method]
    tuner, head = choice.build(config, per_epoch), choice.head()
    method = jm.classifier(backbone, tuner, num_classes=outputs, head=head)
    if config.recipe in recipes.SCHEDULES:
        rate = recipes.SCHEDULES[config.recipe](config.learning_rate, steps, per_epoch)
    else:
        rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, int(config.warmup * steps), steps)
    optimizer = jm.adamw(method.groups, rate, weight_decay=config.weight_decay, clip=config.clip)
    return Built(tuner, head, method, optimizer)


def train(setup: Setup, config: Any, task: Task, folder: Path) -> dict[str, Any]:
    """Trains one method on one task, saves its tuner, and returns what was measured."""
    started = time.perf_counter()
    source = task.train800 if config.select == "best_val" else task.train800val200
    per_epoch = steps_per_epoch(len(source), config.batch_size)
    steps = config.epochs * per_epoch if config.steps is None else config.steps
    built = build(_without(config), setup.backbone, _outputs(setup, task), per_epoch, steps)
    variables = built.method.init(jax.random.key(config.seed), None)
    params = {**variables["params"], "backbone": setup.params}
    variables["params"] = store_frozen(params, built.method.groups, precision(config.precision))
    sources = {"train": source, "val": task.val200, "test": task.test}
    if built.tuner.bypass and not built.tuner.groups(setup.backbone) and task.augment is None:
        sources = {name: _features(setup, built, variables, part) for name, part in sources.items()}
    if not config.resume:
        shutil.rmtree(folder, ignore_errors=True)  # the same settings and seed: the new run repeats what was there
    write_text(folder / "config.json", json.dumps(_plain(config), indent=1) + "\n")
    judge = Judge(setup, config, built, task, sources, folder)
    fitted = jm.fit(
        built.method,
        batches(sources["train"], config.batch_size, seed=config.seed, augment=task.augment),
        built.optimizer,
        steps=steps,
        variables=variables,
        seed=config.seed,
        workdir=folder,
        resume=config.resume and any((folder / "checkpoints").glob("*")),
        save_every=config.save_every,
        log_every=max(1, steps // 20),
        evaluate=None if config.select == "last" else judge,
        evaluate_every=max(1, config.epochs // 10) * per_epoch,
        accumulate=config.accumulate,
        ema=config.ema,
        on_log=tables.progress(setup.console, f"{config.method} on {task.name}", steps),
    )
    final = fitted.variables if fitted.average is None else fitted.average
    accuracy = judge.final(final)
    trained, _ = split(final["params"], built.method.groups)
    return {
        "accuracy": 100.0 * accuracy,
        "select": config.select,
        "backbone": setup.backbone.name,
        "data": config.data,
        "group": task.group,
        "real": task.real,
        "trained": count(trained),
        "seconds": time.perf_counter() - started,
        "steps": steps,
        "peak_bytes": peak_bytes(),
        "tuner_bytes": judge.file.stat().st_size,
        "settings": _plain(config),
    }


class Judge:
    """Model selection: called while training it returns accuracies and keeps the best model's tuner file."""

    def __init__(self, setup: Setup, config: Any, built: Built, task: Task, sources: Mapping[str, Any], folder: Path):
        self.file = folder / "tuner.safetensors"
        self._setup, self._config, self._built, self._task, self._sources = setup, config, built, task, sources
        self._metric = "val_accuracy" if config.select == "best_val" else "test_accuracy"
        # A resumed run goes on comparing with the best so far.
        rows = [row for row in read_metrics(folder / "metrics.jsonl") if row.get(self._metric) is not None]
        best = max(rows, key=lambda row: row[self._metric], default=None)
        self._best = -1.0 if best is None else best[self._metric]
        self._tested = float("nan") if best is None else best["test_accuracy"]

    def __call__(self, variables: Any) -> dict[str, float]:
        """Metrics at one moment of training; ties go to the earlier model."""
        found = {}
        if self._config.select == "best_val":
            found["val_accuracy"] = self._accuracy(variables, "val")
            if found["val_accuracy"] <= self._best:
                return found  # the test split is large and would not change the choice
        found["test_accuracy"] = self._accuracy(variables, "test")
        if found[self._metric] > self._best:
            self._best, self._tested = found[self._metric], found["test_accuracy"]
            self._save(variables)
        return found

    def final(self, variables: Any) -> float:
        """Test accuracy of the selected model, in [0, 1]."""
        if self._config.select != "last":
            return self._tested
        self._save(variables)
        return self._accuracy(variables, "test")

    def _accuracy(self, variables: Any, split_name: str) -> float:
        source = eval_batches(self._sources[split_name], EVALUATION_BATCH)
        return jm.evaluate(self._built.method, variables, source)["accuracy"]

    def _save(self, variables: Any) -> None:
        outputs = _outputs(self._setup, self._task)
        task = {"name": self._task.name, "num_classes": self._task.num_classes, "normalise": self._config.normalise}
        tuner, head = self._built.tuner, self._built.head
        save_tuner(self.file, tuner, self._setup.backbone, variables, num_classes=outputs, head=head, task=task)


def _outputs(setup: Setup, task: Task) -> int:
    # The embedded tasks share one head width, so that one compiled program serves them all; outputs without a class
    # are learned to be unlikely, as those of classes without an image are in VTAB-1k.
    return max(t.num_classes for t in setup.tasks) if setup.config.data == "embedded" else task.num_classes


def _features(setup: Setup, built: Built, variables: Any, source: Any) -> Any:
    return cached_reads(setup.backbone, built.tuner, variables["params"], source)


def _without(config: Any) -> Any:
    """The flags with what does not enter the compiled program at its default, so that runs share it."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{name: defaults[name] for name in (*BOOKKEEPING[:-1], "seed", "data_dir")})


def _plain(config: Any) -> dict[str, Any]:
    values = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
