"""The picture of a reasoning run: one query as a graph, and the entities that the model ranks first."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.reasoning_runs import MODEL, Setup, build_base, names_of, run_folder
from jaxmodels.data.query_files import Queries
from jaxmodels.data.query_structures import NEGATION, UNION, structure_of
from jaxmodels.reasoning.evaluation import dense
from jaxmodels.reasoning.query_model import QueryModel, scores_of_all
from jaxmodels.reasoning.reasoner_file import load_reasoner
from jaxmodels.reasoning.structures import is_chain, is_union
from jaxmodels.training.pictures import save_figure
from jaxmodels.training.processes import is_main

LIKED = ("pin", "pi", "ip", "2i", "3p", "2p", "1p")  # structures worth a picture, best first
NEW, KNOWN, WRONG, GREY = "#d1495b", "#66a182", "#c9d1d9", "#4f6d8f"
TOP, EXAMINED = 10, 100


class Edge(NamedTuple):
    """An atom of a query: from node to node, by a relation's id."""

    start: int
    end: int
    relation: int
    negated: bool


class Drawing(NamedTuple):
    """A query as a graph.

    Attributes:
        edges: its atoms.
        anchors: node -> entity.
        joined: nodes where branches meet -> 'and' or 'or'.
        answer: the node that is asked for.
    """

    edges: list[Edge]
    anchors: dict[int, int]
    joined: dict[int, str]
    answer: int


def drawing_of(structure: str | tuple, tokens: np.ndarray) -> Drawing:
    """The graph of one query; branches of an intersection or a union end in the same node.

    >>> drawing_of('2i', np.array([4, 0, 5, 2])).edges
    [Edge(start=1, end=0, relation=0, negated=False), Edge(start=2, end=0, relation=2, negated=False)]
    """
    found = Drawing([], {}, {}, 0)
    _visit(structure_of(structure), list(map(int, tokens)), 0, 0, found, [0])
    return found


def _visit(node: tuple, tokens: list[int], at: int, end: int, out: Drawing, last: list[int]) -> int:
    """Adds the edges of a node that end in `end`; returns the next token's place."""
    if not is_chain(node):
        out.joined[end] = "or" if is_union(node) else "and"
        for child in node[:-1] if is_union(node) else node:
            at = _visit(child, tokens, at, end, out, last)
        return at + is_union(node)
    start = at + 1 if node[0] == "e" else at + _tokens(node[0])
    operators = tokens[start : start + len(node[1])]
    chain = [i for i, token in enumerate(operators) if token not in (NEGATION, UNION)]
    for place in reversed(chain):
        last[0] += 1
        negated = place + 1 < len(operators) and operators[place + 1] == NEGATION
        out.edges.append(Edge(last[0], end, operators[place], negated))
        end = last[0]
    if node[0] == "e":
        out.anchors[end] = tokens[at]
    else:
        _visit(node[0], tokens, at, end, out, last)
    return start + len(operators)


def _tokens(node: Any) -> int:
    return 1 if isinstance(node, str) else sum(map(_tokens, node))


def places_of(drawing: Drawing) -> dict[int, tuple[float, float]]:
    """Where nodes lie: the answer on the right, each step one to the left, anchors evenly from top to bottom."""
    before: dict[int, list[int]] = {}
    for edge in drawing.edges:
        before.setdefault(edge.end, []).append(edge.start)
    places: dict[int, tuple[float, float]] = {}
    rows = [0.0]

    def put(node: int, x: float) -> float:
        if node not in before:
            rows[0] -= 1.0
            y = rows[0]
        else:
            y = float(np.mean([put(other, x - 1.0) for other in before[node]]))
        places[node] = (x, y)
        return y

    put(drawing.answer, 0.0)
    return places


class Example(NamedTuple):
    """A query and what the model makes of it: entities from the best on, with scores."""

    name: str
    tokens: np.ndarray
    top: np.ndarray
    scores: np.ndarray
    easy: np.ndarray
    hard: np.ndarray
    rank: float


