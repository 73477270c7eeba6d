"""Answer logical queries on an incomplete knowledge graph, with or without Logic Diffusion (LoD).

    python -m experiments.reasoning                   an embedded family tree (synthetic): no download, CPU, minutes
    python -m experiments.reasoning --base=betae --data_dir=FB15k-237-betae --dim=400 --gamma=60 --steps=450001 \
        --batch_size=512 --negatives=128 --learning_rate=1e-4 --hidden=1600
    python -m experiments.reasoning --method=base --base=query2box --data_dir=my_graph --noise=answer --eta=0.3

A base model (GQE, Query2Box, BetaE) is trained on a few query structures and tested on more of them: filtered MRR over
all entities, for answers that need edges which training did not have. LoD adds queries diffused from the training
queries, weights that keep kinds of queries in balance, and a loss that bears wrong answers; its details are this
project's reconstruction, since only the paper's abstract could be obtained. The base model stands next to it.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Literal

import tyro

from experiments import (
    command,
    reasoning_data,
    reasoning_picture,
    reasoning_plan,
    reasoning_runs,
    reasoning_tables,
    running,
    tables,
)
from experiments.running import Running
from jaxmodels.reasoning.adaption import GROUPINGS, MODES, REDUCTIONS
from jaxmodels.reasoning.robust_loss import SIDES

BASES = ("gqe", "query2box", "betae")


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is computed, and what is shown of it."""

    method: Literal["lod", "base"] = "lod"
    """Logic Diffusion on the base model, or the base model alone."""
    base: Literal["gqe", "query2box", "betae"] = "query2box"
    """What embeds queries; betae alone knows negation."""
    data_dir: Path | None = None
    """A folder with one .npz of queries, or with the published pickles; none takes the embedded family tree."""
    queries: str = ""
    """Name of the .npz in the folder, where it holds several."""
    workdir: Path = Path("runs/reasoning")
    """Folder for results, metrics, pictures, models and checkpoints."""
    seed: int = 0
    """Seed of initialisation, order of queries, negatives, noise and pool."""
    seeds: tuple[int, ...] = ()
    """Several seeds: the table then shows mean and standard deviation. Overrides seed."""
    steps: int = 400
    """Steps; each makes up to three updates: paths (1p 2p 3p), the other structures, paths."""
    alternate: bool = True
    """Batches of paths and of other structures in turn, as published; else one update a step with all of them."""
    batch_size: int = 256
    """Queries per update."""
    negatives: int = 64
    """Wrong answers drawn for each query."""
    filter_negatives: bool = False
    """Draw them among entities that are no answers; the published code in effect draws among all."""
    learning_rate: float = 5e-3
    """Of Adam."""
    drops: bool = True
    """Divide the rate by 5 and start Adam anew at half and at three quarters of the steps, as published."""
    dim: int = 64
    """Length of an embedding."""
    gamma: float = 12.0
    """Margin of the score."""
    hidden: int = 128
    """betae: width of the projection's network."""
    layers: int = 2
    """betae: its hidden layers."""
    offset: Literal["none", "relu", "softplus"] = "none"
    """query2box: activation of a relation's offset."""
    inside: float = 0.02
    """query2box: weight of the distance inside a box."""
    union: Literal["dnf", "dm"] = "dnf"
    """Unions as the best of several queries, or by De Morgan's rule, which needs negation."""
    structures: tuple[str, ...] = ()
    """Structures that the base trains on, such as 1p 2p 2i; all that the data train and the model supports."""
    split: Literal["test", "valid"] = "test"
    """Queries that the table is about."""
    eval_queries: int = 0
    """Queries of each structure that are ranked, drawn evenly; 0 takes all."""
    noise: Literal["none", "answer", "triple"] = "none"
    """Damage the training data: replace answers, or the tails of edges (queries are then answered anew). The queries of
    the split stay clean."""
    eta: float = 0.3
    """Share of the answers or edges that --noise replaces."""
    pool_fraction: float | None = None
    """lod: share of each batch that comes from the diffused queries; 0 has no pool. 0.25 unless given, but 0.1 for
    query2box."""
    pool_per_structure: int = 0
    """lod: diffused queries of each structure; 0 takes as many as the largest trained structure but 1p has, at most
    20,000."""
    pool_refresh: int = 0
    """lod: steps after which other diffused queries take the place of those in the pool; 0 keeps them."""
    pool_depth: int = 2
    """lod: most operations that a training query goes through."""
    targets: tuple[str, ...] = ()
    """lod: structures of the pool; those that are tested and not trained (all tested but 1p where there are none). They
    are then trained ones."""
    holdout: tuple[str, ...] = ()
    """lod: structures that the pool never has, to measure what carries over to them."""
    tau: float = 1.0
    """lod: exponent of the diffused relation weights in random walks; 0 walks uniformly."""
    diffusion_stop: float = 0.5
    """lod: chance that relation diffusion stops at each hop; 1 does not diffuse."""
    diffusion_hops: int = 2
    """lod: its hops."""
    adaption: tyro.extras.literal_type_from_choices(MODES) | None = None  # type: ignore[valid-type]
    """lod: what balances the structures of a batch; off is the plain loss. logit unless given, but param, which costs a
    backward pass a structure, for query2box and betae."""
    adapt_alpha: float = 0.5
    """lod: exponent of gradient sizes in the weights."""
    adapt_rate: float = 0.0
    """lod: exponent of the relative rate of learning in the weights (GradNorm's)."""
    adapt_on: Literal["loss", "log"] = "loss"
    """lod: take gradient sizes of the loss that trains, or of the plain one."""
    adapt_groups: tyro.extras.literal_type_from_choices(GROUPINGS) = "structure"  # type: ignore[valid-type]
    """lod: what is balanced: every structure, or (origin) the structures that are trained against those that only the
    pool brings."""
    group_reduce: tyro.extras.literal_type_from_choices(REDUCTIONS) = "weight"  # type: ignore[valid-type]
    """lod: how structures add up; weight is the plain loss where all weights are 1."""
    q: float | None = None
    """lod: 0 is the logarithmic loss, 1 the linear one; 0 unless given, but with --noise 0.3 (not for betae)."""
    q_warm: int = 0
    """lod: updates over which q grows from 0."""
    mix: float | None = None
    """lod: share of the linear loss in a mixture with the logarithmic one, instead of q; 0 unless given, but 0.7 for
    betae with --noise."""
    eps: float = 0.0
    """lod: label smoothing of positives."""
    robust_sides: tyro.extras.literal_type_from_choices(SIDES) = "both"  # type: ignore[valid-type]
    """lod: whether negatives get the robust loss, too."""
    references: bool = True
    """With --method=lod: also show the base model alone, trained once and then read from the results file."""


