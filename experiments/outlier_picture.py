"""The picture of the outliers experiment: who is found, how scores lie, how methods compare, how training went."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from experiments.outlier_data import Problem, case_of
from experiments.outlier_runs import history, read_scores
from experiments.running import Setup
from jaxmodels.data.view_outliers import KINDS
from jaxmodels.training.results import mean_and_deviation

SHOWN = 16  # objects in the strip
COLORS = {
    "normal": "#8a949e", "class": "#edae49", "attribute": "#4f6d8f", "class-attribute": "#d1495b", "outlier": "#d1495b"
}  # fmt: skip
METHOD_COLORS = ("#d1495b", "#4f6d8f", "#66a182", "#9aa5b1")


def strip(figure: SubFigure, setup: Setup[Problem], name: str, seed: int) -> None:
    """The highest scores of each kind of outlier, and of objects that are none; pixels above, Fourier magnitudes below.

    Args:
        figure: where.
        setup: of a finished run on the digits.
        name: method.
        seed: of the run.
    """
    case = case_of(setup.config, setup.problem, seed)
    scores = read_scores(setup, name, seed)
    order = np.argsort(-scores)
    rank = np.argsort(order)
    kinds = np.zeros(len(scores), int) if case.kind is None else case.kind
    groups = [i for i in range(len(case.kinds)) if (kinds == i).any()]
    groups = [*groups[1:], groups[0]]  # those that are none come last
    each = SHOWN // len(groups)
    shown = [i for group in groups for i in order[kinds[order] == group][:each]]
    gaps = [0.35 if k and k % each == 0 else 0.0 for k in range(len(shown))]
    grid = figure.add_gridspec(2, 2 * len(shown), width_ratios=[w for gap in gaps for w in (max(gap, 1e-3), 1.0)])
    for k, i in enumerate(shown):
        kind = "score" if case.kind is None else case.kinds[case.kind[i]]
        for row, shape in enumerate(((8, 8), (8, 5))):
            axes = figure.add_subplot(grid[row, 2 * k + 1])
            _tile(axes, case.views[row][i].reshape(shape), bool(case.mask[i, row]), COLORS.get(kind, "#444444"))
            if row == 0:
                label = kind if kind != "normal" else "normal (false alarm)"
                head = f"{label}\n" if k % each == 0 else "\n"
                axes.set_title(f"{head}#{rank[i] + 1}: {scores[i]:.2f}", fontsize=8, loc="left")
            if k == 0:
                axes.set_ylabel(("pixels", "Fourier")[row], fontsize=9)
    title = f"The most outlying of {len(scores)} digits by {name}, of each kind: rank and score (seed {seed})"
    figure.suptitle(title, fontsize=11)


def _tile(axes: Axes, picture: np.ndarray, there: bool, color: str) -> None:
    """One view of one digit; of Fourier magnitudes the root, since the mean brightness outshines all others."""
    if picture.shape[1] < 8:
        picture = np.fft.fftshift(picture, axes=0) ** 0.5
    if there:
        axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1, aspect="auto")
    else:
        axes.text(0.5, 0.5, "missing", ha="center", va="center", fontsize=8, transform=axes.transAxes)
    axes.set_box_aspect(1)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(color)
        spine.set_linewidth(2.4)


def histogram(axes: Axes, setup: Setup[Problem], name: str, seed: int) -> None:
    """How the scores of each kind lie."""
    case, scores = case_of(setup.config, setup.problem, seed), read_scores(setup, name, seed)
    kind = np.zeros(len(scores), int) if case.kind is None else case.kind
    kinds = ("all",) if case.kind is None else case.kinds
    edges = np.linspace(scores.min(), scores.max() + 1e-9, 49).tolist()
    groups = [scores[kind == i] for i in range(len(kinds))]
    labels = [f"{each} ({len(group)})" for each, group in zip(kinds, groups, strict=True)]
    colors = [COLORS.get(each, "#4f6d8f") for each in kinds]
    for group, label, color in zip(groups, labels, colors, strict=True):
        axes.hist(group, edges, color=color, alpha=0.25, histtype="stepfilled")
        axes.hist(group, edges, color=color, linewidth=1.6, histtype="step", label=label)
    axes.set_yscale("symlog", linthresh=10)
    axes.set_xlabel(f"score by {name}, seed {seed}")
    axes.set_ylabel("objects")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def comparison(axes: Axes, setup: Setup[Problem], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Areas under the curve, of all outliers and of each kind, for every method."""
    first = next(iter(rows.values()))[0]
    if first["auc"] is None:
        axes.text(0.5, 0.5, "outliers are not known", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    groups = ["all", *(kind for kind in (*KINDS, "outlier") if kind in first["kinds"])]
    width = 0.8 / len(rows)
    for j, (name, results) in enumerate(rows.items()):
        stats = [mean_and_deviation(row["auc"] if g == "all" else row["kinds"][g] for row in results) for g in groups]
        places = [i + (j - (len(rows) - 1) / 2) * width for i in range(len(groups))]
        errors = [deviation for _, deviation in stats]
        style: dict[str, Any] = {"yerr": errors, "capsize": 2, "error_kw": {"linewidth": 0.8}}
        color = METHOD_COLORS[j % len(METHOD_COLORS)]
        axes.bar(
            places,
            [mean for mean, _ in stats],
            width * 0.92,
            color=color,
            label=name,
            **(style if len(results) > 1 else {}),
        )
        for place, (mean, deviation) in zip(places, stats, strict=True):
            axes.text(place, mean + deviation + 0.8, f"{mean:.0f}", ha="center", fontsize=6.5, color="#444444")
    axes.axhline(50, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    each = [value for results in rows.values() for row in results for value in (row["auc"], *row["kinds"].values())]
    axes.set_ylim(min(45.0, *each) - 3, 106)
    axes.set_ylabel("ROC-AUC, % (dotted: chance)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.09))


def training(axes: Axes, setup: Setup[Problem], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
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
