"""What a person sees of a run: progress, the result table, the picture."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.data.tasks import Task
from jaxmodels.training.goodput import Clock, together
from jaxmodels.training.memory import show_bytes
from jaxmodels.training.pictures import bars, curves, save_figure
from jaxmodels.training.results import mean_and_deviation

Rows = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]  # method -> task -> one result row per seed


def headline(console: Console, config: Any, backbone: Backbone, tasks: Sequence[Task]) -> None:
    """Says what is about to run, and which data are real."""
    real = [task.name for task in tasks if task.real]
    synthetic = [task.name for task in tasks if not task.real]
    seeds = ", ".join(map(str, config.seeds or (config.seed,)))
    console.print(
        f"[bold]{config.method}[/bold] on {backbone.name} ({backbone.image_size} px), normalisation "
        f"{tasks[0].normalisation}, {len(tasks)} task{'s' if len(tasks) > 1 else ''}, seed {seeds}"
    )
    if synthetic:
        console.print(f"Real images: {', '.join(real) or 'none'}. Synthetic (generated): {', '.join(synthetic)}.")


def progress(console: Console, name: str, steps: int) -> Callable[[Mapping[str, float]], None]:
    """A callback for logged rows: one line per run, rewritten in place on a terminal."""
    started = time.perf_counter()
    first: list[float] = []

    def log(row: Mapping[str, float]) -> None:
        first.append(row["step"])
        done = row["step"] - first[0] + first[0] * (len(first) == 1)
        elapsed = time.perf_counter() - started
        rate = done / elapsed if elapsed else 0.0
        left = (steps - row["step"]) / rate if rate else 0.0
        line = f"{name}: step {row['step']:.0f}/{steps}  loss {row['loss']:.3f}  {rate:.1f} steps/s  {left:.0f} s left"
        last = row["step"] >= steps
        if console.is_terminal:
            console.print(line.ljust(console.width - 1), end="\n" if last else "\r", highlight=False)
        elif last:
            console.print(f"{name}: {steps} steps  loss {row['loss']:.3f}  {elapsed:.0f} s", highlight=False)

    return log


def goodput(console: Console, clocks: Sequence[Clock]) -> None:
    """Prints where the time of this command's runs went, earlier starts of resumed ones included."""
    if not clocks:
        return
    table = Table(title="Where the time of training went")
    for column in ("", "seconds", "percent"):
        table.add_column(column, justify="right" if column else "left")
    for row in together(clocks):
        table.add_row(row.name, f"{row.seconds:.1f}", f"{row.percent:.1f}")
    console.print(table)
    restarts, lost = (sum(getattr(clock, name) for clock in clocks) for name in ("restarts", "lost_steps"))
    if restarts:
        console.print(f"{restarts} restart(s), {lost} step(s) done again.")


def show(console: Console, tasks: Sequence[Task], rows: Rows, method: str) -> None:
    """Prints accuracy per task and group for every method, then what each costs."""
    table = Table(title="Top-1 accuracy on the test split, %")
    table.add_column("group")
    table.add_column("task")
    for name in rows:
        table.add_column(_title(name, rows[name]), justify="right", style="bold" if name == method else "")
    for group, members in groups_of(tasks).items():
        for task in members:
            marked = f"{task.name}{'' if task.real else ' (synthetic)'}"
            table.add_row(group, marked, *(_cell(rows[name][task.name]) for name in rows))
        if len(members) > 1:
            table.add_row(group, "[i]mean of group[/i]", *(f"{_mean(rows[n], members):.1f}" for n in rows))
        table.add_section()
    if len(groups_of(tasks)) > 1:
        table.add_row("", "mean of groups", *(f"{mean_of_groups(tasks, rows[n]):.1f}" for n in rows))
    table.add_row("", f"mean of {len(tasks)} tasks", *(f"{_mean(rows[n], tasks):.1f}" for n in rows))
    console.print(table)
    costs = Table()
    for column in ("method", "trained parameters", "seconds per task", "tuner file", "peak memory"):
        costs.add_column(column, justify="left" if column == "method" else "right")
    for name, results in rows.items():
        each = [row for seeds in results.values() for row in seeds]
        costs.add_row(
            name,
            f"{max(row['trained'] for row in each):,}",
            f"{statistics.fmean(row['seconds'] for row in each):.1f}",
            show_bytes(max(row["tuner_bytes"] for row in each)),
            show_bytes(max(row["peak_bytes"] for row in each)),
        )
    console.print(costs)


def draw(path: Path, tasks: Sequence[Task], rows: Rows, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Saves the picture: bars of accuracy per task beside the method's training curves."""
    figure = Figure(figsize=(13, 4.2))
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    ordered = [task for members in groups_of(tasks).values() for task in members]
    series = {name: [_accuracy(rows[name], task) for task in ordered] for name in rows}
    names, groups = [task.name for task in ordered], [task.group for task in ordered]
    bars(left, names, series, label="test accuracy, %", groups=groups)
    curves(right, histories, "loss")
    right.set_title("training loss", fontsize=9)
    save_figure(figure, path)


def groups_of(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Group -> its tasks, in order of first appearance."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.group, []).append(task)
    return groups


def mean_of_groups(tasks: Sequence[Task], results: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    """The headline number of PEFT tables: the mean of the groups' means."""
    return statistics.fmean(_mean(results, members) for members in groups_of(tasks).values())


def _mean(results: Mapping[str, Sequence[Mapping[str, Any]]], tasks: Sequence[Task]) -> float:
    return statistics.fmean(_accuracy(results, task) for task in tasks)


def _accuracy(results: Mapping[str, Sequence[Mapping[str, Any]]], task: Task) -> float:
    return statistics.fmean(row["accuracy"] for row in results[task.name])


def _cell(seeds: Sequence[Mapping[str, Any]]) -> str:
    mean, deviation = mean_and_deviation(row["accuracy"] for row in seeds)
    return f"{mean:.1f} ± {deviation:.1f}" if len(seeds) > 1 else f"{mean:.1f}"


def _title(name: str, results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    selections = {row["select"] for seeds in results.values() for row in seeds}
    return f"{name}\n(best on test)" if selections == {"best_test"} else name
