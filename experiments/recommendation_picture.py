"""The picture: one user's several interests in item space, beside the comparison of methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from experiments import recommendation_runs
from experiments.recommendation_data import Loaded
from jaxmodels.recommendation.model_file import load_recommender
from jaxmodels.recommendation.recommend import METRIC, Recommender, recommend
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.pictures import save_figure
from jaxmodels.training.results import mean_and_deviation

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
MOST, BEST = 3000, 10  # items drawn; recommendations marked
OFTEN = 4  # items of one kind that make an interest
COLORS = ("#d1495b", "#3c78b4", "#edae49", "#66a182", "#8d6a9f", "#4a4e57", "#c77d3b", "#7aa6c2")


def save(setup: Any, rows: Rows, path: Path) -> None:
    """Draws and saves: a user's interests (of methods whose scores are distances), bars and validation curves."""
    config, seed = setup.config, (setup.config.seeds or (setup.config.seed,))[0]
    model = load_recommender(recommendation_runs.run_folder(setup, config.method, seed) / recommendation_runs.MODEL)
    figure = Figure(figsize=(13, 6.4), layout="constrained")
    if model.kind in METRIC:
        grid = figure.add_gridspec(2, 2, width_ratios=(1.45, 1))
        interests(figure.add_subplot(grid[:, 0]), model, setup.problem, config.method)
        upper, lower = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    else:
        upper, lower = figure.subplots(1, 2)
    colors = {name: COLORS[0] if name == config.method else "#9aa5b1" for name in rows}
    _bars(upper, rows, config, colors)
    others = iter((f"C{i}", line) for line in ("-", "--", ":") for i in (0, 1, 2, 4, 5, 6, 7, 8, 9))
    for name in rows:
        folder = recommendation_runs.run_folder(setup, name, seed)
        key = f"val_{config.select}"
        found = [(row["step"], row[key]) for row in read_metrics(folder / "metrics.jsonl") if row.get(key) is not None]
        if found:
            epochs = [step / rows[name][0]["per_epoch"] for step, _ in found]
            own = name == config.method
            style: dict[str, Any] = {"linewidth": 2.4 if own else 1.1, "zorder": 3 if own else 2}
            color, line = (COLORS[0], "-") if own else next(others)
            lower.plot(epochs, [100 * value for _, value in found], line, color=color, label=name, **style)
    lower.set_xlabel("epoch")
    lower.set_ylabel(f"validation {config.select}, %")
    lower.spines[["top", "right"]].set_visible(False)
    lower.legend(frameon=False, fontsize=7, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)


def _bars(axes: Axes, rows: Rows, config: Any, colors: Mapping[str, str]) -> None:
    key = config.select if config.select in next(iter(rows.values()))[0]["test"] else "mrr"
    found = {n: mean_and_deviation(100 * row["test"].get(key, 0.0) for row in each) for n, each in rows.items()}
    means, deviations = [mean for mean, _ in found.values()], [deviation for _, deviation in found.values()]
    error = deviations if any(deviations) else None
    drawn = axes.bar(list(found), means, 0.72, yerr=error, color=list(colors.values()), capsize=2)
    axes.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
    axes.set_xticks(range(len(found)), list(found), rotation=35, ha="right", fontsize=8)
    axes.margins(y=0.15)
    axes.set_ylabel(f"test {key}, %")
    axes.spines[["top", "right"]].set_visible(False)


