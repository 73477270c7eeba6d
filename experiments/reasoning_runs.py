"""The runs of the reasoning experiment: what each is made of, where it lies, and how it is trained and tested."""

import dataclasses
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console

import jaxmodels as jm
from experiments import tables
from experiments.reasoning_data import Loaded, Training, known_queries, training
from experiments.running import fingerprint, fit_options
from experiments.runs import begin_folder, plain, previous_of, write_result
from jaxmodels.data.query_structures import STRUCTURES, structure_of
from jaxmodels.method import Method
from jaxmodels.reasoning.adam import drop_updates, query_adam
from jaxmodels.reasoning.adaption import OFF, Adaption
from jaxmodels.reasoning.ask import Reasoner
from jaxmodels.reasoning.batches import QueryBatches, Refreshed, Trained, query_batches
from jaxmodels.reasoning.betae import betae
from jaxmodels.reasoning.diffusion import surroundings
from jaxmodels.reasoning.evaluation import rank_queries
from jaxmodels.reasoning.gqe import gqe
from jaxmodels.reasoning.lod import lod
from jaxmodels.reasoning.method import plain as plain_objective
from jaxmodels.reasoning.method import query_method
from jaxmodels.reasoning.metrics import Summary, averages
from jaxmodels.reasoning.pool import Pool, diffuse
from jaxmodels.reasoning.query2box import query2box
from jaxmodels.reasoning.query_model import QueryModel, supported
from jaxmodels.reasoning.reasoner_file import save_reasoner
from jaxmodels.reasoning.robust_loss import Robust
from jaxmodels.rules import count, nearest, split
from jaxmodels.training.checkpoint import has_checkpoint
from jaxmodels.training.goodput import Clock
from jaxmodels.training.memory import peak_bytes
from jaxmodels.training.mesh import fetch, local_rows, row_shards
from jaxmodels.training.processes import is_main, wait_for_all
from jaxmodels.training.results import find_result

EVALUATION_BATCH = 64
# Robust losses where noise is declared. BetaE's first scores are so low that q would damp every positive to nothing.
NOISY = {"gqe": (0.3, 0.0), "query2box": (0.3, 0.0), "betae": (0.0, 0.7)}  # base -> q, mix
# What a group's size is, unless a flag says: over scores it is cheap, but made BetaE's runs differ widely.
ADAPTED = {"gqe": "logit", "query2box": "param", "betae": "param"}
# What the pool takes of a batch, unless a flag says: a quarter cost Query2Box on clean data.
POOLED = {"gqe": 0.25, "query2box": 0.1, "betae": 0.25}
MOST_DIFFUSED = 20_000  # queries of a structure in the pool, unless a flag says
MODEL = "model"  # folder of a run's trained model, which `load_reasoner` reads

# Flags that mean nothing to the base model alone, and those that say where, how often or in which company to run.
LOD_FLAGS = (
    "pool_fraction", "pool_per_structure", "pool_depth", "pool_refresh", "targets", "holdout", "tau", "diffusion_stop",
    "diffusion_hops", "adaption", "adapt_alpha", "adapt_rate", "adapt_on", "adapt_groups", "group_reduce", "q",
    "q_warm", "mix", "eps", "robust_sides",
)  # fmt: skip
BOOKKEEPING = ("queries",)  # flags that change no result, beside those of every experiment


class Setup(NamedTuple):
    """What all runs of one command share.

    Attributes:
        config: the flags.
        loaded: the data.
        console: where to print.
        clocks: of the runs so far.
        fitted: (method, seed) -> parameters of runs of this command.
        built: methods and optimizers that runs share.
        mesh: devices, None for one.
    """

    config: Any
    loaded: Loaded
    console: Console
    clocks: list[Clock]
    fitted: dict[tuple[str, int], Any]
    built: dict[Any, tuple[Method, optax.GradientTransformation]]
    mesh: jax.sharding.Mesh | None = None


class Names(NamedTuple):
    """Structures of a command: those that the base trains on, those that are tested, those that the pool aims at."""

    seen: tuple[str, ...]
    tested: tuple[str, ...]
    targets: tuple[str, ...]

    @property
    def unseen(self) -> tuple[str, ...]:
        """Tested, but not trained by the base."""
        return tuple(name for name in self.tested if name not in self.seen)


