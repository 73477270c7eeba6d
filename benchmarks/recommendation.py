"""DPCML and CML: seconds of an epoch and of an evaluation beside PyTorch's, and the paper's tables.

    python -m benchmarks.recommendation --data_dir=data/recsys --parts speed evaluation
    python -m benchmarks.recommendation --data_dir=data/recsys --parts train --workdir=runs/recommendation_table
    python -m benchmarks.recommendation --data_dir=data/recsys --parts table --workdir=runs/recommendation_table

Claims: an epoch, sampling included, takes at most a fifth of the CPU seconds of the released code's structure in
PyTorch, an evaluation a twentieth; on Steam-200k the published settings reach the published metrics. 'train' trains
what the results file lacks, keeps a checkpoint every ten epochs and goes on from it when it is stopped and started
again; 'table' only reads. Everything runs on one thread; times are CPU seconds, in turns. 'speed' and
'evaluation' need the extra [bench].
"""

import argparse
import dataclasses
import os
import platform
import time
from pathlib import Path

# Before JAX starts: one thread on both sides, or seconds cannot be compared.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import numpy as np
from rich.console import Console

from experiments import recommendation, recommendation_data, recommendation_runs
from experiments.running import Setup
from jaxmodels.training.memory import reuse_freed_memory
from jaxmodels.training.results import find_result, mean_and_deviation
from jaxmodels.training.state import begin, train_step

# P@3, R@3, N@3, P@5, R@5, N@5, MAP, MRR of arXiv 2209.15292, in percent
PUBLISHED = {
    ("steam-200k", "dpcml2"): (29.88, 17.13, 31.22, 28.70, 14.51, 30.56, 24.10, 51.95),
    ("steam-200k", "dpcml1"): (25.39, 14.84, 26.56, 23.88, 12.11, 25.25, 22.26, 46.79),
    ("steam-200k", "hars"): (26.66, 15.74, 27.93, 24.94, 12.78, 26.63, 23.25, 48.84),
    ("steam-200k", "unis"): (20.71, 11.97, 21.42, 20.92, 10.36, 21.61, 18.88, 40.10),
    ("steam-200k", "pops"): (18.05, 11.58, 18.76, 14.94, 7.98, 15.78, 15.13, 34.04),
    ("steam-200k", "two_stage"): (25.20, 14.62, 26.20, 23.97, 11.91, 25.35, 21.48, 46.17),
    ("steam-200k", "lrml"): (14.91, 7.48, 15.43, 16.49, 8.06, 17.51, 12.24, 31.89),
    ("steam-200k", "transcf"): (13.30, 6.61, 13.58, 15.26, 7.09, 15.89, 11.08, 26.29),
    ("citeulike-t", "dpcml2"): (8.70, 4.59, 9.06, 10.96, 5.85, 11.47, 6.44, 19.96),
    ("citeulike-t", "dpcml1"): (7.78, 4.04, 8.14, 10.03, 5.33, 10.64, 6.08, 18.75),
    ("citeulike-t", "hars"): (8.44, 4.41, 8.82, 10.43, 5.60, 11.25, 6.67, 20.08),
    ("citeulike-t", "unis"): (7.34, 3.71, 7.48, 9.54, 5.13, 10.02, 5.59, 17.27),
}
METRICS = {"P@3": "precision@3", "R@3": "recall@3", "N@3": "ndcg@3", "P@5": "precision@5", "R@5": "recall@5",
           "N@5": "ndcg@5", "MAP": "map", "MRR": "mrr"}  # fmt: skip


def setup_of(a: argparse.Namespace, dataset: str, method: str) -> Setup[recommendation_data.Loaded]:
    """A command of the experiment with its published settings."""
    config = recommendation.Config(
        method=method,
        dataset=dataset,
        data_dir=a.data_dir,
        workdir=a.workdir,
        epochs=a.epochs,
        resume=True,
        references=False,
        vectors=a.vectors if method.startswith("dpcml") else None,
    )
    loaded = recommendation_data.load(config)
    config = recommendation.settled(config, embedded=loaded.name == recommendation_data.EMBEDDED)
    setup = Setup(config, loaded, Console(), [])
    every = 10 * recommendation_runs.batches_of(setup, config.method, 0).per_epoch
    return setup._replace(config=dataclasses.replace(config, save_every=every))


def spent(run, repeats: int) -> float:
    """Median CPU seconds."""
    found = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return float(np.median(found))


def torch_of(setup: Setup[recommendation_data.Loaded], method: str):
    """The PyTorch model, its optimizer, the training pairs and the users' items in sets."""
    import torch

    from benchmarks.torch_recommendation import Dpcml

    torch.set_num_threads(1)
    torch.manual_seed(0)
    train = setup.problem.parts.train
    options = recommendation_runs.settings_for(setup, method).options
    model = Dpcml(train.num_users, train.num_items, setup.config.dim, options["vectors"], weight=options["diversity"])
    pairs = np.stack([train.users, train.items], 1)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3), pairs, sets(train)


def sets(part) -> list[set[int]]:
    """The items of each user."""
    return [set(own.tolist()) for own in np.split(part.items, part.starts[1:-1])]


