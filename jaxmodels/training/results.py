"""The results file: one JSON line per finished run, appended and never rewritten; tables are made from it."""

import json
import os
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxmodels.training.metrics import read_metrics


def add_result(path: str | Path, row: Mapping[str, Any]) -> None:
    """Appends one run's row, complete on disk when this returns."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(row, sort_keys=True) + "\n"
    with path.open("a", encoding="utf-8") as file:
        # A line that a full disk or a kill cut short would swallow the next one: start on a fresh line.
        if file.tell() and path.read_bytes()[-1:] != b"\n":
            line = "\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def find_result(path: str | Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest row in which every entry of `wanted` stands, or None."""
    rows = [row for row in read_results(path) if all(row.get(name) == value for name, value in wanted.items())]
    return rows[-1] if rows else None


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """All rows, oldest first; lines that were cut off are left out."""
    return read_metrics(path)


def mean_and_deviation(values: Iterable[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value).

    >>> mean_and_deviation([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    found = list(values)
    return statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else 0.0
