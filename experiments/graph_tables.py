"""What a person sees of graph runs: the headline, the result table, the picture."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from experiments import graph_folds, graph_picture
from experiments.graph_data import Problem
from experiments.graph_judging import LESS_IS_BETTER
from experiments.graph_methods import METHODS
from experiments.graph_runs import method_folder, settings_of
from experiments.running import Setup
from jaxmodels.training.memory import show_bytes
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.pictures import save_figure
from jaxmodels.training.results import mean_and_deviation

Rows = Mapping[str, Sequence[Mapping[str, Any]]]  # method -> one result row per split and seed
METRICS = {
    "accuracy": "accuracy, %",
    "f1": "macro F1, %",
    "f1_micro": "micro F1, %",
    "roc_auc": "ROC-AUC, %",
    "average_precision": "average precision, %",
    "average_precision_micro": "micro average precision, %",
    "mae": "MAE",
}


def headline(setup: Setup[Problem], splits: Sequence[int]) -> None:
    """Says what is about to run, on which data, with which settings."""
    config, problem = setup.config, setup.problem
    seeds = ", ".join(map(str, config.seeds or (config.seed,)))
    setup.console.print(
        f"[bold]{config.method}[/bold] ({METHODS[config.method].about}) on {problem.name}, "
        f"split {', '.join(map(str, splits))} of {len(problem.splits)}, seed {seeds}"
    )
    setup.console.print(f"{problem.about}.", highlight=False)
    found = settings_of(config, config.method, problem)
    options = ", ".join(f"{name} {value}" for name, value in found.options.items())
    setup.console.print(
        f"{options}; Adam {found.learning_rate:g}, decay {found.weight_decay:g}, at most {found.epochs} epochs, "
        f"patience {found.patience}",
        highlight=False,
    )


def show(setup: Setup[Problem], rows: Rows) -> None:
    """Prints the comparison: the metric on the test part, and what each network costs."""
    problem, config = setup.problem, setup.config
    several = max(map(len, rows.values())) > 1
    spread = ", mean ± deviation" if several else ""
    table = Table(title=f"{problem.name}: {METRICS[problem.metric]}{spread}\n{_held(setup)}")
    columns = ("network", "test", "val", "epoch", "params", "s/epoch", "programs")
    for column in columns:
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, results in rows.items():
        later = sum(row["programs_later"] for row in results)
        table.add_row(
            name,
            _cell(problem.metric, [row["test"] for row in results]),
            _cell(problem.metric, [row["val"] for row in results]),
            f"{statistics.median(row['epoch'] for row in results):.0f}",
            f"{max(row['trained'] for row in results):,}",
            f"{statistics.median(row['epoch_seconds'] for row in results):.3g}",
            f"{sum(row['programs_first'] for row in results)} + {later}",
            style="bold" if name == config.method else "",
        )
    setup.console.print(table)
    for line in graph_folds.describe(setup, rows):
        setup.console.print(line, highlight=False)
    peak = show_bytes(max(row["peak_bytes"] for results in rows.values() for row in results))
    padding = max(row["padding"] for results in rows.values() for row in results)
    setup.console.print(
        "programs: train and evaluation programs compiled in the first epoch of a run + in all later ones, over all "
        f"runs of the row. Padding: {100 * padding:.1f} % of node rows. Peak memory: {peak}.",
        highlight=False,
    )


def draw(path: Path, setup: Setup[Problem], rows: Rows, split: int, seed: int) -> None:
    """Saves the picture: N2's states beside the comparison and the validation losses."""
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    wide = setup.config.method == "n2" and graph_picture.drawable(setup)
    if wide:
        grid = figure.add_gridspec(2, 2, width_ratios=(1.55, 1), height_ratios=(1, 1))
        graph_picture.states(figure.add_subplot(grid[:, 0]), setup, split, seed)
        upper, lower = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    else:
        upper, lower = figure.subplots(1, 2)
    _bars(upper, setup, rows)
    for name, color in _colors(rows, setup.config.method).items():
        history = read_metrics(method_folder(setup, name) / f"split{split}-seed{seed}" / "metrics.jsonl")
        found = [(i, row["val_loss"]) for i, row in enumerate(history, 1) if row.get("val_loss") is not None]
        if found:
            epochs, losses = zip(*found, strict=True)
            lower.plot(epochs, losses, color=color, linewidth=2.0 if name == setup.config.method else 1.1, label=name)
    lower.set_xlabel("evaluation")
    lower.set_ylabel("validation loss")
    lower.spines[["top", "right"]].set_visible(False)
    lower.legend(frameon=False, fontsize=8, ncols=2)
    save_figure(figure, path)


def _bars(axes: Axes, setup: Setup[Problem], rows: Rows) -> None:
    metric = setup.problem.metric
    found = {name: mean_and_deviation(row["test"] for row in results) for name, results in rows.items()}
    means, deviations = [mean for mean, _ in found.values()], [deviation for _, deviation in found.values()]
    colors = list(_colors(rows, setup.config.method).values())
    several = any(deviations)
    drawn = axes.bar(list(found), means, 0.7, yerr=deviations if several else None, color=colors, capsize=3)
    axes.bar_label(drawn, fmt="%.3f" if metric in LESS_IS_BETTER else "%.1f", fontsize=9, padding=3)
    if metric not in LESS_IS_BETTER:
        low = min(mean - deviation for mean, deviation in found.values())
        axes.set_ylim(max(0.0, 10 * ((low - 5) // 10)), None)
    axes.margins(y=0.15)
    axes.set_ylabel(f"test {METRICS[metric]}")
    axes.set_title(f"{setup.problem.name}: {_held(setup)}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _colors(rows: Rows, method: str) -> dict[str, str]:
    others = iter(("#4f6d8f", "#edae49", "#66a182", "#8d6a9f", "#9aa5b1"))
    return {name: "#d1495b" if name == method else next(others) for name in rows}


def _held(setup: Setup[Problem]) -> str:
    if setup.config.protocol == "official":
        return "test part, official protocol (folds without validation data: chosen on the fold that is reported)"
    return f"test part, epoch chosen by validation {setup.config.select}"


def _cell(metric: str, values: Sequence[float]) -> str:
    digits = 4 if metric in LESS_IS_BETTER else 1
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}" if len(values) > 1 else f"{mean:.{digits}f}"
