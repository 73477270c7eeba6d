"""Recommend items: DPCML, which gives users several vectors, and eleven relatives that learn distances.

    python -m experiments.recommendation --method=dpcml         embedded, synthetic: no download, CPU, two minutes
    python -m experiments.recommendation --method=dpcml --dataset=steam200k --data_dir=recsys --no-references
    python -m experiments.recommendation --method=hars --dataset=ml-1m --data_dir=movielens --seeds 0 1 2
    python -m experiments.recommendation --method=dpcml --dataset=mine --data_dir=mine.csv

A folder may hold MovieLens as GroupLens ships it (100k, 1M, 10M, 20M), the users.dat of the released code (Steam-200k,
CiteULike), or any text file of `user item [rating] [time]` rows. The epoch is chosen on validation items, the table is
about test items; metrics are those of the released evaluator. The other methods stand next to the chosen one, each
trained once and then read from the results file.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from experiments import (
    command,
    recommendation_data,
    recommendation_picture,
    recommendation_planning,
    recommendation_runs,
    recommendation_tables,
    running,
    tables,
)
from experiments.recommendation_judging import metric_names
from experiments.recommendation_methods import ALIASES, METHODS
from experiments.running import Running
from jaxmodels.recommendation.dpcml import NORMS, STRATEGIES
from jaxmodels.recommendation.preference import FORMS
from jaxmodels.rules import nearest
from jaxmodels.training import processes

NAMES = (*ALIASES, *METHODS)
EMBEDDED = {"epochs": 30, "dim": 16}  # of the embedded data, where the flags leave it open
PUBLISHED = {"epochs": 100, "dim": 100}


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is computed, and what is shown of it."""

    method: tyro.extras.literal_type_from_choices(NAMES) = "dpcml"  # type: ignore[valid-type]
    """Recommender to train; dpcml is dpcml2, with hard sampling."""
    dataset: str = ""
    """Data set: interests (embedded, synthetic), steam200k, citeulike-t, ml-100k, ml-1m, ml-10m, or the name of yours.
    Empty takes the name of --data_dir, or interests without one."""
    data_dir: Path | None = None
    """Folder that holds the data set's files or a folder of its name with them, or one file of rows."""
    split: Literal["random", "latest", "given"] = "random"
    """random: 3:1:1 of each user's items, as published; latest: the newest are the test; given: LibCML's matrices."""
    split_seed: int = 1234
    """Seed of the random split; 1234 is the published one."""
    least_rating: float | None = None
    """Ratings from here on are interactions; 4 for MovieLens, all rows of other files unless given."""
    fewest: int = 5
    """Interactions that a user needs to take part."""
    workdir: Path = Path("runs/recommendation")
    """Folder for results, metrics, pictures, models and checkpoints."""
    seed: int = 0
    """Seed of initialisation, order of pairs and negatives."""
    seeds: tuple[int, ...] = ()
    """Several seeds: the table then shows mean and standard deviation. Overrides seed."""
    epochs: int | None = None
    """Passes over the training pairs; 100 as published, 30 on the embedded data."""
    patience: int = 0
    """Evaluations without a better validation metric that end a run; 0 runs all epochs, as published."""
    evaluate_every: int = 1
    """Epochs between evaluations."""
    select: str = "precision@3"
    """Validation metric that chooses the epoch: precision@K, recall@K, ndcg@K, map, mrr, auc or ndcg."""
    at: tuple[int, ...] = (3, 5)
    """K of precision, recall and NDCG."""
    eval_users: int = 0
    """Users that are ranked, drawn at random; 0 takes all (published on ml-10m: 5,000)."""
    chunk: int = 256
    """Users scored at once."""
    batch_size: int = 256
    """Rows per step."""
    dim: int | None = None
    """Length of a vector; 100 as published, 16 on the embedded data."""
    learning_rate: float | None = None
    """The method's own unless given: as published, a larger one on the embedded data."""
    weight_decay: float | None = None
    """L2; the method's own unless given."""
    margin: float | None = None
    """Margin of the hinge; the method's own unless given."""
    negatives: int | None = None
    """Items drawn for each pair that the user does not have; 10, on the embedded data 3 for uniform sampling."""
    vectors: int | None = None
    """dpcml: vectors per user; 5."""
    assignment: Literal["bpa", "apa"] | None = None
    """dpcml: bpa gives all users as many vectors, apa floor(log2 of their items), a reconstruction."""
    strategy: tyro.extras.literal_type_from_choices(STRATEGIES) | None = None  # type: ignore[valid-type]
    """dpcml, cml: where negatives come from; two_stage takes popular ones that are like the positive item."""
    pool: int | None = None
    """dpcml, cml: popular items of which two_stage draws; 300."""
    form: tyro.extras.literal_type_from_choices(FORMS) | None = None  # type: ignore[valid-type]
    """dpcml, cml: what a row's loss takes of its negatives: mean (uniform sampling), nearest (hard sampling), or of the
    reconstructed partial-AUC losses topk, cvar, soft."""
    beta: float | None = None
    """dpcml, cml: share of the negatives that topk and cvar take, the range of false positive rates; 0.3."""
    temperature: float | None = None
    """dpcml, cml: of soft; 0.5."""
    diversity: float | None = None
    """dpcml: weight of the regularisation of diversity; 10."""
    low: float | None = None
    """dpcml: its lower bound."""
    high: float | None = None
    """dpcml: its upper bound; not above the lower one, it switches the regularisation off, as released."""
    bounds: Literal["pair", "paper"] | None = None
    """dpcml: bound every pair of vectors as released, or each user's mean as in the paper."""
    norm: tyro.extras.literal_type_from_choices(NORMS) | None = None  # type: ignore[valid-type]
    """dpcml, cml: users on the unit sphere, items in the ball when looked up (dpcml); both on it; both in it; none."""
    reduction: Literal["sum", "mean"] | None = None
    """dpcml, cml: sum of a batch as released, or mean."""
    covariance: float | None = None
    """cpe: weight of the covariance term; 0."""
    memories: int | None = None
    """lrml: memories; 20."""
    distance: float | None = None
    """transcf: weight of the positives' distances; 0.01."""
    neighbourhood: float | None = None
    """transcf: weight of the distances to neighbourhoods; 0.01."""
    tie_users: float | None = None
    """crml: weight that ties users to their co-occurrence vectors; 0.1."""
    tie_items: float | None = None
    """crml: the same for items."""
    in_batch: bool | None = None
    """crml: one negative a row, and the nearest of the batch's, as the released training does."""
    compat: bool | None = None
    """crml: the released fit of co-occurrences, which adds the biases of all pairs to every pair."""
    plan_steps: Literal["both", "train"] = "both"
    """Plan the train step and the ranking of one batch of users, or the train step alone."""
    plan_users: int = 0
    """With --plan: number of users, in place of a data set's."""
    plan_items: int = 0
    """With --plan: number of items; a tenth of the users unless given."""
    plan_interactions: int = 20
    """With --plan: training items per user."""
    references: bool = True
    """Also show the other methods."""
    picture: bool = True
    """Draw the picture."""


