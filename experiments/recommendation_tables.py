"""What a person sees of recommendation runs: what is about to run, and the table of methods."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from experiments.recommendation_data import Loaded, sizes
from experiments.recommendation_methods import METHODS
from experiments.recommendation_runs import settings_for
from experiments.running import Setup
from jaxmodels.training.memory import show_bytes
from jaxmodels.training.results import mean_and_deviation

Rows = Mapping[str, Sequence[Mapping[str, Any]]]  # method -> one result row per seed


def headline(setup: Setup[Loaded]) -> None:
    """Says what is about to run, on which data, with which settings."""
    config, loaded = setup.config, setup.problem
    listed = ", ".join(map(str, config.seeds or (config.seed,)))
    say = setup.console.print
    say(f"[bold]{config.method}[/bold] ({METHODS[config.method].about}) on {loaded.name}, seed {listed}")
    say(f"{loaded.about}.", highlight=False)
    say(f"{sizes(loaded)}.", highlight=False)
    found = settings_for(setup, config.method)
    options = ", ".join(f"{name} {value}" for name, value in found.options.items())
    rule = "Adagrad" if METHODS[config.method].adagrad else "Adam"
    say(
        f"{options}, dim {found.dim}; {rule} {found.learning_rate:g}, decay {found.weight_decay:g}, {found.epochs} "
        f"epochs of batches of {found.batch_size}",
        highlight=False,
    )


def columns(at: Sequence[int]) -> dict[str, str]:
    """Heading -> metric."""
    ranked = {f"{short}@{k}": f"{name}@{k}" for k in at for short, name in zip("PRN", _AT, strict=True)}
    return ranked | {"MAP": "map", "MRR": "mrr", "AUC": "auc"}


_AT = ("precision", "recall", "ndcg")


def show(setup: Setup[Loaded], rows: Rows) -> None:
    """Prints the comparison: metrics on the test items, and what each method costs."""
    config, several = setup.config, max(map(len, rows.values())) > 1
    spread = ", mean ± deviation over seeds" if several else ""
    table = Table(title=f"{setup.problem.name}: test items, %{spread}; epoch chosen by validation {config.select}")
    metrics, k = columns(config.at), max(config.at)
    for heading in ("method", *metrics):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=not several)
    costs = Table()
    for heading in ("method", f"MaxDiv@{k}", "epoch", "parameters", "s/epoch"):
        costs.add_column(heading, justify="left" if heading == "method" else "right")
    for name, each in rows.items():
        style = "bold" if name == config.method else ""
        cells = (_cell([row["test"].get(metric) for row in each], 100.0) for metric in metrics.values())
        table.add_row(name, *cells, style=style)
        costs.add_row(
            name,
            _cell([row["test"].get(f"maxdiv@{k}") for row in each], 1.0),
            f"{statistics.median(row['epoch'] for row in each):.0f}",
            f"{max(row['trained'] for row in each):,}",
            f"{statistics.median(row['epoch_seconds'] for row in each):.3g}",
            style=style,
        )
    setup.console.print(table)
    setup.console.print(costs)
    peak = show_bytes(max(row["peak_bytes"] for each in rows.values() for row in each))
    setup.console.print(
        "Users with fewer than K test items do not count at K, nor those with fewer than three in MAP, MRR and AUC; "
        f"seconds are those of an epoch with its evaluation. Peak memory: {peak}.",
        highlight=False,
    )
    if "dihars" in rows:
        setup.console.print(f"dihars: {METHODS['dihars'].about}.", highlight=False)


def _cell(values: Sequence[float | None], factor: float) -> str:
    known = [factor * value for value in values if value is not None]
    if not known:
        return "-"
    digits = 2 if factor == 1.0 else 1
    mean, deviation = mean_and_deviation(known)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}" if len(known) > 1 else f"{mean:.{digits}f}"