@dataclasses.dataclass(frozen=True)
class Config(Running, Flags):
    """Flags of `experiments.reasoning`."""

    mesh: str = ""
    """Sizes of the mesh's axes, such as data:2,model:4 (model shards the entity table); empty uses one device."""
    stall_factor: float = 20.0
    """No step within so many times the median step (and a minute) ends the run with status 5, after printing every
    thread's stack and the process that is behind; 0 never does."""


def main(config: Config) -> None:
    """Trains the base model and LoD, then shows and saves the comparison."""
    started = time.perf_counter()
    check(config)
    console = running.join(config)
    loaded = reasoning_data.load(config)
    mesh = None if config.plan else running.mesh_of(config)  # a plan needs no devices
    setup = reasoning_runs.Setup(config, loaded, console, [], {}, {}, mesh)
    reasoning_runs.check_settings(setup)
    if config.plan:
        reasoning_plan.run(setup, console)
        return
    reasoning_tables.headline(setup)
    methods = ("base", "lod") if config.method == "lod" and config.references else (config.method,)
    rows = {name: [reasoning_runs.run(setup, name, seed) for seed in running.seeds(config)] for name in methods}
    folder = reasoning_runs.method_folder(setup, config.method)
    reasoning_tables.show(setup, rows)
    tables.goodput(console, setup.clocks)
    reasoning_picture.save(setup, config.method, running.seeds(config)[0], folder / "query.png")
    console.print(f"Picture, metrics and saved models: {folder}  ({time.perf_counter() - started:.0f} s in all)")