def typical(name: str, queries: Queries, base: QueryModel, params: Any, union: str) -> Example | None:
    """Of the queries with two to eight answers of which one is hard, that whose best hard answer ranks as usual.

    'As usual' is the median over the queries that are looked at.
    """
    count = np.diff(queries.hard.ptr), np.diff(queries.easy.ptr)
    rows = np.flatnonzero((count[0] >= 1) & (count[0] + count[1] >= 2) & (count[0] + count[1] <= 8))[:EXAMINED]
    if not len(rows):
        return None
    entities = base.config["entities"]
    found = np.asarray(jax.jit(lambda p, t: scores_of_all(base, p, name, t, union=union))(params, queries.tokens[rows]))
    easy, hard = (dense(part, rows, len(rows), entities) for part in (queries.easy, queries.hard))
    others = np.where(easy | hard, -np.inf, found)
    best = np.where(hard, found, -np.inf).max(1)
    rank = 1.0 + (others > best[:, None]).sum(1)
    chosen = int(np.argsort(rank, kind="stable")[(len(rank) - 1) // 2])
    top = np.argsort(-found[chosen], kind="stable")[:TOP]
    tokens = queries.tokens[rows[chosen]]
    return Example(name, tokens, top, found[chosen][top], easy[chosen], hard[chosen], float(rank[chosen]))


def save(setup: Setup, method: str, seed: int, path: Path) -> None:
    """Draws one query of the split, answered by the run's model."""
    base = build_base(setup)
    params = setup.fitted.get((method, seed))
    if not is_main():
        return
    if params is None:
        multiple = 1 if setup.mesh is None else setup.mesh.shape["model"]
        params = load_reasoner(run_folder(setup, method, seed) / MODEL, row_multiple=multiple).params
    queries = getattr(setup.loaded.data, setup.config.split)
    for name in (n for n in (*LIKED, *names_of(setup, base).tested) if n in names_of(setup, base).tested):
        example = typical(name, queries[name], base, params, setup.config.union)
        if example is not None:
            save_figure(draw(example, setup, f"{method} on {setup.config.base}"), path)
            return
    setup.console.print("No query with two to eight answers, so there is no picture.", highlight=False)


def draw(example: Example, setup: Setup, title: str) -> Figure:
    """The query on the left, its ranking on the right."""
    data = setup.loaded.data
    figure = Figure(figsize=(12.5, 4.6))
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    figure.subplots_adjust(wspace=0.42, top=0.84)
    made = "" if setup.loaded.real else " (synthetic)"
    figure.suptitle(f"A {example.name} query on {setup.loaded.name}{made}, answered by {title}", fontsize=12, y=0.985)
    note = f"its best new answer ranks {example.rank:.0f} among non-answers, the median of such queries"
    figure.text(0.5, 0.905, note, ha="center", fontsize=9.5, color="#57606a")
    _draw_query(figure, left, drawing_of(example.name, example.tokens), data.entities, data.relations)
    _draw_ranking(right, example, data.entities)
    return figure


def _draw_query(figure: Figure, axes: Axes, drawing: Drawing, entities: Any, relations: Any) -> None:
    places = places_of(drawing)
    xs, ys = zip(*places.values(), strict=True)
    axes.set_xlim(min(xs) - 0.3, max(xs) + 0.2)
    axes.set_ylim(min(ys) - 0.6, max(ys) + 0.6)
    axes.axis("off")
    nodes = {node: _draw_node(axes, drawing, node, place, entities) for node, place in places.items()}
    figure.draw_without_rendering()  # boxes get their size, at which arrows end
    for edge in drawing.edges:
        name = short(relations[edge.relation // 2])
        tail, head = (edge.start, edge.end) if edge.relation % 2 == 0 else (edge.end, edge.start)
        color = NEW if edge.negated else "#30363d"
        look = {"color": color, "linewidth": 1.6, "linestyle": "--" if edge.negated else "-"}
        ends = {"patchA": nodes[tail], "patchB": nodes[head], "shrinkA": 1, "shrinkB": 1}
        axes.annotate(
            "", places[head], places[tail], arrowprops={"arrowstyle": "-|>", "mutation_scale": 16, **look, **ends}
        )
        (x0, y0), (x1, y1) = places[edge.start], places[edge.end]
        share = 0.56 if edge.start in drawing.anchors else 0.5  # boxes of names are wide
        axes.text(
            x0 + share * (x1 - x0),
            y0 + share * (y1 - y0),
            f"not {name}" if edge.negated else name,
            color=color,
            fontsize=9.5,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )


def _draw_node(axes: Axes, drawing: Drawing, node: int, place: tuple[float, float], entities: Any) -> Any:
    shape, label, look = "circle,pad=0.55", "  ", {"facecolor": "white", "edgecolor": "#30363d"}
    if node in drawing.anchors:
        shape, label = "round,pad=0.45", short(entities[drawing.anchors[node]])
        look = {"facecolor": "#dbe7f3", "edgecolor": GREY}
    elif node == drawing.answer:
        label, look = "?", {"facecolor": "#fbe3b4", "edgecolor": "#b7791f"}
    box = {"boxstyle": shape, "linewidth": 1.4, **look}
    drawn = axes.text(*place, label, ha="center", va="center", fontsize=10.5, bbox=box)
    if node in drawing.joined:
        where: dict[str, Any] = {"xytext": (0, -21), "textcoords": "offset points", "ha": "center", "va": "top"}
        axes.annotate(drawing.joined[node], place, fontsize=9.5, style="italic", color="#57606a", **where)
    return drawn.get_bbox_patch()


def _draw_ranking(axes: Axes, example: Example, entities: Any) -> None:
    base = example.scores.min() - 0.12 * max(float(np.ptp(example.scores)), 1e-6)
    colors = [NEW if example.hard[i] else KNOWN if example.easy[i] else WRONG for i in example.top]
    rows = np.arange(len(example.top))
    axes.barh(rows, example.scores - base, left=base, color=colors, height=0.74)
    axes.set_yticks(rows, [short(entities[i]) for i in example.top], fontsize=9.5)
    for label, color in zip(axes.get_yticklabels(), colors, strict=True):
        label.set_fontweight("bold" if color != WRONG else "normal")
    axes.invert_yaxis()
    axes.set_xlabel("score")
    axes.set_title(f"first {len(rows)} of {len(entities):,} entities", fontsize=9.5, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        handles=[
            Patch(color=NEW, label="right, needs an edge that training lacks"),
            Patch(color=KNOWN, label="right, known from the training edges"),
            Patch(color=WRONG, label="no answer"),
        ],
        frameon=False,
        fontsize=8.5,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=1,
    )


def short(name: str, most: int = 26) -> str:
    """A name as a picture bears it: the last part of a path, without underscores, cut where it is long.

    >>> short('/people/person/place_of_birth')
    'place of birth'
    """
    last = name.rstrip("/").split("/")[-1].replace("_", " ") or name
    return last if len(last) <= most else last[: most - 1] + "…"
