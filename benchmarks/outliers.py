"""RCPMOD: areas under the curve over seeds by the published protocol, and CPU seconds beside PyTorch loops.

    python -m benchmarks.outliers --data_dir=data/multiview --parts speed --hidden 256 256
    python -m benchmarks.outliers --data_dir=data/multiview --parts accuracy --hidden 256 256 --seeds 1 2 3 4 5
    python -m benchmarks.outliers --data_dir=data/multiview --parts accuracy table --datasets handwritten

Claims: on LandUse-21 with hidden width 256 the mean over five seeds is at least .975 and stays there to the end; an
epoch takes a fifth of the CPU seconds of a lean float64 PyTorch loop and an evaluation a sixteenth; of one that does
all that the released code does, a sixth and a twentieth.
'accuracy' computes what the file of runs lacks and may be stopped and started at will; 'table' only reads. Runs are by
the released settings except for --hidden and --epochs. PyTorch is needed for 'speed' (extra [peers]).
"""

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

# Before JAX starts: one thread on both sides, or seconds cannot be compared.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import numpy as np
from rich.console import Console

from experiments import outlier_data, outlier_runs, outliers
from experiments.outlier_methods import METHODS, concatenated, recipe_of
from experiments.outlier_runs import judged
from experiments.running import Setup
from jaxmodels.outliers.pairs import PairBatches, built, check_data, pair_scores, pairs_of
from jaxmodels.training.memory import reuse_freed_memory
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.results import add_result, read_results
from jaxmodels.training.state import begin, train_step, variables_of

