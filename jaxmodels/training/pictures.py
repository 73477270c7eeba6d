"""The picture of a run: bars per task beside training curves. Drawn without a display, and saved atomically."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmodels.atomic import replacing

COLORS = ("#9aa5b1", "#4f6d8f", "#d1495b", "#edae49", "#66a182")  # grey and blue for references, red for the method


def bars(
    axes: Axes,
    names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    label: str,
    groups: Sequence[str] | None = None,
) -> None:
    """Grouped bars: one cluster per name, one bar per series; `groups` (one per name) are set apart and labelled."""
    width = 0.8 / len(series)
    places = [float(i) for i in range(len(names))]
    if groups:
        shift = 0.0
        for i in range(1, len(names)):
            shift += 0.5 * (groups[i] != groups[i - 1])
            places[i] += shift
    for j, (name, values) in enumerate(series.items()):
        offset = (j - (len(series) - 1) / 2) * width
        drawn = axes.bar([p + offset for p in places], values, width * 0.92, label=name, color=COLORS[j % len(COLORS)])
        axes.bar_label(drawn, fmt="%.0f", fontsize=6, color="#444444", padding=1)
    axes.set_xticks(places, names, rotation=25, ha="right", fontsize=8)
    for group in dict.fromkeys(groups or ()):
        inside = [p for p, g in zip(places, groups or (), strict=True) if g == group]
        middle = (inside[0] + inside[-1]) / 2
        axes.annotate(group, (middle, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=9)
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=len(series))


def curves(axes: Axes, histories: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> None:
    """One line per run over its steps."""
    for i, (name, history) in enumerate(histories.items()):
        rows = [row for row in history if row.get(metric) is not None]
        color = f"C{i % 10}"
        axes.plot([row["step"] for row in rows], [row[metric] for row in rows], label=name, color=color, linewidth=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel(metric)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, ncols=2)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a .png atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=140, bbox_inches="tight", facecolor="white")
