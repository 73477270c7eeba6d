"""Tune a frozen vision transformer on many small image tasks.

    python -m experiments.vtab --method=res_tuning                       embedded tasks, no download, CPU
    python -m experiments.vtab --method=snell --data=vtab1k --data_dir=vtab-1k --backbone=b16 --weights=ViT-B_16.npz \
        --recipe=snell
    python -m experiments.vtab --method=lora --data=folder --data_dir=my_pictures --backbone=b16 --weights=...

Each task is trained on its 800 + 200 images and tested on its whole test split; the method stands next to the linear
probe and full fine-tuning, which are computed once and then taken from the results file.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import tyro
from jaxmodels.data.tasks import Task
from rich.console import Console

import jaxmodels as jm
from experiments import adapting, command, recipes, tables
from experiments.methods import METHODS
from jaxmodels.backbones.backbone import Backbone
from jaxmodels.backbones.vit import SIZES
from jaxmodels.data import tasks as data_tasks
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.precision import NAMES, precision
from jaxmodels.tuning.tuner_file import backbone_hash

MINI_WEIGHTS = Path(__file__).parents[1] / "data" / "vit_mini.safetensors"
REFERENCES = ("linear", "full")


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of `experiments.vtab`."""

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
    epochs: int = 12
    """Passes over the 1,000 training images."""
    steps: int | None = None
    """Optimizer steps; overrides epochs."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float | None = None
    """Peak learning rate; the method's own default unless given."""
    weight_decay: float = 1e-4
    """Decoupled weight decay, on matrices only."""
    warmup: float = 0.1
    """Share of the steps with rising learning rate; it then falls to 0 along a cosine."""
    drop_path: float = 0.0
    """Stochastic depth of the last block."""
    clip: float | None = None
    """Largest global norm of the gradients."""
    accumulate: int = 1
    """Micro-batches per step."""
    ema: float | None = None
    """Decay of a moving average of what trains; the average is then tested."""
    recipe: tyro.extras.literal_type_from_choices(("default", *recipes.RECIPES)) = "default"  # type: ignore[valid-type]
    """Per-task hyper-parameters of a paper; they replace the flags above."""
    select: Literal["last", "best_val", "best_test"] = "last"
    """Which model is tested: the last one (trained on all 1,000 images), the best on val200 (trained on train800), or
    the best on the test set, which is what papers report and flatters."""
    rank: int | None = None
    """Width of the tuner's bottleneck (LoRA's r, adapters' hidden width, SNELL's r)."""
    length: int | None = None
    """Number of prompts or prefixes, or of blocks for partial."""
    targets: tuple[str, ...] = ()
    """Linear layers for lora: some of q k v proj fc1 fc2."""
    sparsity: float | None = None
    """SNELL's share of pruned entries, in [0, 1)."""
    merge: Literal["lambda", "sum"] = "lambda"
    """How res_tuning_bypass merges: as the paper, or as the released code."""
    image_size: int | None = None
    """Side of the input in pixels; the backbone's own unless given."""
    resize: Literal["bicubic", "bilinear", "tf_bilinear"] = "bicubic"
    """How images are resized; tf_bilinear is VPT's."""
    normalise: Literal["imagenet", "inception"] = "imagenet"
    """Mean and deviation of inputs. PEFT papers use ImageNet's, also for Google's checkpoints."""
    precision: tyro.extras.literal_type_from_choices(NAMES) = "auto"  # type: ignore[valid-type]
    """Dtype of the backbone: bfloat16 on an accelerator, float32 on a CPU."""
    remat: bool = False
    """Recompute each block in the backward pass."""
    references: bool = True
    """Also show linear probe and full fine-tuning (trained once, then read from the results file)."""
    save_every: int = 0
    """Steps between checkpoints; 0 saves on Ctrl-C and at the end."""
    resume: bool = False
    """Skip finished tasks and continue the interrupted one from its checkpoint."""


def main(config: Config) -> None:
    """Trains the method and its references on every task, then shows and saves the comparison."""
    console = Console()
    started = time.perf_counter()
    backbone, params = load_backbone(config)
    chosen = load_tasks(config, backbone)
    setup = adapting.Setup(config, backbone, params, backbone_hash(params), chosen, console)
    names = (*REFERENCES, config.method) if config.references else (config.method,)
    tables.headline(console, config, backbone, chosen)
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for name in dict.fromkeys(names):
        rows[name] = {task.name: adapting.run(setup, name, task) for task in chosen}
    folder = adapting.run_folder(setup, config.method)
    histories = {task.name: read_metrics(folder / task.name / "metrics.jsonl") for task in chosen}
    tables.show(console, chosen, rows, config.method)
    tables.draw(folder / "summary.png", chosen, rows, histories)
    console.print(f"Picture, metrics and saved tuners: {folder}  ({time.perf_counter() - started:.0f} s in all)")


def load_backbone(config: Config) -> tuple[Backbone, Any]:
    """The backbone and its published weights; never random ones.

    Raises:
        ValueError: no weights were named for a size that has none bundled.
    """
    backbone = jm.vit(
        config.backbone,
        image_size=config.image_size,
        drop_path=config.drop_path,
        remat=config.remat,
        dtype=precision(config.precision).compute,
    )
    if not config.weights and config.backbone != "mini":
        raise ValueError(f"--weights: --backbone={config.backbone} needs a checkpoint (a file, folder or hub name)")
    return backbone, jm.load_weights(config.weights or MINI_WEIGHTS, backbone)


def load_tasks(config: Config, backbone: Backbone) -> list[Task]:
    """The tasks that `--data` and `--tasks` name.

    Raises:
        ValueError: no --data_dir where one is needed, or an unknown task.
    """
    names = tuple(filter(None, config.tasks.split(",")))
    size = backbone.image_size
    if config.data == "embedded":
        return data_tasks.embedded_tasks(names, image_size=size, normalise=config.normalise)
    if config.data_dir is None:
        raise ValueError(f"--data_dir: --data={config.data} needs the folder that holds it, found none")
    images = {"image_size": size, "resize": config.resize, "normalise": config.normalise}
    if config.data == "vtab1k":
        return data_tasks.vtab1k_tasks(config.data_dir, names, reader=config.reader, **images)
    if config.data == "fgvc":
        return data_tasks.fgvc_tasks(config.data_dir, names, image_size=size, normalise=config.normalise)
    return [data_tasks.folder_task(config.data_dir, seed=config.seed, **images)]


if __name__ == "__main__":
    command.run(main, Config, __doc__, "experiments.vtab")
