"""Tune a frozen vision transformer on many small image tasks.

    python -m experiments.vtab --method=res_tuning                    embedded tasks: no download, CPU, minutes
    python -m experiments.vtab --method=snell --data=vtab1k --data_dir=vtab-1k --backbone=b16 \
        --weights=vit_b16_in21k --recipe=snell
    python -m experiments.vtab --method=lora --data=folder --data_dir=my_pictures --backbone=b16 \
        --weights=vit_b16_augreg_in21k

Each task trains on its 800 + 200 images and is tested on its whole test split. Where a flag or a recipe leaves several
settings open, they are compared on the 200 after training on the 800. The method stands next to a linear probe and full
fine-tuning, which are trained once and then read from the results file.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

import jaxmodels as jm
from experiments import adapting, command, planning, recipes, running, runs, tables
from experiments.methods import METHODS
from experiments.running import Running
from jaxmodels.backbones.backbone import Backbone
from jaxmodels.backbones.vit import SIZES
from jaxmodels.data import tasks as data_tasks
from jaxmodels.data.tasks import Task
from jaxmodels.training import processes
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.precision import NAMES, precision
from jaxmodels.tuning.tuner_file import backbone_hash

MINI_WEIGHTS = Path(__file__).parents[1] / "data" / "vit_mini.safetensors"
REFERENCES = ("linear", "full")
KINDS = ("prefix", "adapter", "prompt", "none")


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is computed, and what is shown of it."""

    method: tyro.extras.literal_type_from_choices(METHODS) = "res_tuning"  # type: ignore[valid-type]
    """Tuner to train."""
    data: Literal["embedded", "vtab1k", "fgvc", "folder"] = "embedded"
    """Tasks: bundled and generated ones, VTAB-1k, fine-grained classification, or your own class folders."""
    data_dir: Path | None = None
    """Where vtab1k, fgvc or folder data lie."""
    reader: Literal["folder", "tfds"] = "folder"
    """How vtab1k is stored: the extracted copy with train800.txt and so on, or TensorFlow Datasets."""
    tasks: str = ""
    """Comma-separated task names; empty takes all."""
    backbone: tyro.extras.literal_type_from_choices(SIZES) = "mini"  # type: ignore[valid-type]
    """Vision transformer size."""
    weights: str = ""
    """Checkpoint: a file, a folder or a hub name. Empty takes the bundled weights, which only mini has."""
    workdir: Path = Path("runs/vtab")
    """Folder for results, metrics, pictures, tuners and checkpoints."""
    seed: int = 0
    """Seed of initialisation, order of examples and randomness in training."""
    seeds: tuple[int, ...] = ()
    """Several seeds: the table then shows mean and standard deviation. Overrides seed."""
    epochs: int = 12
    """Passes over the training images."""
    steps: int | None = None
    """Optimizer steps; overrides epochs."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: tuple[float, ...] = ()
    """Peak learning rate; several are compared on the validation images. The method's own unless given."""
    weight_decay: tuple[float, ...] = (1e-4,)
    """Decoupled weight decay, on matrices only; several are compared on the validation images."""
    drop_path: float = 0.0
    """Stochastic depth of the last block."""
    clip: float | None = None
    """Largest global norm of the gradients."""
    accumulate: int = 1
    """Micro-batches per step."""
    ema: float | None = None
    """Decay of a moving average of what trains; the average is then tested."""
    recipe: tyro.extras.literal_type_from_choices(("flags", *recipes.RECIPES)) = "flags"  # type: ignore[valid-type]
    """A paper's hyper-parameters per task, in place of the flags for epochs, batch, rates, decay and drop_path."""
    select: Literal["last", "best_val", "best_test"] = "last"
    """Which model is tested: the last (trained on all 1,000 images), the best on the 200 validation images (trained on
    800), or the best on the test split, which is what papers report and which flatters."""
    rank: int | None = None
    """Width of the tuner's bottleneck (LoRA's and SNELL's rank, hidden width of adapters)."""
    length: int | None = None
    """Number of prompts or prefixes, or of blocks for partial."""
    mha: Literal["prefix", "adapter", "prompt", "none"] | None = None
    """res_tuning: what stands beside the attention."""
    ffn: Literal["prefix", "adapter", "prompt", "none"] | None = None
    """res_tuning: what stands beside the MLP."""
    block: Literal["prefix", "adapter", "prompt", "none"] | None = None
    """res_tuning: what stands beside the whole block."""
    targets: tuple[str, ...] | None = None
    """lora: linear layers, some of q k v proj fc1 fc2."""
    sparsity: float | None = None
    """snell, snella: share of pruned entries, in [0, 1)."""
    merge: Literal["lambda", "sum"] | None = None
    """res_tuning_bypass: how branches merge, as in the paper or as in the released code."""
    image_size: int | None = None
    """Side of the input in pixels; the backbone's own unless given."""
    resize: Literal["bicubic", "bilinear", "tf_bilinear"] = "bicubic"
    """How vtab1k images are resized; tf_bilinear is VPT's."""
    normalise: Literal["auto", "imagenet", "inception"] = "auto"
    """Mean and deviation of inputs; auto is what mini was pre-trained with, and ImageNet's for the others, as in PEFT
    papers (also for Google's checkpoints)."""
    augmentation: Literal["timm", "vpt", "none"] | None = None
    """Of fgvc and folder training images; timm for fgvc and none for folders unless given."""
    precision: tyro.extras.literal_type_from_choices(NAMES) = "auto"  # type: ignore[valid-type]
    """Dtype of the backbone: bfloat16 on an accelerator, float32 on a CPU."""
    remat: bool = False
    """Recompute each block in the backward pass."""
    cache: Literal["ram", "disk", "none"] = "ram"
    """Where decoded images are kept: in memory, as far as they fit in half of it; in a file; or nowhere."""
    plan_steps: Literal["both", "train"] = "both"
    """Plan the train and the evaluation step, or the train step alone, which takes about 0.7 of the time."""
    workers: int = 0
    """Processes that read and decode images ahead; 0 leaves it to a thread."""
    references: bool = True
    """Also show linear probe and full fine-tuning."""


