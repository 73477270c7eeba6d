"""One method on one task: choose the setting, train, test, save the tuner, add a row to the results file."""

import functools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import optax

import jaxmodels as jm
from experiments import methods, recipes, tables
from experiments.judging import Judge
from experiments.recipes import Recipe
from experiments.running import fit_options
from experiments.runs import (
    Built,
    Setup,
    begin_folder,
    for_method,
    plain,
    previous_of,
    run_folder,
    tuner_flags,
    write_result,
)
from jaxmodels.backbones.backbone import Backbone
from jaxmodels.data.batches import batches, steps_per_epoch
from jaxmodels.data.tasks import Task
from jaxmodels.rules import count, split
from jaxmodels.training.checkpoint import has_checkpoint
from jaxmodels.training.memory import peak_bytes
from jaxmodels.training.mesh import local_rows
from jaxmodels.training.precision import precision, store_frozen
from jaxmodels.training.processes import is_main
from jaxmodels.training.results import find_result
from jaxmodels.training.schedule import epoch_cosine
from jaxmodels.tuning.cache import cached_reads


def run(setup: Setup, name: str, task: Task, seed: int) -> dict[str, Any]:
    """The result row of one method, task and seed: taken from the results file, or trained now."""
    folder = run_folder(setup, name, task, seed)
    key = {"run": folder.parent.name, "method": name, "task": task.name, "seed": seed}
    results = setup.config.workdir / "results.jsonl"
    known = find_result(results, key)
    if known and (setup.config.resume or name != setup.config.method):
        return known
    recipe = choose(setup, name, task, seed)
    row = {**key, **train(setup, name, task, seed, recipe, folder, setup.config.select)}
    write_result(results, row)
    return row


def normalisation(config: Any) -> Any:
    """The statistics of --normalise=auto: what the weights are used with."""
    if config.normalise != "auto":
        return config.normalise
    return "inception" if config.backbone == "mini" else "imagenet"


def check_settings(setup: Setup) -> None:
    """Raises a ValueError for tuner flags or a recipe that do not fit the method or a task, before anything trains."""
    name = setup.config.method
    for task in setup.tasks:
        for recipe in candidates(setup, name, task):
            methods.build(name, tuner_flags(setup.config), recipe.options, epochs=1, per_epoch=1)
            if recipe.batch_size > len(task.train):
                most = f"expected 1 to {len(task.train)}, the number of training examples of {task.name}"
                raise ValueError(f"--batch_size={recipe.batch_size}: {most}")