def check(config: Config) -> None:
    """Raises a ValueError for values that no run can use, before anything is loaded."""
    for flag in ("steps", "batch_size", "negatives", "dim", "hidden", "layers", "pool_depth"):
        if getattr(config, flag) < 1:
            raise ValueError(f"--{flag}: found {getattr(config, flag)}, expected at least 1")
    if not 0.0 < config.gamma < math.inf:
        raise ValueError(f"--gamma: found {config.gamma}, expected above 0")
    for flag in ("pool_fraction", "eta", "q", "mix", "eps"):
        share: float | None = getattr(config, flag)
        if share is not None and not 0.0 <= share <= 1.0:
            raise ValueError(f"--{flag}: found {share}, expected 0 to 1")
    whole = "eval_queries", "pool_per_structure", "pool_refresh", "diffusion_hops", "q_warm"
    for flag in (*whole, "tau", "adapt_alpha", "adapt_rate"):
        if not getattr(config, flag) >= 0:
            raise ValueError(f"--{flag}: found {getattr(config, flag)}, expected at least 0")
    if not 0.0 < config.diffusion_stop <= 1.0:
        raise ValueError(f"--diffusion_stop: found {config.diffusion_stop}, expected above 0 and at most 1")
    if config.q and config.mix:
        raise ValueError(f"--mix: found {config.mix} beside --q={config.q}, expected one of them to be 0")
    if config.q_warm and (config.q == 0 or config.mix):
        raise ValueError(f"--q_warm: found {config.q_warm} updates in which q would grow to 0, expected --q above 0")
    if config.adapt_rate and config.adaption in ("off", "project"):
        raise ValueError(f"--adapt_rate: found {config.adapt_rate}, but --adaption={config.adaption} has no weights")
    if config.adapt_groups == "origin" and config.adaption in ("off", "project"):
        raise ValueError(
            f"--adapt_groups=origin: --adaption={config.adaption} has no weights, expected logit or another"
        )
    changed = {f.name for f in dataclasses.fields(config) if getattr(config, f.name) != f.default}
    if config.method == "base" and (useless := sorted(changed & set(reasoning_runs.LOD_FLAGS))):
        raise ValueError(f"--{useless[0]}: found with --method=base, but is a flag of Logic Diffusion (--method=lod)")
    if config.noise == "none" and "eta" in changed:
        raise ValueError(f"--eta: found {config.eta} without damage to take part in, expected --noise=answer or triple")
    if config.union == "dm" and config.base != "betae":
        raise ValueError(f"--union=dm: needs negation, which {config.base} does not have; expected --base=betae")
    if config.pool_refresh and (config.filter_negatives or config.pool_fraction == 0):
        found = "--filter_negatives, whose batches would change their shape" if config.filter_negatives else "no pool"
        raise ValueError(f"--pool_refresh: found it with {found}")
    if config.method == "lod" and config.adaption == "project" and config.pool_fraction == 0:
        raise ValueError(
            "--adaption=project: found --pool_fraction=0, expected diffused queries, whose gradients it bends"
        )
    if config.method == "lod" and config.adapt_groups == "origin" and config.pool_fraction == 0:
        raise ValueError("--adapt_groups=origin: found --pool_fraction=0, expected diffused queries, the second group")


if __name__ == "__main__":
    command.run(main, Config, __doc__ or "", "experiments.reasoning")