# One finished run of the released code at hidden width 256, seed 1, float64 (the row order was another one).
EVERY = 5  # epochs between evaluations, as released
ANCHOR = {"landuse21": {10: 76.6, 30: 95.1, 50: 96.4, 80: 98.9, 100: 98.8, 115: 98.76}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="holds the data sets' files")
    parser.add_argument("--datasets", nargs="+", default=["landuse21"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--hidden", nargs="+", type=int, help="widths in place of the released ones")
    parser.add_argument("--epochs", type=int, help="per pair, in place of the released number")
    parser.add_argument("--repeats", type=int, default=5, help="timed epochs of each stage")
    parser.add_argument("--parts", nargs="+", choices=("speed", "accuracy", "table"), default=["accuracy", "table"])
    parser.add_argument("--runs", type=Path, default=Path("outlier_runs.jsonl"), help="the file of finished runs")
    a = parser.parse_args()
    reuse_freed_memory()
    print(f"{platform.machine()}, {jax.local_devices()[0].device_kind}, jax {jax.__version__}, one thread")
    for dataset in a.datasets:
        config = outliers.Config(
            dataset=dataset, data_dir=a.data_dir, recipe="paper", epochs=a.epochs,
            hidden=None if a.hidden is None else tuple(a.hidden), evaluate_every=EVERY, resume=True,
        )  # fmt: skip
        problem = outlier_data.load(config)
        if "speed" in a.parts:
            speed(config, problem, a.repeats)
        if "accuracy" in a.parts:
            for method in a.methods:
                for seed in a.seeds:
                    accuracy(config, problem, method, seed, a.runs)
        if "table" in a.parts:
            table(config, problem, a.methods, a.seeds, a.runs)


def key_of(config: Any, problem: outlier_data.Problem, method: str, seed: int) -> dict[str, Any]:
    """What a finished run is known by."""
    recipe = recipe_of(config, problem.name)
    settings = [list(recipe.hidden), recipe.epochs] if method == "rcpmod" else []
    return {"dataset": problem.name, "method": method, "seed": seed, "settings": settings}


def accuracy(config: Any, problem: outlier_data.Problem, method: str, seed: int, file: Path) -> None:
    """Computes one run unless the file has it; finished pairs of views lie beside the file and are not done again."""
    key = key_of(config, problem, method, seed)
    done = [row for row in read_results(file) if all(row.get(k) == v for k, v in key.items())]
    if done:
        return
    case, started, used = outlier_data.case_of(config, problem, seed), time.time(), time.process_time()
    detect, trace = METHODS[method].scores, {}
    if detect is None:
        setup = Setup(config, problem, Console(quiet=True), [])
        folder = file.with_suffix("") / outlier_runs.run_folder(setup, method, seed).relative_to(config.workdir)
        check_data(case.views, case.mask, recipe_of(config, problem.name))
        scores, _ = outlier_runs.train(setup, case, seed, folder)
        trace = traced(folder, len(case.views))
    else:
        scores = detect(concatenated(case.views, case.mask), seed)
    row = {**key, **judged(case, scores), "trace": trace}
    row |= {"wall_seconds": round(time.time() - started, 1), "cpu_seconds": round(time.process_time() - used, 1)}
    add_result(file, row)
    kinds = ", ".join(f"{name} {value:.1f}" for name, value in row["kinds"].items())
    print(f"{problem.name} {method} seed {seed}: {row['auc']:.2f} ({kinds}), {row['cpu_seconds']} CPU s", flush=True)


def traced(folder: Path, views: int) -> dict[str, float]:
    """The area under the curve as training went: every fifth epoch, or after each pair where there are several."""
    if views == 2:
        found = [row["auc"] for row in read_metrics(folder / "metrics.jsonl") if "auc" in row]
        return {str(EVERY * (i + 1)): value for i, value in enumerate(found)}
    pairs = {f"{a}-{b}": read_metrics(folder / f"pair{a}-{b}" / "metrics.jsonl") for a, b in pairs_of(views)}
    return {name: rows[-1]["auc"] for name, rows in pairs.items()}


def table(config: Any, problem: outlier_data.Problem, methods: list[str], seeds: list[int], file: Path) -> None:
    """Mean and population deviation over the seeds, as published, and the least of the last epochs."""
    rows = read_results(file)
    print(f"{problem.name}: ROC-AUC, %, mean and deviation over seeds {', '.join(map(str, seeds))}")
    for method in methods:
        wanted = [key_of(config, problem, method, seed) for seed in seeds]
        found = [r for key in wanted for r in rows if "auc" in r and all(r.get(k) == v for k, v in key.items())]
        if not found:
            continue
        cells = [_spread([r["auc"] for r in found])]
        cells += [f"{kind} {_spread([r['kinds'][kind] for r in found])}" for kind in found[0]["kinds"]]
        cpu = np.mean([r["cpu_seconds"] for r in found])
        print(f"  {method:8s} {'  '.join(cells)}  ({len(found)} seeds, {cpu:.0f} CPU s each)")
        if method == "rcpmod" and found[0]["trace"]:
            points = sorted(found[0]["trace"], key=lambda e: [int(part) for part in e.split("-")])
            shown = points if len(points) < 16 else [p for p in points if int(p) % 10 == 0 or p == points[-1]]
            means = {p: np.mean([r["trace"][p] for r in found]) for p in shown}
            print("    on the way: " + ", ".join(f"{p}: {mean:.1f}" for p, mean in means.items()))
    if problem.name in ANCHOR:
        anchor = ", ".join(f"{epoch}: {value:.1f}" for epoch, value in ANCHOR[problem.name].items())
        print(f"  released code, width 256, one finished run (seed 1): {anchor}")


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f} +- {np.std(values):.2f}"


def speed(config: Any, problem: outlier_data.Problem, repeats: int) -> None:
    """CPU seconds of an epoch in both stages and of an evaluation, of all sides in turn, on the first two views."""
    import torch

    from benchmarks.torch_outliers import Loop

    torch.set_num_threads(1)
    recipe, case = recipe_of(config, problem.name), outlier_data.case_of(config, problem, 1)
    has = case.mask[:, :2] > 0
    kept = has.any(1)
    has, views = has[kept], [x[kept] for x in case.views[:2]]
    widths = [(x.shape[1], *recipe.hidden, recipe.latent) for x in views]
    made = built(recipe, (widths[0][0], widths[1][0]))
    batches = PairBatches(has, recipe.batch_size, seed=None)
    variables = made.init(jax.random.key(1), tuple(x.astype(np.float32) for x in views), has)
    ts, frozen = begin(made.method, made.optimizer, variables, seed=1)
    step, held = train_step(made.method, made.optimizer), [ts]
    loops = [Loop(views, has, widths, lean=lean) for lean in (False, True)]

    def epoch(number: int) -> None:
        for i in range(batches.per_epoch):
            held[0], metrics = step(held[0], frozen, batches[number * batches.per_epoch + i])
        jax.block_until_ready(metrics)

    def evaluate() -> np.ndarray:
        return pair_scores(made, variables_of(held[0], frozen), recipe).total

    def spent(run: Any) -> float:
        began = time.process_time()
        run()
        return time.process_time() - began

    epoch(0)
    found = evaluate()
    same = max(check_scores(found, loop, held[0], recipe) for loop in loops)
    for loop in loops:
        loop.epoch(0)
    print(f"{problem.name}, views {' and '.join('-'.join(map(str, w)) for w in widths)}, CPU seconds")
    print(f"{'':22s}{'ours':>8s}{'released way':>14s}{'/ ours':>22s}{'lean PyTorch':>14s}{'/ ours':>22s}")
    # Epochs 5, 10, ... would search for negatives: every fifth does, as in training.
    numbers = {"epoch, first 50": range(1, 1 + 5 * repeats), "epoch, later": range(51, 51 + 5 * repeats)}
    for name, each in numbers.items():
        turns = [[lambda n=n: epoch(n), *[lambda n=n, loop=loop: loop.epoch(n) for loop in loops]] for n in each]
        times = np.array([[spent(run) for run in turn] for turn in turns])
        _print(name, times.reshape(repeats, 5, 3).mean(1))
    evaluate()
    runs = [evaluate, *[loop.scores for loop in loops]]
    _print("evaluation", np.array([[spent(run) for run in runs] for _ in range(repeats)]))
    print(f"same scores with the same parameters to {same:.0e}")


def _print(name: str, times: np.ndarray) -> None:
    line = f"{name:22s}{np.median(times[:, 0]):8.3f}"
    for there in times.T[1:]:
        low, middle, high = np.quantile(there / times[:, 0], (0.25, 0.5, 0.75))
        line += f"{np.median(there):14.3f}{f'{middle:.1f} ({low:.1f} to {high:.1f})':>22s}"
    print(line, flush=True)


def check_scores(ours: np.ndarray, loop: Any, ts: Any, recipe: Any) -> float:
    """Largest difference of the scores of the two with the same parameters and neighbours."""
    import torch

    for net, name in zip(loop.nets, ("view1", "view2"), strict=True):
        for side in ("encoder", "decoder"):
            layers = [layer for layer in getattr(net, side) if isinstance(layer, torch.nn.Linear)]
            for i, layer in enumerate(layers):
                leaf = jax.device_get(ts.trained[name][f"{side}_{i}"])
                with torch.no_grad():
                    layer.weight.copy_(torch.from_numpy(np.array(leaf["kernel"].T, np.float64)))
                    layer.bias.copy_(torch.from_numpy(np.array(leaf["bias"], np.float64)))
    loop.near = np.asarray(ts.state["lists"].near)
    difference = float(np.abs(ours - loop.scores(recipe.error_weight)).max())
    if not difference < 1e-3:
        raise ValueError(f"scores differ by {difference:.1e} from PyTorch's with the same parameters")
    return difference


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        Console(stderr=True).print(f"Error: {error}", highlight=False)
        raise SystemExit(2) from None