def candidates(setup: Setup, name: str, task: Task) -> tuple[Recipe, ...]:
    """The settings that the flags or the recipe leave open for a task."""
    config = for_method(setup.config, name)
    if config.recipe != "flags":
        found = recipes.candidates(config.recipe, task.name)
    else:
        rates = config.learning_rate or (methods.METHODS[name].learning_rate,)
        found = tuple(
            Recipe(
                lr,
                decay,
                config.batch_size,
                config.epochs,
                warmup_epochs=max(1, config.epochs // 10),
                warmup_lr=0.0,
                min_lr=0.0,
                drop_path=config.drop_path,
                drop_last=True,
            )
            for lr in rates
            for decay in config.weight_decay
        )
    # A small data set (a person's own, say) may hold less than one batch of a recipe.
    return tuple(r._replace(batch_size=min(r.batch_size, len(task.train))) for r in found) if _own(config) else found


def choose(setup: Setup, name: str, task: Task, seed: int) -> Recipe:
    """The setting to use: trained on the training split, the best on the validation split, the first one on a tie.

    Settings are compared with the command's first seed; its other seeds use the same setting.
    """
    found = candidates(setup, name, task)
    if len(found) == 1:
        return found[0]
    first = (setup.config.seeds or (setup.config.seed,))[0]
    folder, scores = run_folder(setup, name, task, first), []
    for i, recipe in enumerate(found):
        place = folder.with_name(f"{folder.name}-candidate{i}")
        known = None
        if setup.config.resume or seed != first:
            known = find_result(place / "result.jsonl", {"candidate": i})
        if known is None:
            known = {"candidate": i, **train(setup, name, task, first, recipe, place, "validate")}
            write_result(place / "result.jsonl", known)
        scores.append(known["accuracy"])
    best = found[scores.index(max(scores))]
    if seed == first:
        setup.console.print(
            f"{name} on {task.name}: of {len(found)} settings, learning rate {best.lr:g} and weight decay "
            f"{best.weight_decay:g} are best on the validation images ({max(scores):.1f} %)",
            highlight=False,
        )
    return best


@functools.lru_cache(maxsize=256)
def build(
    name: str,
    flags: tuple[tuple[str, Any], ...],
    recipe: str,
    backbone: Backbone,
    outputs: int,
    steps: int,
    per_epoch: int,
) -> Built:
    """Tuner, method and optimizer of one setting (the recipe as JSON, so that equal settings share compiled steps)."""
    r = Recipe(**json.loads(recipe))
    choice = methods.METHODS[name]
    options = dict(flags)
    clip = options.pop("clip")
    tuner = methods.build(name, options, r.options, epochs=max(1, steps // per_epoch), per_epoch=per_epoch)
    head = choice.head()
    tuned = backbone._replace(module=backbone.module.clone(drop_path=r.drop_path))
    method = jm.classifier(tuned, tuner, num_classes=outputs, head=head)
    make: Any = jm.adamw if r.optimizer == "adamw" else jm.sgd
    return Built(
        tuner,
        head,
        method,
        make(method.groups, schedule_of(r, steps, per_epoch), weight_decay=r.weight_decay, clip=clip),
    )


def schedule_of(recipe: Recipe, steps: int, per_epoch: int) -> optax.Schedule:
    """The recipe's learning rate over `steps` optimizer steps."""
    if recipe.schedule == "epochs":
        return epoch_cosine(
            recipe.lr,
            epochs=max(1, steps // per_epoch),
            steps_per_epoch=per_epoch,
            warmup_epochs=recipe.warmup_epochs,
            initial=recipe.warmup_lr,
            floor=recipe.min_lr,
        )
    warmup = min(recipe.warmup_epochs * per_epoch, steps // 2)
    return optax.warmup_cosine_decay_schedule(recipe.warmup_lr, recipe.lr, warmup, steps, recipe.min_lr)


def train(setup: Setup, name: str, task: Task, seed: int, recipe: Recipe, folder: Path, select: str) -> dict[str, Any]:
    """Trains one method on one task, saves its tuner, and returns what was measured.

    `select` is the flag's value, or 'validate' for a candidate: trained on the training split, judged on validation.
    """
    started = time.perf_counter()
    config = for_method(setup.config, name)
    source = task.train if select in ("best_val", "validate") else task.trainval
    remainder: Any = "drop" if recipe.drop_last else "pad"
    per_epoch = max(1, steps_per_epoch(len(source), recipe.batch_size, remainder=remainder))
    steps = recipe.epochs * per_epoch if config.steps is None else config.steps
    outputs = max(t.num_classes for t in setup.tasks) if config.data == "embedded" else task.num_classes
    flags = {**tuner_flags(config), "clip": config.clip}
    key = (tuple(sorted(flags.items())), json.dumps(recipe._asdict()))
    built = build(name, *key, setup.backbone, outputs, steps, per_epoch)
    variables = built.method.init(jax.random.key(seed), None)
    params = {**variables["params"], "backbone": setup.params}
    variables["params"] = store_frozen(params, built.method.groups, precision(config.precision))
    sources = {"train": source, "val": task.val, "test": task.test}
    if built.tuner.bypass and not built.tuner.groups(setup.backbone) and task.augment is None:
        sources = {
            name: cached_reads(setup.backbone, built.tuner, variables["params"]["backbone"], part, batch_size=100)
            for name, part in sources.items()
        }
    settings = {"recipe": recipe._asdict(), "flags": plain(config), "normalisation": task.normalisation}
    begin_folder(folder, settings, config.resume)
    judge = Judge(built, setup, task, sources, folder, select, outputs)
    fitted = jm.fit(
        built.method,
        batches(
            sources["train"],
            recipe.batch_size,
            seed=seed,
            augment=task.augment,
            remainder=remainder,
            rows=local_rows(setup.mesh, recipe.batch_size),
        ),
        built.optimizer,
        steps=steps,
        variables=variables,
        seed=seed,
        workdir=folder,
        resume=config.resume and has_checkpoint(folder),
        log_every=max(1, steps // 20),
        evaluate=judge if select in ("best_val", "best_test") else None,
        evaluate_every=max(1, recipe.epochs // 10) * per_epoch,
        accumulate=config.accumulate,
        ema=config.ema,
        mesh=setup.mesh,
        reference={"backbone": setup.backbone.name, "sha256": setup.digest},
        workers=config.workers,
        **fit_options(config),
        on_log=tables.progress(setup.console, f"{name} on {task.name}", steps),
    )
    final = fitted.variables if fitted.average is None else fitted.average
    accuracy = judge.final(final)
    trained, _ = split(final["params"], built.method.groups)
    setup.clocks.append(fitted.clock)
    if is_main():
        shutil.rmtree(previous_of(folder), ignore_errors=True)
    return {
        "accuracy": 100.0 * accuracy,
        "select": select,
        "backbone": setup.backbone.name,
        "data": config.data,
        "group": task.group,
        "real": task.real,
        "trained": count(trained),
        "seconds": time.perf_counter() - started,
        "steps": steps,
        "peak_bytes": peak_bytes(),
        "tuner_bytes": judge.bytes(),
        "settings": settings,
    }


def _own(config: Any) -> bool:
    return config.data == "folder"
