"""Accuracy runs that survive interruption: one JSON line per finished (data set, method, split, seed, configuration).

Configurations are compared by the mean validation score over the tuning splits; the winner, and only it, is trained on
all splits and its test scores are reported. Both the epoch and the configuration are chosen on validation nodes alone.
"""

import json
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.graph_data import node_set
from benchmarks.graph_grids import grid
from benchmarks.graph_training import History, ours

METHODS = ("n2", "gcn", "gat", "gin", "sage", "mlp")
PYG = "pyg_"  # before the name of a peer: PyTorch Geometric's
Run = tuple[str, str, int, int, int]  # data set, method, split, seed, configuration


@dataclass(frozen=True)
class Protocol:
    """How a configuration is chosen and when a run ends."""

    drawn: int = 0  # random configurations of each method; 0: those of its written grid
    input_dropout: bool = False  # drawn ones have a dropout of the features as well
    tuning: int = 3  # splits that choose among them
    splits: int = 10  # splits on which the chosen one is trained and reported
    epochs: int = 1000  # at most
    patience: int = 200  # epochs without a better validation loss

    def configs(self, dataset: str, method: str) -> tuple[dict[str, Any], ...]:
        """The configurations of a method; PyTorch Geometric's peers have those of ours."""
        return grid(dataset, method.removeprefix(PYG), self.drawn, input_dropout=self.input_dropout)


class Records:
    """The finished runs, in a file of JSON lines, all of one protocol."""

    def __init__(self, file: Path, protocol: Protocol):
        self.file, self.protocol, self.done = file, protocol, {}
        for number, line in enumerate(file.read_text().splitlines() if file.exists() else (), 1):
            record = json.loads(line)
            configs = dict(enumerate(protocol.configs(record["dataset"], record["method"])))
            if record["options"] != configs.get(record["config"]):
                raise ValueError(f"{file}:{number}: {record['options']} is not what these flags have there")
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
        method, means = method.removeprefix(PYG), []
        for config in range(len(self.protocol.configs(dataset, method))):
            runs = [self.done.get((dataset, method, split, seed, config)) for split in range(self.protocol.tuning)]
            if None in runs:
                return None
            means.append(np.mean([run["val"] for run in runs if run]))
        return int(np.argmax(means))


def missing(records: Records, datasets: list[str], methods: list[str], seeds: list[int]) -> Iterator[Run]:
    """What is still to be trained, peers before N2 as they are quicker; looks at the records as it goes."""
    tuning, splits = range(records.protocol.tuning), range(records.protocol.splits)
    for dataset in datasets:
        for seed in seeds:
            for method in sorted(methods, key=lambda m: (m.startswith(PYG), m == "n2")):
                if method.startswith(PYG):  # nothing is tuned again
                    config, rest = records.best(dataset, method, seed), tuning
                    if config is None:
                        raise ValueError(f"{method} on {dataset}: train {method.removeprefix(PYG)} before")
                else:
                    for config in range(len(records.protocol.configs(dataset, method))):
                        for split in tuning:
                            if (dataset, method, split, seed, config) not in records.done:
                                yield dataset, method, split, seed, config
                    config, rest = records.best(dataset, method, seed), splits
                for split in rest:
                    if (dataset, method, split, seed, config) not in records.done:
                        yield dataset, method, split, seed, config


def train(data_dir: Path, run: Run, protocol: Protocol, compiled: dict) -> dict[str, Any]:
    """Trains one run to its end."""
    dataset, method, split, seed, number = run
    nodes, config = node_set(data_dir, dataset), protocol.configs(dataset, method)[number]
    _, val, test = nodes.data.splits[split]
    history = History(nodes.data.metric, nodes.data.labels, val, test)
    began, used = time.time(), cpu_seconds()
    if method.startswith(PYG):
        from benchmarks.graph_speed import theirs

        epochs = theirs(nodes, method.removeprefix(PYG), config, split=split, seed=seed)
    else:
        epochs = ours(nodes, method, config, split=split, seed=seed, programs=compiled)
    while len(history.rows) < protocol.epochs and (not history.rows or history.waited() < protocol.patience):
        for each in epochs():
            history.add(each)
    found = {key: round(float(value), 6) for key, value in history.summary().items()}
    names = dict(zip(("dataset", "method", "split", "seed", "config"), run, strict=True))
    spent = {"cpu_seconds": round(cpu_seconds() - used, 1), "wall_seconds": round(time.time() - began, 1)}
    return {**names, **found, **spent, "options": config}


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def train_missing(data_dir: Path, records: Records, datasets: list[str], methods: list[str], seeds: list[int]) -> None:
    """Trains whatever the file lacks; may be interrupted and started again at any time."""
    compiled: dict = {}
    for run in missing(records, datasets, methods, seeds):
        record = train(data_dir, run, records.protocol, compiled)
        records.add(record)
        print(
            f"{run[0]:20s}{run[1]:8s} split {run[2]} seed {run[3]} config {run[4]}: val {record['val']:.2f} "
            f"test {record['test']:.2f} at epoch {record['epoch']:.0f} of {record['epochs']:.0f}, "
            f"{record['cpu_seconds']:.0f} CPU s",
            flush=True,
        )


def table(records: Records, datasets: list[str], methods: list[str], seeds: list[int]) -> None:
    """Mean and deviation of the test score over splits and seeds, each seed with its own chosen configuration."""
    tuning, splits = records.protocol.tuning, records.protocol.splits
    _cells(f"test score, %, {splits} splits", records, datasets, methods, seeds, splits)
    peers = [m for m in METHODS if any(run[1] == PYG + m for run in records.done)]
    if peers:
        both = [name for m in peers for name in (m, PYG + m)]
        print(f"\nOurs and PyTorch Geometric's, the same configurations, the first {tuning} splits:")
        _cells("test score, %", records, datasets, both, seeds, tuning)


def _cells(title: str, records: Records, datasets: list[str], methods: list[str], seeds: list[int], most: int) -> None:
    print(f"{title:30s}" + "".join(f"{method:>20s}" for method in methods))
    for dataset in datasets:
        cells = []
        for method in methods:
            found = list(_chosen(records, dataset, method, seeds, most))
            text = f"{np.mean(found):.2f} +- {np.std(found):.2f} ({len(found)})" if found else "-"
            cells.append(f"{text:>20s}")
        print(f"{dataset:30s}" + "".join(cells))


def _chosen(records: Records, dataset: str, method: str, seeds: list[int], splits: int) -> Iterator[float]:
    for seed in seeds:
        config = records.best(dataset, method, seed)
        for split in range(splits) if config is not None else ():
            run = records.done.get((dataset, method, split, seed, config))
            if run:
                yield run["test"]