@dataclasses.dataclass(frozen=True)
class Config(Running, Flags):
    """Flags of `experiments.recommendation`."""

    mesh: str = ""
    """Sizes of the mesh's axes, such as model:-1 (tables sharded) or data:2,model:4; empty uses one device."""


def main(config: Config) -> None:
    """Trains the method and the others, then shows and saves the comparison."""
    started = time.perf_counter()
    check(config)
    if config.plan:
        recommendation_planning.run(settled(config, embedded=False), Console())
        return
    console = running.join(config)
    loaded = recommendation_data.load(config)
    config = settled(config, embedded=loaded.name == recommendation_data.EMBEDDED)
    mesh = running.mesh_of(config)
    setup = running.Setup(config, loaded, console, [], mesh)
    names = running.compared(config, METHODS)
    check_data(setup)
    for name in names:  # wrong flags stop the command before anything trains
        recommendation_runs.made(setup, name)
    recommendation_tables.headline(setup)
    rows = {name: [recommendation_runs.run(setup, name, seed) for seed in running.seeds(config)] for name in names}
    recommendation_tables.show(setup, rows)
    tables.goodput(console, setup.clocks)
    folder = recommendation_runs.method_folder(setup, config.method)
    if processes.is_main() and config.picture:
        recommendation_picture.save(setup, rows, folder / "summary.png")
    console.print(f"Picture, metrics and saved models: {folder}  ({time.perf_counter() - started:.0f} s in all)")


def settled(config: Config, *, embedded: bool) -> Config:
    """The flags with what the data decide."""
    usual = EMBEDDED if embedded else PUBLISHED
    given: dict[str, Any] = {name: value for name, value in usual.items() if getattr(config, name) is None}
    return dataclasses.replace(config, method=ALIASES.get(config.method, config.method), **given)


def check(config: Config) -> None:
    """Raises a ValueError for values that no run can use, before anything is loaded."""
    for flag in ("epochs", "evaluate_every", "batch_size", "dim", "chunk", "fewest", "plan_interactions", "memories"):
        value: Any = getattr(config, flag)
        if value is not None and value < 1:
            raise ValueError(f"--{flag}: found {value}, expected at least 1")
    for flag in ("patience", "eval_users", "plan_users", "plan_items"):
        if getattr(config, flag) < 0:
            raise ValueError(f"--{flag}: found {getattr(config, flag)}, expected at least 0")
    if config.margin is not None and not 0 < config.margin < math.inf:
        raise ValueError(f"--margin: found {config.margin:g}, expected a positive number")
    weights = "diversity", "low", "high", "covariance", "distance", "neighbourhood", "tie_users", "tie_items"
    running.not_negative(config, weights)
    if not config.at or min(config.at) < 1:
        raise ValueError(f"--at: found {' '.join(map(str, config.at)) or 'none'}, expected numbers from 1")
    known = metric_names(config.at)
    if config.select not in known:
        hint = nearest(config.select, known)
        raise ValueError(f"--select: found '{config.select}', expected one of {', '.join(known)}{hint}")


def check_data(setup: running.Setup[recommendation_data.Loaded]) -> None:
    """Raises a ValueError where the data cannot have what the flags ask for."""
    config, loaded = setup.config, setup.problem
    if max(config.at) > loaded.num_items:
        raise ValueError(
            f"--at: found {max(config.at)}, expected at most {loaded.num_items}, the items of {loaded.name}"
        )
    for part, metric in (("val", config.select), ("test", config.select)):
        if not recommendation_runs.measure(setup, part).counted(metric):
            what = {"val": "validation", "test": "test"}[part]
            raise ValueError(
                f"--select={metric}: no user of {loaded.name} has enough {what} items to count; expected more data, or "
                "a metric that needs fewer"
            )
    if len(loaded.parts.train.items) == 0:
        raise ValueError(f"{loaded.name}: found no training item")


if __name__ == "__main__":
    command.run(main, Config, __doc__ or "", "experiments.recommendation")
