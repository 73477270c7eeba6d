"""One of several processes that train the small method together; `python -m tests.training.worker --help`."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from jaxmodels.data.batches import batches, eval_batches
from jaxmodels.data.source import LazySource
from jaxmodels.training import fit as fit_module
from jaxmodels.training import processes
from jaxmodels.training.evaluate import evaluate
from jaxmodels.training.fit import Fit, Interrupted, fit
from jaxmodels.training.mesh import local_rows, make_mesh
from tests.training.small import CLASSES, small_run

TRAINING, TESTED, BATCH = 24, 21, 8  # 21 is no multiple of the batch


def example(i: int) -> dict:
    random = np.random.default_rng(i)
    return {"image": random.normal(size=(8, 8, 3)).astype(np.float32), "label": np.int32(random.integers(CLASSES))}


def jitter(example, random):
    return {**example, "image": example["image"] + random.normal(0, 0.1, (8, 8, 3)).astype(np.float32)}


class Hanging:
    """Batches of which one is never read."""

    def __init__(self, batches, step: int):
        self.batches, self.step = batches, step

    def __getitem__(self, step: int):
        if step == self.step:
            time.sleep(1000)
        return self.batches[step]


def run(workdir, steps: int, *, mesh, resume: bool = False, hang_at: int | None = None, **options) -> Fit:
    """Trains, whatever the number of processes, on the same global batches."""
    method, _, optimizer = small_run()
    rows = local_rows(mesh, BATCH)
    data = batches(LazySource(TRAINING, example), BATCH, seed=3, augment=jitter, rows=rows)

    def tested(variables):
        return evaluate(method, variables, eval_batches(LazySource(TESTED, example), BATCH, rows=rows), mesh=mesh)

    options = {"log_every": 1, "evaluate": tested, "evaluate_every": 3, **options}
    source = data if hang_at is None else Hanging(data, hang_at)
    return fit(method, source, optimizer, steps=steps, seed=1, workdir=workdir, resume=resume, mesh=mesh, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    parser.add_argument("--mesh", default="data:-1")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--hang_at", type=int)
    parser.add_argument("--stall_after", type=float, help="seconds")
    flags = parser.parse_args()
    processes.start(flags.coordinator, flags.num_processes, flags.process_id, timeout=120)
    try:
        options = {}
        if flags.stall_after:
            options, fit_module.STALL = {"stall_factor": 1.0}, flags.stall_after
        mesh = make_mesh(flags.mesh)
        fitted = run(flags.workdir, flags.steps, mesh=mesh, resume=flags.resume, hang_at=flags.hang_at, **options)
    except Interrupted as stop:
        print(json.dumps({"interrupted": stop.step, "saved": stop.saved}))
        sys.exit(128 + stop.number)
    print(json.dumps({"history": fitted.history}))


if __name__ == "__main__":
    main()