def build_base(setup: Setup, *, row_multiple: int = 0) -> QueryModel:
    """The query model of the flags; its table is padded for the mesh's axis `model`, or to a given multiple."""
    config, loaded = setup.config, setup.loaded
    multiple = row_multiple or (1 if setup.mesh is None else setup.mesh.shape["model"])
    sizes = {"dim": config.dim, "gamma": config.gamma, "row_multiple": multiple}
    if config.base == "betae":
        sizes |= {"hidden": config.hidden, "layers": config.layers}
    if config.base == "query2box":
        sizes |= {"activation": config.offset, "cen": config.inside}
    return {"gqe": gqe, "query2box": query2box, "betae": betae}[config.base](loaded.entities, loaded.relations, **sizes)


def names_of(setup: Setup, base: QueryModel) -> Names:
    """Which structures train and are tested.

    Raises:
        ValueError: a flag names a structure that does not exist, that the data do not have or the model does not
            support.
    """
    config, data = setup.config, setup.loaded.data
    known = [name for name in STRUCTURES if supported(base, name, config.union)]
    possible = tuple(name for name in known if name in data.train and len(data.train[name].tokens))
    queries = getattr(data, config.split)
    tested = tuple(name for name in known if name in queries and len(queries[name].hard.idx))
    chosen = {"structures": possible, "targets": tuple(known), "holdout": tuple(known)}
    for flag, allowed in chosen.items():
        for name in getattr(config, flag):
            structure_of(name)
            if name not in allowed:
                hint = nearest(name, allowed) or f"; expected some of {', '.join(allowed)}"
                raise ValueError(f"--{flag}: found '{name}', which {config.base} cannot use here{hint}")
    seen = tuple(name for name in possible if name in (config.structures or possible))
    if not seen or not tested:
        raise ValueError(f"{setup.loaded.name}: holds no query that {config.base} can train on or be tested on")
    # Diffused queries of trained structures would only take the place of 1p, which is all that says single facts.
    new = tuple(name for name in tested if name not in seen and name != "1p")
    default = new or tuple(name for name in tested if name != "1p")
    targets = tuple(name for name in (config.targets or default) if name not in config.holdout)
    if config.method == "lod" and not targets:
        raise ValueError(
            f"--holdout: leaves out all of {', '.join(config.targets or default)}, expected some target of the pool"
        )
    told_apart = config.adaption == "project" or config.adapt_groups == "origin"
    if config.method == "lod" and told_apart and set(targets) <= set(seen):
        flag = "--adaption=project" if config.adaption == "project" else "--adapt_groups=origin"
        raise ValueError(
            f"--targets: found {', '.join(targets)}, which are trained; {flag} needs some that only the pool brings"
        )
    return Names(seen, tested, targets)


def check_settings(setup: Setup) -> None:
    """Raises a ValueError for flags that do not fit the model, the data or one another, before anything trains."""
    base = build_base(setup)
    names = names_of(setup, base)
    config = for_method(setup.config, setup.config.method)
    if config.method == "lod":
        objective_of(config, names, names.targets if config.pool_fraction else ())
    with_rows = {name: len(setup.loaded.data.train[name].tokens) for name in names.seen}
    sets = {name: Trained(np.zeros((n, 2)), None) for name, n in with_rows.items()}  # type: ignore[arg-type]
    pool = {}
    if config.method == "lod" and config.pool_fraction:
        pool = {name: Trained(np.zeros((1, 2)), None) for name in names.targets}  # type: ignore[arg-type]
    query_batches(
        sets,
        config.batch_size,
        seed=0,
        pool=pool,
        pool_fraction=config.pool_fraction or 0.0,
        alternate=config.alternate,
        multiple=shards(setup),
    )


def shards(setup: Setup) -> int:
    """Devices that share the rows of a batch."""
    return 1 if setup.mesh is None else row_shards(setup.mesh)


def objective_of(config: Any, names: Names, pool: tuple[str, ...]) -> Any:
    """What `lod` minimises, by the flags."""
    adaption, mode = OFF._replace(reduce=config.group_reduce), config.adaption or ADAPTED[config.base]
    if mode != "off":
        adaption = Adaption(
            mode,
            alpha=config.adapt_alpha,
            rate=config.adapt_rate,
            measure=config.adapt_on,
            reduce=config.group_reduce,
            groups=config.adapt_groups,
        )
    apart = mode == "project" or config.adapt_groups == "origin"
    diffused = tuple(name for name in pool if name not in names.seen) if apart else ()
    return lod(diffused=diffused, adaption=adaption, robust=robust_of(config))


