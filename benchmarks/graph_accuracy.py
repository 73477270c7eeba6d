"""Accuracy runs that survive interruption: one JSON line per finished (data set, method, split, seed, configuration).

Every method gets a grid of the same size. Configurations are compared by the mean validation score over the tuning
splits; the winner, and only it, is trained on all splits and its test scores are reported. Both the epoch and the
configuration are chosen on validation nodes alone.
"""

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.graph_data import node_set
from benchmarks.graph_training import CHUNK, History, epochs_of, module_of, optimizer_of

METHODS = ("n2", "gcn", "gat", "gin")
TUNING = 3  # splits that choose the configuration
PATIENCE = 300  # epochs without a better validation loss, as N2's authors
SIZES = {"width": 64, "state_width": 64, "pieces": 8, "pseudo_nodes": 128}
PUBLISHED = {"steps": 7, "dropout": 0.3, "lr": 1e-3, "decay": 1e-6, **SIZES}  # minesweeper, Table S6
N2_GRID = (
    PUBLISHED,
    {"steps": 3, "dropout": 0.4, "lr": 1e-3, "decay": 1e-6, **SIZES},
    {"steps": 3, "dropout": 0.6, "lr": 1e-3, "decay": 5e-4, **SIZES},
    {"steps": 2, "dropout": 0.6, "lr": 3e-3, "decay": 5e-4, **SIZES},
)
PEER_GRID = (
    {"depth": 2, "dropout": 0.5, "residual": False, "width": 64, "lr": 1e-2, "decay": 5e-4},
    {"depth": 2, "dropout": 0.5, "residual": True, "width": 64, "lr": 1e-2, "decay": 5e-4},
    {"depth": 5, "dropout": 0.2, "residual": True, "width": 64, "lr": 1e-2, "decay": 0.0},
    {"depth": 5, "dropout": 0.5, "residual": True, "width": 64, "lr": 3e-3, "decay": 0.0},
)
Run = tuple[str, str, int, int, int]  # data set, method, split, seed, configuration


def grid(method: str) -> tuple[dict[str, Any], ...]:
    return N2_GRID if method == "n2" else PEER_GRID


class Records:
    """The finished runs, in a file of JSON lines."""

    def __init__(self, file: Path):
        self.file, self.done = file, {}
        if file.exists():
            for line in file.read_text().splitlines():
                record = json.loads(line)
                self.done[self.key(record)] = record

    @staticmethod
    def key(record: dict[str, Any]) -> Run:
        return tuple(record[name] for name in ("dataset", "method", "split", "seed", "config"))

    def add(self, record: dict[str, Any]) -> None:
        """Appends a line and flushes it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as out:
            out.write(json.dumps(record) + "\n")
        self.done[self.key(record)] = record

    def best(self, dataset: str, method: str, seed: int) -> int | None:
        """The configuration with the best mean validation score over the tuning splits; None while some are missing."""
        means = []
        for config in range(len(grid(method))):
            runs = [self.done.get((dataset, method, split, seed, config)) for split in range(TUNING)]
            if None in runs:
                return None
            means.append(np.mean([run["val"] for run in runs if run]))
        return int(np.argmax(means))


def missing(records: Records, datasets: list[str], methods: list[str], seeds: list[int], splits: int) -> Iterator[Run]:
    """What is still to be trained, peers before N2 as they are quicker; looks at the records as it goes."""
    for dataset in datasets:
        for seed in seeds:
            for method in sorted(methods, key=lambda m: m == "n2"):
                wanted = [(s, c) for c in range(len(grid(method))) for s in range(TUNING)]
                for split, config in wanted:
                    if (dataset, method, split, seed, config) not in records.done:
                        yield dataset, method, split, seed, config
                config = records.best(dataset, method, seed)
                for split in range(TUNING, splits):
                    if (dataset, method, split, seed, config) not in records.done:
                        yield dataset, method, split, seed, config


def train(data_dir: Path, run: Run, most: int, compiled: dict) -> dict[str, Any]:
    """Trains one run to its end."""
    dataset, method, split, seed, number = run
    nodes, config = node_set(data_dir, dataset), grid(method)[number]
    if (dataset, method, number) not in compiled:
        compiled.clear()  # one program at a time is enough, as runs of a configuration follow each other
        module = module_of(method, nodes.data.num_classes, config)
        compiled[dataset, method, number] = epochs_of(module, optimizer_of(config), CHUNK)
    start, epochs = compiled[dataset, method, number]
    batch = jax.device_put({**nodes.batch, "mask": nodes.masks(split)["train"]})
    _, val, test = nodes.data.splits[split]
    history = History(nodes.data.metric, nodes.data.labels, val, test)
    began, used = time.time(), cpu_seconds()
    carry = start(jax.random.key(1000 * seed + split), batch)
    while len(history.rows) < most and (not history.rows or history.waited() < PATIENCE):
        carry, log_probs = epochs(carry, batch)
        for each in np.asarray(log_probs):
            history.add(each)
    found = {key: round(float(value), 6) for key, value in history.summary().items()}
    names = dict(zip(("dataset", "method", "split", "seed", "config"), run, strict=True))
    spent = {"cpu_seconds": round(cpu_seconds() - used, 1), "wall_seconds": round(time.time() - began, 1)}
    return {**names, **found, **spent, "options": config}


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def train_missing(
    data_dir: Path, records: Records, datasets: list[str], methods: list[str], seeds: list[int], splits: int, most: int
) -> None:
    """Trains whatever the file lacks; may be interrupted and started again at any time."""
    compiled: dict = {}
    for run in missing(records, datasets, methods, seeds, splits):
        record = train(data_dir, run, most, compiled)
        records.add(record)
        print(
            f"{run[0]:20s}{run[1]:4s} split {run[2]} seed {run[3]} config {run[4]}: val {record['val']:.2f} "
            f"test {record['test']:.2f} at epoch {record['epoch']:.0f} of {record['epochs']:.0f}, "
            f"{record['cpu_seconds']:.0f} CPU s",
            flush=True,
        )


def table(records: Records, datasets: list[str], methods: list[str], seeds: list[int], splits: int) -> None:
    """Mean and deviation of the test score over splits and seeds, each seed with its own chosen configuration."""
    print(f"{'test score, %':20s}" + "".join(f"{method:>20s}" for method in methods))
    for dataset in datasets:
        cells = []
        for method in methods:
            found = list(_chosen(records, dataset, method, seeds, splits))
            text = f"{np.mean(found):.2f} +- {np.std(found):.2f} ({len(found)})" if found else "-"
            cells.append(f"{text:>20s}")
        print(f"{dataset:20s}" + "".join(cells))


def _chosen(records: Records, dataset: str, method: str, seeds: list[int], splits: int) -> Iterator[float]:
    for seed in seeds:
        config = records.best(dataset, method, seed)
        for split in range(splits) if config is not None else ():
            run = records.done.get((dataset, method, split, seed, config))
            if run:
                yield run["test"]
