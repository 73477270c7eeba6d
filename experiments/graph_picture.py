"""N2's common space: graph nodes and pseudo nodes after the last step, in the two main directions of the nodes."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from experiments import graph_runs
from experiments.graph_judging import Judge
from jaxmodels.graphs.proximity import proximity
from jaxmodels.graphs.rows import graph_of, node_rows

MOST = 4000  # nodes drawn
LINKED = 240  # of them, those whose strongest pathway is drawn


def drawable(setup: Any) -> bool:
    """Whether the chosen network has pseudo nodes that one step moves."""
    return not (setup.config.dense or setup.config.own_steps)


def states(axes: Axes, setup: Any, split: int, seed: int) -> None:
    """Draws the nodes of a graph, coloured by class, and the pseudo nodes with the strongest pathways to them.

    Of a graph-level data set the first test graph is drawn. A pathway's weight is an inner product, for which only the
    direction of a pseudo node matters: pseudo nodes are drawn from the origin, all scaled alike to fill the picture.
    """
    problem = setup.problem
    q, r, psi = space(setup, split, seed)
    centered = q - q.mean(0, keepdims=True)
    _, singular, directions = np.linalg.svd(centered, full_matrices=False)
    share = singular**2 / (singular**2).sum()
    at, pseudo = centered @ directions[:2].T, r @ directions[:2].T
    pseudo *= 0.8 * np.quantile(np.hypot(*at.T), 0.95) / max(np.hypot(*pseudo.T).max(), 1e-12)
    random = np.random.default_rng(0)
    chosen = np.sort(random.permutation(len(at))[:MOST])
    single = problem.level == "node" and problem.task == "single"
    labels = problem.labels if single else np.zeros(len(at), int)
    linked = random.permutation(chosen)[:LINKED]
    _links(axes, at[linked], pseudo, psi[linked], labels[linked])
    for each in range(problem.outputs if single else 1):
        mine = chosen[labels[chosen] == each]
        name, size = f"class {each}" if single else "node", 14 if len(chosen) > 300 else 40
        axes.scatter(*at[mine].T, s=size, color=f"C{each % 10}", alpha=0.75, linewidths=0, label=name, zorder=2)
    used = np.bincount(psi.argmax(1), minlength=len(pseudo))
    sizes = 40 + 260 * np.sqrt(used / max(used.max(), 1))
    style: dict[str, Any] = dict(
        marker="*", color="#222222", edgecolors="white", linewidths=0.8, zorder=3, label="pseudo node"
    )
    axes.scatter(*pseudo.T, s=sizes, **style)
    axes.set_xlabel(f"first direction of node states ({100 * share[0]:.0f} % of their variance)")
    axes.set_ylabel(f"second direction ({100 * share[1]:.0f} %)")
    axes.set_title(
        f"{problem.name}: nodes and pseudo nodes in N2's common space after the last step\n"
        f"a line is the strongest pathway of one node ({len(linked)} shown); a larger star is that of more nodes",
        fontsize=9,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.04)
    axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(0.99, 1.0), handletextpad=0.2)


def _links(axes: Axes, at: np.ndarray, pseudo: np.ndarray, psi: np.ndarray, labels: np.ndarray) -> None:
    strongest = psi.max(1)
    strength = np.clip(strongest / max(strongest.max(), 1e-12), 0.0, 1.0)
    colors = [to_rgba(f"C{label % 10}", 0.10 + 0.4 * s) for label, s in zip(labels, strength, strict=True)]
    ends = list(np.stack([at, pseudo[psi.argmax(1)]], 1))
    axes.add_collection(LineCollection(ends, colors=colors, linewidths=0.4 + 0.8 * strength, zorder=1))


def space(setup: Any, split: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a finished run of n2: node states (N, q), pseudo nodes (p, q), pathways psi (N, p) of the last dispatch."""
    problem = setup.problem
    folder = graph_runs.run_folder(setup, "n2", split, seed)
    settings = graph_runs.settings_of(setup.config, "n2", problem)
    made = graph_runs.built(
        "n2", json.dumps(settings._asdict()), problem.outputs, problem.level, problem.task, setup.config.loss
    )
    graph = problem.graphs[0 if problem.level == "node" else int(problem.splits[split].test[0])]
    count = int(graph.n_node.sum())
    rows = node_rows(graph, np.zeros(count, np.int32), np.ones(count))
    variables = Judge.read(folder)

    def look(module, graph):
        state, layout = module.encode(graph)
        for _ in range(module.steps):
            state = module.advance(state, layout)
        return state

    params = variables["params"]
    state = jax.jit(lambda p, b: made.module.apply({"params": p}, graph_of(b), method=look))(params, rows)
    nodes, pieces = np.asarray(state.nodes[0])[:count], np.asarray(state.pseudo[0])
    weights = np.asarray(params["step"]["dispatch"]["lam"])
    psi = np.asarray(proximity(jnp.asarray(weights), jnp.asarray(nodes[:, None]), jnp.asarray(pieces)))
    weighed = (weights[:, None] * pieces).sum(1) / np.abs(weights).sum()
    return nodes, weighed, psi