def interests(axes: Axes, model: Recommender, loaded: Loaded, method: str) -> None:
    """Draws the items around one user, its vectors, and which vector each of its items is nearest to.

    Directions are the two main ones of the user's vectors and items, so that distances within them say most about this
    user; other items may be far off in directions that are not drawn.
    """
    item = np.asarray(model.params["item"])
    user = striking(model, loaded)
    vectors = vectors_of(model, user)
    train, test = (_own(part, user) for part in (loaded.parts.train, loaded.parts.test))
    best = recommend(model._replace(users=None, items=None), [user], min(BEST, model.num_items)).items[0]
    around = np.concatenate([vectors, item[train], item[test]])
    centre = around.mean(0)
    _, singular, directions = np.linalg.svd(around - centre, full_matrices=False)
    share = singular[:2] ** 2 / (singular**2).sum()
    at, stars = (item - centre) @ directions[:2].T, (vectors - centre) @ directions[:2].T
    drawn = np.sort(np.random.default_rng(0).permutation(len(item))[:MOST])
    axes.scatter(*at[drawn].T, s=9, color="#d5dae0", linewidths=0, zorder=1, label="item")
    nearest_to = _nearest(item, vectors)
    colors = np.array(COLORS)[np.arange(len(vectors)) % len(COLORS)]
    mine = np.concatenate([train, test])
    links = np.stack([at[mine], stars[nearest_to[mine]]], 1)
    axes.add_collection(
        LineCollection(list(links), colors=colors[nearest_to[mine]], linewidths=0.7, alpha=0.5, zorder=2)
    )
    for items, marker, size, name in ((train, "o", 34, "had in training"), (test, "D", 34, "test item")):
        face = colors[nearest_to[items]] if marker == "o" else "white"
        axes.scatter(
            *at[items].T, s=size, marker=marker, c=face, edgecolors=colors[nearest_to[items]], zorder=4, linewidths=1.3,
        )  # fmt: skip
        edge = "#444444"
        axes.scatter([], [], s=size, marker=marker, c=edge if marker == "o" else "white", edgecolors=edge, label=name)
    axes.scatter(
        *at[best].T, s=110, marker="o", facecolors="none", edgecolors="#222222", linewidths=0.9, zorder=3,
        label=f"best {len(best)} recommended",
    )  # fmt: skip
    axes.scatter(*stars.T, s=330, marker="*", c=colors, edgecolors="black", linewidths=0.9, zorder=5)
    axes.scatter([], [], s=200, marker="*", c="white", edgecolors="black", label="vector of the user")
    _annotate(axes, loaded, nearest_to[mine], mine, stars)
    hits = len(set(best.tolist()) & set(test.tolist()))
    plural = "s" if len(vectors) > 1 else ""
    axes.set_title(
        f"{method} on {loaded.name}: user {user}, {len(vectors)} vector{plural}, in item space\n"
        f"colour: the vector that an item is nearest to; {hits} of the best {len(best)} are test items ({len(test)})",
        fontsize=9,
    )
    axes.set_xlabel(f"first direction of this user's vectors and items ({100 * share[0]:.0f} %)")
    axes.set_ylabel(f"second direction ({100 * share[1]:.0f} %)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.04)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.085), ncols=5)


def _annotate(axes: Axes, loaded: Loaded, group: np.ndarray, mine: np.ndarray, stars: np.ndarray) -> None:
    """Says at each vector which kinds of the user's items it serves, where the data have kinds."""
    if loaded.kinds is None:
        return
    for number, star in enumerate(stars):
        kinds, counts = np.unique(loaded.kinds[mine[group == number]], return_counts=True)
        order = [i for i in np.argsort(-counts)[:2] if counts[i] > 1]
        text = ", ".join(f"{counts[i]} of kind {kinds[i]}" for i in order)
        if text:
            axes.annotate(text, star, xytext=(9, 9), textcoords="offset points", fontsize=8, zorder=6,
                          bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1})  # fmt: skip


def striking(model: Recommender, loaded: Loaded) -> int:
    """A user with many hits whose vectors tell its interests apart.

    Where the data have kinds of items: the vector that is nearest tells much about the kind; else all vectors are used.
    """
    item, test = np.asarray(model.params["item"]), loaded.parts.test
    held = np.diff(loaded.parts.train.starts) + np.diff(test.starts)
    users = np.flatnonzero((np.diff(test.starts) >= 3) & (held >= min(15, held.max())))
    users = users if len(users) else np.argsort(-held)[:1]
    users = np.random.default_rng(0).permutation(users)[:500]
    best = recommend(model._replace(users=None, items=None), users, min(BEST, model.num_items)).items
    value = []
    for user, found in zip(users, best, strict=True):
        hits = len(set(found.tolist()) & set(_own(test, user).tolist()))
        mine = np.concatenate([_own(loaded.parts.train, user), _own(test, user)])
        group = _nearest(item[mine], vectors_of(model, int(user)))
        told = group if loaded.kinds is None else loaded.kinds[mine]
        often = np.bincount(told)[told] >= OFTEN
        value.append((shared_information(group[often], told[often]) if often.any() else 0.0) + 0.1 * hits)
    return int(users[int(np.argmax(value))])


def shared_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information of two labellings, in nats; of one with itself its entropy.

    >>> round(shared_information(np.array([0, 0, 1, 1]), np.array([5, 5, 7, 7])), 3)
    0.693
    >>> shared_information(np.array([0, 1, 0, 1]), np.array([5, 5, 7, 7]))
    0.0
    """
    both = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(both, (a, b), 1 / len(a))
    apart = np.outer(both.sum(1), both.sum(0))[both > 0]
    return float((both[both > 0] * np.log(both[both > 0] / apart)).sum())


def vectors_of(model: Recommender, user: int) -> np.ndarray:
    """The vectors (C, d) that a user has."""
    rows = np.asarray(model.params["user"][user]).reshape(model.vectors, -1)
    return rows if model.has is None else rows[np.asarray(model.has[user])]


def _own(part: Any, user: Any) -> np.ndarray:
    return part.items[part.starts[user] : part.starts[user + 1]]


def _nearest(item: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return ((item[:, None] - vectors[None]) ** 2).sum(2).argmin(1)
