"""Write the README's result table from a results file.

    python -m experiments.readme --results=runs/vtab/results.jsonl

The table between the markers `<!-- results -->` and `<!-- /results -->` is replaced; nothing else changes. Of several
runs of one method, task and seed the newest counts.
"""

import dataclasses
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import command
from experiments.methods import METHODS
from jaxmodels.atomic import write_text
from jaxmodels.training.memory import show_bytes
from jaxmodels.training.results import mean_and_deviation, read_results

BEGIN, END = "<!-- results -->", "<!-- /results -->"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of `experiments.readme`."""

    results: Path = Path("runs/vtab/results.jsonl")
    """Results file that `experiments.vtab` wrote."""
    readme: Path = Path("README.md")
    """File to change."""


def main(config: Config) -> None:
    """Replaces the table."""
    rows = read_results(config.results)
    if not rows:
        raise ValueError(f"--results: {config.results} holds no results; run experiments.vtab first")
    text = config.readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"--readme: {config.readme} has no place for the table, expected {BEGIN} and {END}")
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    write_text(config.readme, f"{before}{BEGIN}\n{table(rows)}\n{END}{after}")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line per method with group means, their mean, the mean over tasks and the costs."""
    newest = {(row["method"], row["task"], row["seed"]): row for row in rows}
    methods = [name for name in METHODS if any(method == name for method, _, _ in newest)]
    tasks = list(dict.fromkeys(task for _, task, _ in newest))
    group_of = {row["task"]: row["group"] for row in rows}
    groups = list(dict.fromkeys(group_of.values()))
    head = ["method", *groups, "mean of groups", f"mean of {len(tasks)} tasks", "trained", "file"]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for name in methods:
        own = [row for (method, _, _), row in newest.items() if method == name]
        if {row["task"] for row in own} != set(tasks):
            continue  # a method that saw only some of the tasks has no comparable mean
        seeds = sorted({row["seed"] for row in own})
        by_group = [_over_seeds(own, seeds, [t for t in tasks if group_of[t] == g]) for g in groups]
        means = [statistics.fmean(values) for values in zip(*by_group, strict=True)]
        each = _over_seeds(own, seeds, tasks)
        cells = [f"{statistics.fmean(values):.1f}" for values in by_group]
        cells += [_pm(means), _pm(each), f"{max(row['trained'] for row in own):,}"]
        cells.append(show_bytes(max(row["tuner_bytes"] for row in own)))
        lines.append(_line([f"`{name}`", *cells]))
    seeds = sorted({row["seed"] for row in newest.values()})
    lines.append(f"\nTop-1 accuracy in %, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}; {platform.machine()} CPU.")
    return "\n".join(lines)


def _over_seeds(rows: Sequence[Mapping[str, Any]], seeds: Sequence[int], tasks: Sequence[str]) -> list[float]:
    """The mean over tasks, for each seed."""
    return [statistics.fmean(r["accuracy"] for r in rows if r["seed"] == s and r["task"] in tasks) for s in seeds]


def _pm(values: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.1f} ± {deviation:.1f}" if len(values) > 1 else f"{mean:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    command.run(main, Config, __doc__, "experiments.readme")