def robust_of(config: Any) -> Robust:
    """The pointwise loss of `lod`, by the flags and, where noise is declared, by the base model."""
    q, mix = config.q, config.mix
    if q is None and mix is None:
        q, mix = (0.0, 0.0) if config.noise == "none" else NOISY["gqe" if config.q_warm else config.base]
    return Robust(q=q or 0.0, eps=config.eps, mix=mix or 0.0, sides=config.robust_sides, warm=config.q_warm)


def for_method(config: Any, name: str) -> Any:
    """The flags as they apply to a method: LoD's with what base and noise decide, the base alone has none."""
    if name == "lod":
        robust, mode = robust_of(config), config.adaption or ADAPTED[config.base]
        pooled = POOLED[config.base] if config.pool_fraction is None else config.pool_fraction
        chosen = {"pool_fraction": pooled, "adaption": mode, "q": robust.q, "mix": robust.mix}
        return dataclasses.replace(config, method="lod", **chosen)
    defaults = {f.name: f.default for f in dataclasses.fields(config) if f.name in LOD_FLAGS}
    return dataclasses.replace(config, method="base", **defaults)


def method_folder(setup: Setup, name: str) -> Path:
    """Where a method's runs lie: names, and a short hash of all that changes a result."""
    config = for_method(setup.config, name)
    short = fingerprint(config, name, setup.loaded.digest, ignoring=BOOKKEEPING)
    return config.workdir / f"{name}-{config.base}-{short}"


def run_folder(setup: Setup, name: str, seed: int) -> Path:
    """The folder of one run."""
    return method_folder(setup, name) / f"seed{seed}"


def run(setup: Setup, name: str, seed: int) -> dict[str, Any]:
    """The result row of one method and seed: taken from the results file, or trained now."""
    folder = run_folder(setup, name, seed)
    key = {"run": folder.parent.name, "method": name, "seed": seed}
    results = setup.config.workdir / "results.jsonl"
    known = find_result(results, key)
    if known and (folder / MODEL).exists() and (setup.config.resume or name != setup.config.method):
        return known
    row = {**key, **train(setup, name, seed, folder)}
    write_result(results, row)
    return row


def pool_size(trained: Mapping[str, int]) -> int:
    """Diffused queries of each structure, from the numbers of training queries: of the largest structure but 1p."""
    larger = [size for name, size in trained.items() if name != "1p"] or list(trained.values())
    return min(max(larger), MOST_DIFFUSED)


def draw_pool(setup: Setup, config: Any, names: Names, found: Training, seed: int, again: int = 0) -> Pool:
    """The diffused queries of a run, or those that take their place, for the first time (`again` 1), the second, ..."""
    quota = config.pool_per_structure or pool_size({name: len(each.tokens) for name, each in found.queries.items()})
    base = build_base(setup)
    near = surroundings(found.graph, beta=config.diffusion_stop, hops=config.diffusion_hops)
    return diffuse(
        near,
        {name: each.tokens.astype(np.int64) for name, each in found.queries.items()},
        {name: each.answers for name, each in found.queries.items()},
        targets=names.targets,
        quota=quota,
        supported=[name for name in STRUCTURES if supported(base, name, config.union)],
        exclude=known_queries(setup.loaded.data),
        depth=config.pool_depth,
        tau=config.tau,
        seed=(seed, again) if again else seed,
    )


