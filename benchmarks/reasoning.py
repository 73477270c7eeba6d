"""Query embedding: MRR and speed of our training against the same models written plainly in PyTorch.

    python -m benchmarks.reasoning                                     the embedded family tree
    python -m benchmarks.reasoning --data_dir=umls --steps=1001        a folder with a .npz of queries
    python -m benchmarks.reasoning --parts rates                       speed alone, minutes

Claim: at equal updates the MRR is the same, and an update (loader included) costs a fifth of the CPU time or less. Both
sides run in one process on one thread, in turns; rates are per CPU second (`time.process_time`), so that other work on
the machine matters little, and exclude compilation. PyTorch is given our loader. Needs the extra [bench].
"""

import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxmodels as jm
from experiments import reasoning_data
from experiments.reasoning import Config
from jaxmodels.reasoning.adam import drop_updates, query_adam
from jaxmodels.reasoning.batches import query_batches, trained
from jaxmodels.reasoning.betae import betae
from jaxmodels.reasoning.evaluation import dense, rank_queries
from jaxmodels.reasoning.gqe import gqe
from jaxmodels.reasoning.method import query_method
from jaxmodels.reasoning.metrics import averages, filtered_ranks, per_query, summarize
from jaxmodels.reasoning.query2box import query2box
from jaxmodels.reasoning.query_model import supported
from jaxmodels.training.results import add_result, find_result, mean_and_deviation
from jaxmodels.training.state import begin, train_step

DIM, GAMMA, NEGATIVES, BATCH, RATE, HIDDEN = 64, 12.0, 64, 256, 5e-3, 128
MODELS: dict[str, Callable[..., Any]] = {
    "gqe": lambda n, r: gqe(n, r, dim=DIM, gamma=GAMMA),
    "query2box": lambda n, r: query2box(n, r, dim=DIM, gamma=GAMMA),
    "betae": lambda n, r: betae(n, r, dim=DIM, gamma=GAMMA, hidden=HIDDEN),
}


class Case:
    """One model on one data set."""

    def __init__(self, name: str, loaded: reasoning_data.Loaded, steps: int):
        self.name, self.loaded, self.steps = name, loaded, steps
        self.base = MODELS[name](loaded.entities, loaded.relations)
        data = loaded.data
        self.train = trained({n: q for n, q in data.train.items() if supported(self.base, n)})
        self.test = {n: q for n, q in data.test.items() if supported(self.base, n)}
        names = tuple(dict.fromkeys((*self.train, *self.test)))
        self.method = query_method(self.base, names, negatives=NEGATIVES)
        self.optimizer = query_adam(RATE, drops=drop_updates(steps))

    def loader(self, seed: int):
        return query_batches(self.train, BATCH, seed=seed)

    def stepper(self) -> Callable[[int], None]:
        """A function that makes so many of our steps of three updates, loader included."""
        ts, frozen = begin(self.method, self.optimizer, self.method.init(jax.random.key(0), None), seed=0)
        step, loader, held = train_step(self.method, self.optimizer), self.loader(0), [ts]

        def run(count: int) -> None:
            for i in range(count):
                held[0], _ = step(held[0], frozen, loader[i])
            jax.block_until_ready(held[0])

        return run

    def torch_stepper(self) -> Callable[[int], None]:
        from benchmarks.torch_reasoning import trained as torch_trained

        model = self.torch_model(0)
        return lambda count: torch_trained(model, self.loader(0), count, RATE, NEGATIVES)

    def torch_model(self, seed: int):
        import torch

        from benchmarks.torch_reasoning import Reasoner

        torch.manual_seed(seed)
        torch.set_num_threads(1)
        return Reasoner(self.name, self.loaded.entities, self.loaded.relations, DIM, GAMMA, HIDDEN)

    def accuracy(self, seed: int) -> dict[str, float]:
        """MRR of ours, a fraction, per structure group."""
        fitted = jm.fit(self.method, self.loader(seed), self.optimizer, steps=self.steps, seed=seed)
        found = rank_queries(self.method, fitted.variables, self.test, entities=self.loaded.entities)
        return self._means(found)

    def torch_accuracy(self, seed: int) -> dict[str, float]:
        from benchmarks.torch_reasoning import all_scores
        from benchmarks.torch_reasoning import trained as torch_trained

        model = self.torch_model(seed)
        torch_trained(model, self.loader(seed), self.steps, RATE, NEGATIVES)
        found = {}
        for name, queries in self.test.items():
            rows = np.arange(len(queries.tokens))
            easy, hard = (dense(part, rows, len(rows), self.loaded.entities) for part in (queries.easy, queries.hard))
            scores = all_scores(model, name, queries.tokens)
            found[name] = summarize(np.asarray(per_query(filtered_ranks(scores, easy, hard), hard)), hard, name)
        return self._means(found)

    def _means(self, found) -> dict[str, float]:
        unseen = [name for name in found if name not in self.train]
        return {key: each.mrr for key, each in averages(found, unseen=unseen).items()}


