"""Pre-train the mini vision transformer that comes with the repository.

    python -m experiments.pretrain

The data are drawn by formulas (`jaxmodels.data.pretraining`), an endless mixture of shapes, colours, counts, places and
stripes with seven labels a picture; none of the embedded tasks' pictures is among them. The same flags give the same
weights on the same machine. Writes the weights (safetensors, timm's names) and, beside
them, a JSON file that says how they were made and how well a linear probe on them does on each embedded task.
"""

import dataclasses
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro
from rich.console import Console

import jaxmodels as jm
from experiments import command, tables
from jaxmodels.atomic import write_text
from jaxmodels.backbones.backbone import Backbone
from jaxmodels.backbones.vit import SIZES
from jaxmodels.data.pretraining import HEADS, pretraining_batch
from jaxmodels.data.tasks import Task, embedded_tasks
from jaxmodels.method import Aux, Mean, Method
from jaxmodels.rules import count
from jaxmodels.tuning.cache import cached_reads
from jaxmodels.weights.vit_checkpoint import save_vit


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of `experiments.pretrain`."""

    backbone: tyro.extras.literal_type_from_choices(SIZES) = "mini"  # type: ignore[valid-type]
    """Vision transformer size."""
    out: Path = Path("data/vit_mini.safetensors")
    """Where the weights go; a .json of the same name goes beside them."""
    workdir: Path = Path("runs/pretrain")
    """Folder for metrics and checkpoints."""
    steps: int = 3000
    """Optimizer steps."""
    batch_size: int = 256
    """Pictures per step."""
    learning_rate: float = 1.5e-3
    """Peak learning rate of AdamW; 5 % of the steps warm up, then a cosine to 0."""
    weight_decay: float = 0.05
    """Decoupled weight decay, on matrices only."""
    probe_epochs: int = 30
    """Passes of the linear probes over their 1,000 images."""
    seed: int = 0
    """Seed of initialisation and data."""
    save_every: int = 500
    """Steps between checkpoints."""
    resume: bool = False
    """Continue from the newest checkpoint of the workdir."""


class DrawnBatches:
    """batches[step], drawn on demand."""

    def __init__(self, seed: int, batch_size: int):
        self.seed, self.batch_size = seed, batch_size

    def __getitem__(self, step: int) -> dict[str, Any]:
        return pretraining_batch(self.seed, step, self.batch_size)


def many_heads(backbone: Backbone, heads: Mapping[str, int]) -> Method:
    """A method that trains everything to answer several questions about each picture: one linear head a question."""
    head = jm.linear_head()

    def init(key, batch):
        keys = jax.random.split(key, 1 + len(heads))
        each = {n: head.init(k, backbone.width, c) for k, (n, c) in zip(keys[1:], heads.items(), strict=True)}
        return {"params": {"backbone": backbone.init(keys[0]), "heads": each}, "state": {}}

    def predict(variables, batch):
        features = backbone.apply(variables["params"]["backbone"], batch["image"])
        return {name: head.apply(params, features) for name, params in variables["params"]["heads"].items()}

    def loss(variables, batch, key):
        logits = predict(variables, batch)
        losses = {
            name: optax.softmax_cross_entropy_with_integer_labels(logits[name], label)
            for name, label in batch["labels"].items()
        }
        correct = [logits[name].argmax(-1) == label for name, label in batch["labels"].items()]
        total = jnp.stack(list(losses.values())).mean()
        metrics = {f"loss_{name}": Mean.of(value) for name, value in losses.items()}
        accuracy = Mean.of(jnp.stack(correct).astype(jnp.float32))
        return total, Aux({}, {"loss": Mean(total, jnp.ones(())), "accuracy": accuracy, **metrics})

    return Method(init, loss, predict, ((".*", "all"),))


def main(config: Config) -> None:
    """Trains, probes, writes."""
    console = Console()
    backbone = jm.vit(config.backbone, image_size=32)
    method = many_heads(backbone, HEADS)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.steps // 20, config.steps)
    run = jm.fit(
        method,
        DrawnBatches(config.seed, config.batch_size),
        jm.adamw(method.groups, rate, weight_decay=config.weight_decay),
        steps=config.steps,
        seed=config.seed,
        workdir=config.workdir,
        resume=config.resume,
        save_every=config.save_every,
        log_every=50,
        on_log=tables.progress(console, f"pre-training {backbone.name}", config.steps),
    )
    params = run.variables["params"]["backbone"]
    probes = {task.name: round(probe(config, backbone, params, task), 1) for task in embedded_tasks()}
    save_vit(config.out, params, backbone, layout="timm")
    report = {
        "backbone": backbone.name,
        "parameters": count(params),
        "data": "jaxmodels.data.pretraining: drawn by formulas (synthetic), normalisation 'inception'",
        "questions": dict(HEADS),
        "steps": config.steps,
        "pictures": config.steps * config.batch_size,
        "seconds": round(run.seconds),
        "machine": f"{platform.machine()}, {jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
        "jax": jax.__version__,
        "seed": config.seed,
        "training_accuracy": round(100 * run.history[-1]["accuracy"], 1),
        "linear_probe_accuracy": probes,
        "command": "python -m experiments.pretrain",
        "written": time.strftime("%Y-%m-%d"),
    }
    write_text(config.out.with_suffix(".json"), json.dumps(report, indent=1) + "\n")
    console.print(report)


def probe(config: Config, backbone: Backbone, params: Any, task: Task) -> float:
    """Test accuracy in % of a linear probe trained on the task's 800 + 200 images."""
    tuner = jm.linear()
    method = jm.classifier(backbone, tuner, num_classes=task.num_classes)
    variables = method.init(jax.random.key(config.seed), None)
    variables["params"]["backbone"] = params
    train = cached_reads(backbone, tuner, params, task.trainval, dtype="float32")
    test = cached_reads(backbone, tuner, params, task.test, dtype="float32")
    steps = config.probe_epochs * len(train) // 64
    fitted = jm.fit(
        method,
        jm.batches(train, 64, seed=config.seed),
        jm.adamw(method.groups, optax.cosine_decay_schedule(1e-2, steps)),
        steps=steps,
        variables=variables,
        log_every=steps,
    )
    return 100.0 * jm.evaluate(method, fitted.variables, jm.eval_batches(test, 200))["accuracy"]


if __name__ == "__main__":
    command.run(main, Config, __doc__, "experiments.pretrain")
