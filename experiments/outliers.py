"""Find outliers among objects with several views, some of them missing: RCPMOD beside scikit-learn's detectors.

    python -m experiments.outliers --method=rcpmod               bundled digits in two views: no download, CPU, minutes
    python -m experiments.outliers --method=rcpmod --dataset=landuse21 --data_dir=multiview --recipe=paper
    python -m experiments.outliers --dataset=mine --data_dir=tables --outliers=unknown

Three kinds of outliers are put into real data by the published protocol (class outliers whose views contradict each
other, attribute outliers that are noise in all views, and a mixture), and some views are taken away. Nothing is told
about them to the methods; the area under the ROC curve says how well scores find them. With --outliers=unknown the data
are taken as they are, and scores.csv in the run's folder lists the most outlying objects first.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import tyro

from experiments import (
    command,
    outlier_data,
    outlier_methods,
    outlier_planning,
    outlier_runs,
    outlier_tables,
    running,
    tables,
)
from experiments.outlier_methods import METHODS
from experiments.running import Running
from jaxmodels.outliers.autoencoder import ACTIVATIONS
from jaxmodels.outliers.pairs import built, check_data
from jaxmodels.outliers.rcpmod import CONTRASTS
from jaxmodels.training import processes


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is computed, and what is shown of it."""

    method: tyro.extras.literal_type_from_choices(METHODS) = "rcpmod"  # type: ignore[valid-type]
    """What finds outliers."""
    dataset: str = ""
    """Data set: digits (bundled), landuse21, scene15, handwritten, bdgp, fashion, or any name of one in --data_dir."""
    data_dir: Path | None = None
    """A .mat, a .npz or a folder of .csv files, one per view; or a folder that holds it under the data set's name."""
    views: tuple[int, ...] = ()
    """Views to use, numbers from 0; those of the published protocol, else all."""
    outliers: Literal["inject", "labelled", "unknown"] = "inject"
    """inject: put outliers in by the protocol; labelled: the data's two classes are normal and outlier, called 0 and
    1, 1 and -1, or so in words; unknown: none are known, and only scores come out."""
    missing_rate: float = 0.3
    """Views that are taken away, unless the data lack some already: the rate divided by the number of views is the
    share of missing entries."""
    attribute_rate: float = 0.05
    """Share of attribute outliers."""
    class_rate: float = 0.02
    """Share of class outliers."""
    both_rate: float = 0.08
    """Share of class-attribute outliers."""
    workdir: Path = Path("runs/outliers")
    """Folder for results, scores, metrics, pictures, autoencoders and checkpoints."""
    seed: int = 0
    """Seed of missing views, outliers, initialisation, order of objects and the triplet's positives."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Several seeds: the table then shows mean and standard deviation. Overrides seed."""
    recipe: Literal["flags", "paper"] = "flags"
    """paper: the released settings of the data set; flags that are given win."""
    epochs: int | None = None
    """Epochs per pair of views; 100 unless the recipe says otherwise."""
    batch_size: int | None = None
    """Rows per step; 256."""
    learning_rate: float | None = None
    """Of Adam; 1e-3."""
    hidden: tuple[int, ...] | None = None
    """Widths of an encoder's hidden layers; 256 unless the recipe says otherwise (1024 1024)."""
    latent: int | None = None
    """Width of latent vectors; 64."""
    activation: tyro.extras.literal_type_from_choices(ACTIVATIONS) | None = None  # type: ignore[valid-type]
    """Of hidden layers; relu."""
    batch_norm: bool | None = None
    """Normalise hidden layers over the batch; off."""
    error_weight: float | None = None
    """Weight of reconstruction errors in the score, against the disagreement of views; 0.6."""
    neighbours: int | None = None
    """Neighbours of an object in each view; 6."""
    temperature: float | None = None
    """Of the contrastive losses; 0.5."""
    contrast: tyro.extras.literal_type_from_choices(CONTRASTS) | None = None  # type: ignore[valid-type]
    """outlier_aware with the bank, plain without, or none."""
    contrast_weight: float | None = None
    """Weight of the contrast; 1."""
    neighbour_weight: float | None = None
    """Weight of the alignment of neighbours; 1, and 0 leaves it out."""
    spreading_weight: float | None = None
    """Weight of the spreading regularisation where its schedule ends; 0.2."""
    schedule_epochs: int | None = None
    """Length of that schedule, at least 101; 1000, and 0 takes the weight at once."""
    warmup_peak: float | None = None
    """Weight after the first 100 epochs of the schedule; 0.02."""
    spread: tuple[Literal["triplet", "uniform"], ...] | None = None
    """Parts of the spreading regularisation; both."""
    bank: int | None = None
    """Batches that the bank of potential outliers remembers; 5."""
    share: float | None = None
    """Share of a batch that goes into the bank; 0.05."""
    impute_from: int | None = None
    """Epoch from which objects with a missing view take part in the contrast, latents imputed; 50, and -1 never."""
    refresh_neighbours: int | None = None
    """Epochs between searches for neighbours among latents; 50, and -1 searches once, at the start."""
    refresh_negatives: int | None = None
    """Epochs between searches for the triplet's negatives; 5."""
    negative: int | None = None
    """Which neighbour is the triplet's negative; the 50th."""
    compat: bool | None = None
    """Three quirks of the released code: see docs/outliers.md. Off, and on in the paper's recipe."""
    evaluate_every: int = 5
    """Epochs between logged rows with their areas under the curve."""
    plan_steps: Literal["both", "train"] = "both"
    """Plan the train step and the scores, or the train step alone."""
    references: bool = True
    """Also show scikit-learn's detectors."""
    picture: bool = True
    """Draw the picture."""