@dataclasses.dataclass(frozen=True)
class Config(Running, Flags):
    """Flags of `experiments.vtab`."""

    stall_factor: float = 20.0
    """No step within so many times the median step (and a minute) ends the run with status 5, after printing every
    thread's stack and the process that is behind; 0 never does."""


def main(config: Config) -> None:
    """Trains the method and its references on every task, then shows and saves the comparison."""
    started = time.perf_counter()
    check(config)
    if config.plan:
        planning.run(config, Console())
        return
    console = running.join(config)
    backbone, params = load_backbone(config)
    chosen = load_tasks(config, backbone)
    mesh = running.mesh_of(config)
    setup = runs.Setup(config, backbone, params, backbone_hash(params), chosen, console, [], mesh)
    adapting.check_settings(setup)
    tables.headline(console, config, backbone, chosen)
    names = (*REFERENCES, config.method) if config.references else (config.method,)
    rows: tables.Rows = {
        name: {task.name: [adapting.run(setup, name, task, seed) for seed in running.seeds(config)] for task in chosen}
        for name in dict.fromkeys(names)
    }
    folder = runs.method_folder(setup, config.method)
    first = {t.name: read_metrics(runs.run_folder(setup, config.method, t, running.seeds(config)[0]) / "metrics.jsonl")
             for t in chosen}  # fmt: skip
    tables.show(console, chosen, rows, config.method)
    tables.goodput(console, setup.clocks)
    if processes.is_main():
        tables.draw(folder / "summary.png", chosen, rows, first)
    console.print(f"Picture, metrics and saved tuners: {folder}  ({time.perf_counter() - started:.0f} s in all)")


def check(config: Config) -> None:
    """Raises a ValueError for values that no run can use, before anything is loaded."""
    for flag, value in (("epochs", config.epochs), ("batch_size", config.batch_size), ("steps", config.steps)):
        if value is not None and value < 1:
            raise ValueError(f"--{flag}: found {value}, expected at least 1")
    if config.data != "embedded" and config.data_dir is None and not config.plan:
        raise ValueError(f"--data_dir: --data={config.data} needs the folder that holds it, found none")
    if not config.weights and config.backbone != "mini" and not config.plan:
        raise ValueError(f"--weights: --backbone={config.backbone} needs a checkpoint (a file, folder or hub name)")


def load_backbone(config: Config) -> tuple[Backbone, Any]:
    """The backbone and its published weights; never random ones."""
    dtype = precision(config.precision).compute
    backbone = jm.vit(config.backbone, image_size=config.image_size, remat=config.remat, dtype=dtype)
    return backbone, jm.load_weights(config.weights or MINI_WEIGHTS, backbone)


def load_tasks(config: Config, backbone: Backbone) -> list[Task]:
    """The tasks that `--data` and `--tasks` name."""
    names = tuple(filter(None, config.tasks.split(",")))
    size, cache = backbone.image_size, config.cache
    statistics = adapting.normalisation(config)
    if config.data == "embedded":
        return data_tasks.embedded_tasks(names, image_size=size, normalisation=statistics)
    assert config.data_dir is not None  # `check` ran
    if config.data == "vtab1k":
        return data_tasks.vtab1k_tasks(
            config.data_dir,
            names,
            reader=config.reader,
            image_size=size,
            resize_method=config.resize,
            normalisation=statistics,
            cache=cache,
        )
    if config.data == "fgvc":
        augmentation = config.augmentation or "timm"
        return data_tasks.fgvc_tasks(
            config.data_dir, names, image_size=size, augmentation=augmentation, normalisation=statistics, cache=cache
        )
    augmentation = config.augmentation or "none"
    return [
        data_tasks.folder_task(
            config.data_dir, image_size=size, augmentation=augmentation, normalisation=statistics, cache=cache
        )
    ]


if __name__ == "__main__":
    command.run(main, Config, __doc__, "experiments.vtab")