def train(setup: Setup, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains and tests one run, saves its model, and returns what was measured."""
    started = time.perf_counter()
    config = for_method(setup.config, name)
    base = build_base(setup)
    names = names_of(setup, base)
    found = training(config, setup.loaded, names.seen, seed)
    pool = draw_pool(setup, config, names, found, seed) if name == "lod" and config.pool_fraction else None
    diffused = (
        {} if pool is None else {n: Trained(pool.queries[n], found.damage(pool.answers[n])) for n in pool.queries}
    )
    drawn = time.perf_counter() - started

    def batches(again: int) -> QueryBatches:
        return query_batches(
            found.queries,
            config.batch_size,
            seed=seed,
            pool=diffused | (redrawn(again) if again else {}),
            pool_fraction=config.pool_fraction or 0.0,
            alternate=config.alternate,
            with_answers=setup.loaded.entities if config.filter_negatives else None,
            multiple=shards(setup),
            rows=lambda n: local_rows(setup.mesh, n),
        )

    def redrawn(again: int) -> dict[str, Trained]:
        """Other diffused queries; a structure that this draw does not reach keeps those of the first."""
        random, new = np.random.default_rng((seed, 7, again)), draw_pool(setup, config, names, found, seed, again)
        return {n: Trained(new.queries[n], found.damage(new.answers[n], random)) for n in new.queries if n in diffused}

    loader = Refreshed(batches, config.pool_refresh) if diffused and config.pool_refresh else batches(0)
    method, optimizer = build(setup, config, base, names, tuple(diffused), loader)
    settings = {"flags": plain(config), "data": setup.loaded.name, "pool": {} if pool is None else pool.report()}
    begin_folder(folder, settings, config.resume)
    fitted = jm.fit(
        method,
        loader,
        optimizer,
        steps=config.steps,
        seed=seed,
        workdir=folder,
        resume=config.resume and has_checkpoint(folder),
        log_every=max(1, config.steps // 20),
        mesh=setup.mesh,
        **fit_options(config),
        on_log=tables.progress(setup.console, f"{name} {config.base}, seed {seed}", config.steps),
    )
    setup.clocks.append(fitted.clock)
    size = -(-EVALUATION_BATCH // shards(setup)) * shards(setup)
    summaries = rank_queries(
        method,
        fitted.variables,
        {n: getattr(setup.loaded.data, config.split)[n] for n in names.tested},
        entities=setup.loaded.entities,
        batch_size=size,
        most=config.eval_queries,
        mesh=setup.mesh,
        rows=lambda n: local_rows(setup.mesh, n),
    )
    params = fetch(fitted.variables["params"])
    setup.fitted[name, seed] = params
    if is_main():
        data = setup.loaded.data
        save_reasoner(folder / MODEL, Reasoner(base, params, data.entities, data.relations, found.graph))
        shutil.rmtree(previous_of(folder), ignore_errors=True)
    wait_for_all("the model is written")
    return {
        "base": config.base,
        "data": setup.loaded.name,
        "real": setup.loaded.real,
        "noise": config.noise,
        "eta": config.eta if config.noise != "none" else 0.0,
        "split": config.split,
        "structures": {n: list(each) for n, each in summaries.items()},
        "averages": {n: list(each) for n, each in averages(summaries, unseen=names.unseen).items()},
        "unseen": list(names.unseen),
        "pool": settings["pool"],
        "attempts": 0 if pool is None else pool.attempts,
        "pool_seconds": drawn,
        "updates": config.steps * len(loader.counts()),
        "trained": count(split(params, method.groups)[0]),
        "train_seconds": fitted.seconds,
        "seconds": time.perf_counter() - started,
        "peak_bytes": peak_bytes(),
        "settings": settings,
    }


def build(
    setup: Setup, config: Any, base: QueryModel, names: Names, pool: tuple[str, ...], loader: QueryBatches | Refreshed
) -> tuple[Method, optax.GradientTransformation]:
    """Method and optimizer; runs that differ in their seed alone share them, and so the compiled step."""
    known = tuple(dict.fromkeys((*names.seen, *pool, *names.tested)))
    updates = len(loader.counts())

    key = (method_folder(setup, config.method).name, known, updates)
    if key not in setup.built:
        method = query_method(
            base,
            known,
            negatives=config.negatives,
            union=config.union,
            filter_negatives=config.filter_negatives,
            objective=plain_objective() if config.method == "base" else objective_of(config, names, pool),
        )
        drops = drop_updates(config.steps, updates) if config.drops else ()
        setup.built[key] = method, query_adam(config.learning_rate, drops=drops)
    return setup.built[key]


def summaries_of(row: Mapping[str, Any], part: str = "structures") -> dict[str, Summary]:
    """The metrics of a result row."""
    return {name: Summary(*values) for name, values in row[part].items()}
