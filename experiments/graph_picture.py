"""N2's common space: graph nodes and pseudo nodes after the last step, in the two main directions of the nodes."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

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

    Of a graph-level data set the first test graph is drawn. Pseudo nodes have k pieces of state; the point is what
    enters their proximity to graph nodes, the mean of the pieces weighted as there.
    """
    problem = setup.problem
    q, r, psi = space(setup, split, seed)
    center = q.mean(0, keepdims=True)
    _, singular, directions = np.linalg.svd(q - center, full_matrices=False)
    share = singular**2 / (singular**2).sum()
    at, pseudo = (
        (q - center) @ directions[:2].T,
        _within((r - center) @ directions[:2].T, (q - center) @ directions[:2].T),
    )
    random = np.random.default_rng(0)
    chosen = np.sort(random.permutation(len(at))[:MOST])
    linked = random.permutation(chosen)[:LINKED]
    to = np.abs(psi[linked]).argmax(1)
    strength = np.abs(psi[linked]).max(1)
    strength = strength / max(strength.max(), 1e-12)
    lines = LineCollection(
        list(np.stack([at[linked], pseudo[to]], 1)),
        colors=[(0.25, 0.25, 0.3, 0.06 + 0.3 * s) for s in strength],
        linewidths=0.4 + 0.8 * strength,
        zorder=1,
    )
    axes.add_collection(lines)
    single = problem.level == "node" and problem.task == "single"
    labels = problem.labels[chosen] if single else np.zeros(len(chosen), int)
    for each in range(problem.outputs if single else 1):
        mine = chosen[labels == each]
        name = f"class {each}" if single else "node"
        axes.scatter(*at[mine].T, s=14 if len(chosen) > 300 else 40, color=f"C{each % 10}", alpha=0.75, linewidths=0,
                     label=name, zorder=2)  # fmt: skip
    used = np.bincount(np.abs(psi).argmax(1), minlength=len(pseudo))
    sizes = 45 + 260 * np.sqrt(used / max(used.max(), 1))
    axes.scatter(*pseudo.T, s=sizes, marker="*", color="#222222", edgecolors="white", linewidths=0.8, zorder=3,
                 label="pseudo node")  # fmt: skip
    axes.set_xlabel(f"first direction of node states ({100 * share[0]:.0f} % of their variance)")
    axes.set_ylabel(f"second direction ({100 * share[1]:.0f} %)")
    axes.set_title(
        f"{problem.name}: states after the last step; lines: the strongest pathway of {len(linked)} nodes;\n"
        "larger stars: the strongest of more nodes",
        fontsize=9,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7, ncols=1 if not single else -(-(problem.outputs + 1) // 12), loc="best")


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
    psi = np.asarray(proximity(jnp.asarray(weights), jnp.asarray(nodes[None]), jnp.asarray(pieces)))
    weighed = (weights[:, None, None] * pieces).sum(0) / np.abs(weights).sum()
    return nodes, weighed, psi


def _within(points: np.ndarray, cloud: np.ndarray) -> np.ndarray:
    """Points scaled about the origin so that they spread as far as the cloud; only their directions are compared."""
    return points * min(1.0, np.abs(cloud).max() / max(np.abs(points).max(), 1e-12))
