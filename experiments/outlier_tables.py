"""What a person sees of runs on outliers: the headline, the result table, the picture."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from experiments import outlier_picture
from experiments.outlier_data import Problem, case_of
from experiments.outlier_methods import METHODS, recipe_of
from experiments.outlier_runs import read_scores
from experiments.running import Setup
from jaxmodels.data.view_outliers import KINDS
from jaxmodels.training.memory import show_bytes
from jaxmodels.training.pictures import save_figure
from jaxmodels.training.results import mean_and_deviation

Rows = Mapping[str, Sequence[Mapping[str, Any]]]  # method -> one result row per seed


def headline(setup: Setup[Problem]) -> None:
    """Says what is about to run, on which data, with which outliers and settings."""
    config, problem = setup.config, setup.problem
    seeds = ", ".join(map(str, config.seeds or (config.seed,)))
    print = setup.console.print
    print(f"[bold]{config.method}[/bold] ({METHODS[config.method].about}) on {problem.name}, seed {seeds}")
    print(f"{problem.about}.", highlight=False)
    if config.outliers == "inject":
        case = case_of(config, problem, (config.seeds or (config.seed,))[0])
        assert case.kind is not None
        found = ", ".join(f"{int((case.kind == i).sum())} {name}" for i, name in enumerate(case.kinds))
        lacking = int((~(case.mask > 0).all(1)).sum())
        print(f"Outliers are put in: {found}; {lacking} of {len(case.mask)} objects lack a view.", highlight=False)
    if config.outliers == "unknown":
        print("Outliers are not known: scores alone.", highlight=False)
    if config.method == "rcpmod" or config.references:
        recipe = recipe_of(config, problem.name)
        widths = "-".join(map(str, (*recipe.hidden, recipe.latent)))
        print(
            f"rcpmod: D-{widths}, {recipe.epochs} epochs per pair of views, {recipe.batch_size} rows a step, "
            f"Adam {recipe.learning_rate:g}, reconstruction x {recipe.error_weight:g} in the score",
            highlight=False,
        )


def show(setup: Setup[Problem], rows: Rows) -> None:
    """Prints the comparison: the area under the ROC curve, of each kind too, and what each method costs."""
    config = setup.config
    spread = ", mean ± deviation" if max(map(len, rows.values())) > 1 else ""
    known = next(iter(rows.values()))[0]["auc"] is not None
    found = next(iter(rows.values()))[0]["kinds"]
    kinds = [kind for kind in (*KINDS, "outlier") if kind in found]
    title = f"ROC-AUC, %{spread}\neach kind against the normal objects" if known else "scores alone"
    table = Table(title=f"{setup.problem.name}: {title}")
    for column in ("method", *(("all", *kinds) if known else ()), "s"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, results in rows.items():
        cells = [_cell([row["auc"] for row in results])] if known else []
        cells += [_cell([row["kinds"][kind] for row in results]) for kind in kinds]
        cells.append(f"{statistics.fmean(row['seconds'] for row in results):.1f}")
        table.add_row(name, *cells, style="bold" if name == config.method else "")
    setup.console.print(table)
    if trained := rows.get("rcpmod", ()):
        seconds = statistics.median(row["epoch_seconds"] for row in trained)
        line = f"rcpmod: {max(row['trained'] for row in trained):,} parameters, {seconds:.2g} s an epoch."
        if known:
            error, contrast = (_cell([row[key] for row in trained]) for key in ("auc_error", "auc_contrast"))
            line += f" Its two terms alone: reconstruction {error}, disagreement {contrast}."
        setup.console.print(line, highlight=False)
    if not known:
        seed = (config.seeds or (config.seed,))[0]
        scores, ids = read_scores(setup, config.method, seed), setup.problem.data.ids
        first = ", ".join(f"{ids[i]} ({scores[i]:.2f})" for i in np.argsort(-scores)[:10])
        setup.console.print(f"Most outlying by {config.method}, seed {seed}: {first}", highlight=False)
    peak = show_bytes(max(row["peak_bytes"] for results in rows.values() for row in results))
    setup.console.print(f"Peak memory: {peak}.", highlight=False)


def draw(path: Path, setup: Setup[Problem], rows: Rows, seed: int) -> None:
    """Saves the picture: most outlying objects where they can be looked at, scores, comparison, training."""
    images = setup.problem.name == "digits"
    figure = Figure(figsize=(14, 7.0 if images else 4.4), layout="constrained")
    lower = figure
    if images:
        upper, lower = figure.subfigures(2, 1, height_ratios=(1.0, 1.6))
        outlier_picture.strip(upper, setup, setup.config.method, seed)
    panels = lower.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
    outlier_picture.histogram(panels[0], setup, setup.config.method, seed)
    outlier_picture.comparison(panels[1], setup, rows)
    outlier_picture.training(panels[2], setup, rows)
    save_figure(figure, path)


def _cell(values: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.1f} ± {deviation:.1f}" if len(values) > 1 else f"{mean:.1f}"