@dataclasses.dataclass(frozen=True)
class Config(Running, Flags):
    """Flags of `experiments.outliers`."""

    mesh: str = ""
    """Sizes of the mesh's axes, such as data:-1: the rows of a batch are split over it; empty uses one device."""
    resume: bool = False
    """Skip finished runs and pairs, and continue the interrupted one from its checkpoint."""


def main(config: Config) -> None:
    """Scores the objects of every seed by the method and the other detectors, then shows and saves the comparison."""
    started = time.perf_counter()
    check(config)
    console = running.join(config)  # before anything computes
    problem = outlier_data.load(config)
    ready(config, problem)
    if config.plan:
        outlier_planning.run(config, problem, console)
        return
    mesh = running.mesh_of(config)
    setup = running.Setup(config, problem, console, [], mesh)
    outlier_tables.headline(setup)
    names = running.compared(config, METHODS)
    rows = {name: [outlier_runs.run(setup, name, seed) for seed in running.seeds(config)] for name in names}
    outlier_tables.show(setup, rows)
    tables.goodput(console, setup.clocks)
    folder = outlier_runs.method_folder(setup, config.method)
    if processes.is_main() and config.picture:
        outlier_tables.draw(folder / "summary.png", setup, rows, running.seeds(config)[0])
    console.print(f"Scores, and what else there is: {folder}  ({time.perf_counter() - started:.0f} s in all)")


def check(config: Config) -> None:
    """Raises a ValueError for values that no run can use, before anything is loaded."""
    for flag in ("epochs", "batch_size", "latent", "evaluate_every", *(("hidden",) if config.hidden else ())):
        value: Any = getattr(config, flag)
        least = 2 if flag == "batch_size" else 1
        if value is not None and min(value if isinstance(value, tuple) else (value,)) < least:
            raise ValueError(f"--{flag}: found {value}, expected at least {least}")
    weights = "error_weight", "contrast_weight", "neighbour_weight", "spreading_weight", "warmup_peak"
    running.not_negative(config, weights)
    for flag, value in outlier_data.inject_flags(config).items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"--{flag}: found {value}, expected 0 to 1")
    if config.method != "rcpmod" and outlier_methods.tuned(config) != config:
        given = next(f for f in vars(config) if getattr(outlier_methods.tuned(config), f) != getattr(config, f))
        raise ValueError(f"--{given}: --method={config.method} has no such option, only rcpmod has")


def ready(config: Config, problem: outlier_data.Problem) -> None:
    """Raises a ValueError for flags that do not fit the data, before anything trains."""
    case = outlier_data.case_of(config, problem, running.seeds(config)[0])
    if config.method == "rcpmod" or config.references:
        recipe = outlier_methods.recipe_of(config, problem.name)
        check_data(case.views, case.mask, recipe)
        built(recipe, (case.views[0].shape[1], case.views[1].shape[1]))


if __name__ == "__main__":
    command.run(main, Config, __doc__ or "", "experiments.outliers")