def speed(setup: Setup[recommendation_data.Loaded], method: str, steps: int, repeats: int) -> None:
    """Prints CPU seconds of an epoch: `steps` of it are run, in turns."""
    from benchmarks.torch_recommendation import epoch

    ready, batches = recommendation_runs.made(setup, method), recommendation_runs.batches_of(setup, method, 0)
    ts, frozen = begin(ready.method, ready.optimizer, ready.method.init(jax.random.key(0), ready.given), seed=0)
    held, step = [jax.device_put(ts, jax.devices()[0])], train_step(ready.method, ready.optimizer)

    def ours():
        for i in range(steps):
            held[0], metrics = step(held[0], frozen, jax.device_put(batches[i]))
        jax.block_until_ready(held[0])

    model, optimizer, pairs, known = torch_of(setup, method)
    model.hold()
    random = np.random.RandomState(0)

    def theirs():
        epoch(model, optimizer, pairs, known, 10, setup.config.batch_size, random, steps)

    ours(), theirs()
    rows = np.array([[spent(ours, 1), spent(theirs, 1)] for _ in range(repeats)]) * batches.per_epoch / steps
    low, middle, high = np.quantile(rows[:, 1] / rows[:, 0], (0.25, 0.5, 0.75))
    here, there = np.median(rows, axis=0)
    print(f"{setup.problem.name:12s}{method:8s} epoch of {batches.per_epoch} steps: ours {here:.2f} CPU s, PyTorch "
          f"{there:.1f}; ratio {middle:.1f} ({low:.1f} to {high:.1f})", flush=True)  # fmt: skip


def evaluation(setup: Setup[recommendation_data.Loaded], method: str, users: int, repeats: int) -> None:
    """Prints CPU seconds of an evaluation; PyTorch's is that of `users` users, scaled. The metrics must agree."""
    import torch

    from benchmarks.torch_recommendation import evaluated

    model, _, _, known = torch_of(setup, method)
    model.hold()
    tables = {"user": model.user.weight.detach().numpy(), "item": model.item.weight.detach().numpy()}
    ready = recommendation_runs.made(setup, method)
    state = ready.method.init(jax.random.key(0), ready.given)["state"]
    variables = {"params": jax.device_put(tables), "state": state}
    whole = recommendation_runs.measure(setup, "test")
    small = setup._replace(config=dataclasses.replace(setup.config, eval_users=users))
    some = recommendation_runs.measure(small, "test")
    held = sets(setup.problem.parts.test)
    with torch.no_grad():
        theirs = evaluated(model, some._users.tolist(), held, known)
    ours = some(ready.method.predict, variables)
    worst = max(abs(ours[name] - value) for name, value in theirs.items())
    if not worst < 1e-3:
        raise ValueError(f"evaluation: the metrics differ by {worst:.1e}")
    whole(ready.method.predict, variables)
    here = spent(lambda: whole(ready.method.predict, variables), repeats)
    there = spent(lambda: evaluated(model, some._users.tolist(), held, known), 1) * len(whole._users) / users
    print(f"{setup.problem.name:12s}{method:8s} evaluation of {len(whole._users):,} users: ours {here:.2f} CPU s, "
          f"PyTorch {there:.1f} (of {users} users, scaled); ratio {there / here:.1f}; metrics agree to {worst:.0e}",
          flush=True)  # fmt: skip


def table(a: argparse.Namespace) -> None:
    """Prints the finished runs beside the published numbers."""
    print(f"{'test, %':32s}" + "".join(f"{name:>14s}" for name in METRICS))
    for dataset in a.datasets:
        for method in a.methods:
            setup = setup_of(a, dataset, method)
            folder = recommendation_runs.method_folder(setup, method).name
            rows = [find_result(a.workdir / "results.jsonl", {"run": folder, "seed": seed}) for seed in a.seeds]
            found = [row["test"] for row in rows if row]
            cells = []
            for metric in METRICS.values():
                mean, deviation = mean_and_deviation(100 * row[metric] for row in found) if found else (0.0, 0.0)
                cells.append(f"{f'{mean:.2f} +- {deviation:.2f}' if found else '-':>14s}")
            print(f"{f'{dataset} {method} ({len(found)} seeds)':32s}" + "".join(cells))
            published = PUBLISHED.get((setup.problem.name, method))
            if published:
                print(f"{'  published':32s}" + "".join(f"{value:>14.2f}" for value in published))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="holds a folder per data set")
    parser.add_argument("--datasets", nargs="+", default=["steam-200k"])
    parser.add_argument("--methods", nargs="+", default=["hars", "dpcml2"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--vectors", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=("speed", "evaluation", "train", "table"), default=["table"])
    parser.add_argument("--steps", type=int, default=20, help="of an epoch that are timed")
    parser.add_argument("--users", type=int, default=200, help="that PyTorch's evaluator is timed on")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workdir", type=Path, default=Path("runs/recommendation_table"))
    a = parser.parse_args()
    if "train" in a.parts:
        reuse_freed_memory()  # as the command does; timings leave both sides the allocator that they come with
    print(f"{platform.machine()}, {jax.local_devices()[0].device_kind}, jax {jax.__version__}, one thread")
    for dataset in a.datasets if {"speed", "evaluation"} & set(a.parts) else ():
        for method in a.methods:
            setup = setup_of(a, dataset, method)
            if "speed" in a.parts:
                speed(setup, method, a.steps, a.repeats)
            if "evaluation" in a.parts:
                evaluation(setup, method, a.users, a.repeats)
    for seed in a.seeds if "train" in a.parts else ():
        for dataset in a.datasets:
            for method in a.methods:
                recommendation_runs.run(setup_of(a, dataset, method), method, seed)
    if "table" in a.parts:
        table(a)


if __name__ == "__main__":
    main()