def rates(case: Case, count: int, repeats: int, torch: bool) -> None:
    """Updates and queries per CPU second, both sides in turns."""
    sides = {"ours": case.stepper()} | ({"torch": case.torch_stepper()} if torch else {})
    for run in sides.values():
        run(2)  # compile, and warm up
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(repeats):
        for side, run in sides.items():
            started = time.process_time()
            run(count)
            seconds[side].append(time.process_time() - started)
    updates = 3 * count
    line = f"{case.name:10}"
    for side, each in seconds.items():
        rate = updates / statistics.median(each)
        line += f"  {side} {rate:7.1f} updates/s {BATCH * rate:9,.0f} queries/s"
    if torch:
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["torch"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        line += f"  ours is {middle:.1f} ({low:.1f} to {high:.1f}) times as fast"
    print(line, flush=True)


def accuracies(case: Case, seeds: list[int], torch_seeds: list[int], results: Path | None) -> None:
    """MRR of both sides; finished runs are taken from the results file."""
    for side, chosen, measure in (("ours", seeds, case.accuracy), ("torch", torch_seeds, case.torch_accuracy)):
        rows = []
        for seed in chosen:
            key = {"side": side, "model": case.name, "data": case.loaded.digest, "steps": case.steps, "seed": seed}
            row = find_result(results, key) if results else None
            if row is None:
                row = {**key, **measure(seed)}
                if results:
                    add_result(results, row)
            rows.append(row)
        if rows:
            line = f"{case.name:10}  {side:5}  MRR over {len(rows)} seed(s):"
            for group in ("seen", "unseen", "average"):
                if group in rows[0]:
                    mean, deviation = mean_and_deviation(100 * row[group] for row in rows)
                    line += f"  {group} {mean:.1f} ± {deviation:.1f}"
            print(line, flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="folder with a .npz of queries; the embedded family tree if none")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--parts", nargs="+", default=["rates", "accuracy"], choices=["rates", "accuracy"])
    parser.add_argument("--steps", type=int, default=400, help="of three updates, for the accuracy")
    parser.add_argument("--count", type=int, default=20, help="steps timed at once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--torch_seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--no_torch", action="store_true")
    parser.add_argument("--results", type=Path, help="file of finished accuracy runs, one JSON line each")
    options = parser.parse_args(argv)
    loaded = reasoning_data.load(Config(data_dir=options.data_dir))
    sizes = {"entities": loaded.entities, "relations": loaded.relations, "machine": platform.processor() or "CPU"}
    print(
        f"{loaded.name}: {json.dumps(sizes)}, one thread, jax {jax.__version__}, batch {BATCH}, {NEGATIVES} negatives"
    )
    for name in options.models:
        case = Case(name, loaded, options.steps)
        if "rates" in options.parts:
            rates(case, options.count, options.repeats, not options.no_torch)
        if "accuracy" in options.parts:
            accuracies(case, options.seeds, [] if options.no_torch else options.torch_seeds, options.results)


if __name__ == "__main__":
    sys.exit(main())
