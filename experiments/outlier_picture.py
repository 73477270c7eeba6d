"""The picture of the outliers experiment: who is found, how scores lie, how methods compare, how training went."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from experiments.outlier_data import case_of
from experiments.outlier_runs import Setup, history, read_scores
from jaxmodels.training.results import mean_and_deviation

SHOWN = 16  # most outlying objects in the strip
COLORS = {
    "normal": "#b8c0c8", "class": "#edae49", "attribute": "#4f6d8f", "class-attribute": "#d1495b", "outlier": "#d1495b"
}  # fmt: skip
METHOD_COLORS = ("#d1495b", "#4f6d8f", "#66a182", "#9aa5b1")


def strip(figure: SubFigure, setup: Setup, name: str, seed: int) -> None:
    """The highest scores of each kind of outlier side by side: pixels above, Fourier magnitudes below.

    Args:
        figure: where.
        setup: of a finished run on the digits.
        name: method.
        seed: of the run.
    """
    case = case_of(setup.config, setup.problem, seed)
    scores = read_scores(setup, name, seed)
    order = np.argsort(-scores)
    panels = figure.subplots(2, SHOWN)
    for column, i in enumerate(order[:SHOWN]):
        kind = "unknown" if case.kind is None else case.kinds[case.kind[i]]
        color = COLORS.get(kind, "#444444")
        for row, shape in enumerate(((8, 8), (8, 5))):
            axes = panels[row, column]
            there = case.mask[i, row] > 0
            # Magnitudes are shown by their square root: the mean brightness outshines all others.
            picture = case.views[row][i].reshape(shape) ** (0.5 if row else 1.0)
            if row:
                picture = np.fft.fftshift(picture, axes=0)
            if there:
                axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1, aspect="auto" if row else "equal")
            else:
                axes.text(0.5, 0.5, "missing", ha="center", va="center", fontsize=8, transform=axes.transAxes)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_color(color)
                spine.set_linewidth(2.2)
        panels[0, column].set_title(f"{kind}\n{scores[i]:.2f}", fontsize=7.5, color=color)
    panels[0, 0].set_ylabel("pixels", fontsize=8)
    panels[1, 0].set_ylabel("Fourier", fontsize=8)
    figure.suptitle(
        f"The {SHOWN} most outlying of {len(scores)} digits by {name}, seed {seed}: kind and score", fontsize=10
    )


def histogram(axes: Axes, setup: Setup, name: str, seed: int) -> None:
    """How the scores of each kind lie."""
    case, scores = case_of(setup.config, setup.problem, seed), read_scores(setup, name, seed)
    kind = np.zeros(len(scores), int) if case.kind is None else case.kind
    kinds = ("all",) if case.kind is None else case.kinds
    edges = np.linspace(scores.min(), scores.max() + 1e-9, 49)
    groups = [scores[kind == i] for i in range(len(kinds))]
    labels = [f"{each} ({len(group)})" for each, group in zip(kinds, groups, strict=True)]
    colors = [COLORS.get(each, "#4f6d8f") for each in kinds]
    axes.hist(groups, edges, stacked=True, color=colors, label=labels)
    axes.set_yscale("symlog", linthresh=10)
    axes.set_xlabel(f"score by {name}, seed {seed}")
    axes.set_ylabel("objects")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def comparison(axes: Axes, setup: Setup, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Areas under the curve, of all outliers and of each kind, for every method."""
    first = next(iter(rows.values()))[0]
    if first["auc"] is None:
        axes.text(0.5, 0.5, "outliers are not known", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    groups = ["all", *first["kinds"]]
    width = 0.8 / len(rows)
    for j, (name, results) in enumerate(rows.items()):
        each = [[row["auc"] if g == "all" else row["kinds"][g] for row in results] for g in groups]
        stats = [mean_and_deviation(values) for values in each]
        places = [i + (j - (len(rows) - 1) / 2) * width for i in range(len(groups))]
        errors = [deviation for _, deviation in stats]
        style = dict(yerr=errors, capsize=2, error_kw={"linewidth": 0.8}) if len(results) > 1 else {}
        color = METHOD_COLORS[j % len(METHOD_COLORS)]
        axes.bar(places, [mean for mean, _ in stats], width * 0.92, color=color, label=name, **style)
        for place, (mean, deviation) in zip(places, stats, strict=True):
            axes.text(place, mean + deviation + 0.8, f"{mean:.0f}", ha="center", fontsize=6.5, color="#444444")
    axes.axhline(50, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.set_ylim(min(45.0, axes.dataLim.ymin), 106)
    axes.set_ylim(bottom=min(40, *(row["auc"] for results in rows.values() for row in results)) - 2)
    axes.set_ylabel("ROC-AUC, % (dotted: chance)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.09))


def training(axes: Axes, setup: Setup, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """RCPMOD's area under the curve over epochs, one line per seed; of several pairs, of those so far."""
    for i, row in enumerate(rows.get("rcpmod", ())):
        found = history(setup, row["seed"])
        key = "loss" if row["auc"] is None else "auc"
        values = [each[key] for each in found if each.get(key) is not None]
        total = row["settings"]["epochs"] * row["pairs"]
        epochs = np.linspace(total / max(len(values), 1), total, len(values))
        axes.plot(epochs, values, color=f"C{i % 10}", linewidth=1.3, label=f"seed {row['seed']}")
        axes.set_ylabel("rcpmod: loss" if key == "loss" else "rcpmod: ROC-AUC of all outliers, %")
    axes.set_xlabel("epoch (over all pairs of views)" if len(setup.problem.data.views) > 2 else "epoch")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
