"""Knowledge graphs as sorted arrays, and the exact answers of queries on them.

Relation ids come with inverses: relation 2k is the k-th relation, 2k + 1 the same edges read backwards. Answers are
rows of booleans over all entities, one row per query; a projection expands only the entities that are set, so its cost
is the edges it follows. Negation is the complement over all N entities (KGReasoning's `create_queries` logic).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxmodels.data.query_structures import check_tokens, shown, structure_of
from jaxmodels.reasoning.structures import Algebra, walk


class Neighbours(NamedTuple):
    """Lists of entities keyed by (entity, relation).

    Attributes:
        keys: entity * relations + relation of each list, ascending.
        starts: list i is values[starts[i] : starts[i + 1]].
        values: ascending and distinct within a list.
    """

    keys: np.ndarray
    starts: np.ndarray
    values: np.ndarray

    def find(self, entity: np.ndarray, relation: np.ndarray, relations: int) -> tuple[np.ndarray, np.ndarray]:
        """First position and length of each list; length 0 where there is none."""
        wanted = np.asarray(entity, np.int64) * relations + relation
        if not len(self.keys):
            return np.zeros_like(wanted), np.zeros_like(wanted)
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        found = self.keys[at] == wanted
        return self.starts[at], np.where(found, self.starts[at + 1] - self.starts[at], 0)


class Graph(NamedTuple):
    """A knowledge graph.

    Attributes:
        entities: N.
        relations: R, inverses included.
        edges: (E, 3) head, relation, tail; sorted, distinct, both directions.
        tails: keyed by (head, relation).
        heads: keyed by (tail, relation).
    """

    entities: int
    relations: int
    edges: np.ndarray
    tails: Neighbours
    heads: Neighbours


def build_graph(triples: np.ndarray, *, entities: int, relations: int, inverses: bool = True) -> Graph:
    """A graph from triples.

    Args:
        triples: (T, 3) head, relation, tail; repetitions are dropped.
        entities: N.
        relations: R, inverses included.
        inverses: add (t, r ^ 1, h) for every (h, r, t).

    Raises:
        ValueError: another shape, or an id outside its table.
    """
    triples = np.asarray(triples, np.int64)
    if triples.ndim != 2 or triples.shape[1] != 3:
        raise ValueError(f"triples: found shape {triples.shape}, expected (T, 3)")
    for column, (kind, size) in enumerate((("head", entities), ("relation", relations), ("tail", entities))):
        wrong = np.flatnonzero((triples[:, column] < 0) | (triples[:, column] >= size))
        if wrong.size:
            found = triples[wrong[0], column]
            raise ValueError(f"triples, row {wrong[0]}: unknown {kind} {found}, expected 0 to {size - 1}")
    if inverses:
        if relations % 2:
            raise ValueError(f"relations: found {relations}, expected an even number, as inverses are 2k and 2k + 1")
        triples = np.concatenate([triples, np.stack([triples[:, 2], triples[:, 1] ^ 1, triples[:, 0]], axis=1)])
    edges = np.unique(triples, axis=0)
    tails = _lists(edges[:, 0], edges[:, 1], edges[:, 2], relations)
    heads = _lists(edges[:, 2], edges[:, 1], edges[:, 0], relations)
    return Graph(entities, relations, edges, tails, heads)


def _lists(entity: np.ndarray, relation: np.ndarray, value: np.ndarray, relations: int) -> Neighbours:
    order = np.lexsort((value, relation, entity))
    keys, starts = np.unique((entity * relations + relation)[order], return_index=True)
    return Neighbours(keys, np.append(starts, len(order)), value[order])


def answers(graph: Graph, name: str | tuple, queries: np.ndarray, *, chunk: int = 2048) -> np.ndarray:
    """The exact answers of queries of one structure, (n, N) booleans.

    Args:
        graph: where to look.
        name: a structure or its name.
        queries: (n, L) tokens.
        chunk: rows worked on at once.

    Raises:
        ValueError: rows that are no queries of this structure, or ids that the graph does not know.
    """
    queries = np.asarray(queries)
    check_tokens(
        name, queries, num_entities=graph.entities, num_relations=graph.relations, where=f"query {shown(name)}"
    )
    parts = [_answers(graph, name, queries[i : i + chunk]) for i in range(0, len(queries), chunk)]
    return np.concatenate(parts) if parts else np.zeros((0, graph.entities), bool)


def _answers(graph: Graph, name: str | tuple, queries: np.ndarray) -> np.ndarray:
    def anchor(ids):
        out = np.zeros((len(ids), graph.entities), bool)
        out[np.arange(len(ids)), ids] = True
        return out

    sets = Algebra(
        anchor,
        lambda reached, relation: project(graph, reached, relation),
        np.logical_not,
        lambda parts: np.logical_and.reduce(parts),
        lambda parts: np.logical_or.reduce(parts),
    )
    return walk(structure_of(name), queries, sets)


def project(graph: Graph, reached: np.ndarray, relation: np.ndarray) -> np.ndarray:
    """The tails that each row's entities have under the row's relation.

    Args:
        graph: where to look.
        reached: (n, N) booleans.
        relation: (n,) ids.
    """
    row, entity = np.nonzero(reached)
    start, length = graph.tails.find(entity, np.asarray(relation)[row], graph.relations)
    out = np.zeros_like(reached)
    out[np.repeat(row, length), graph.tails.values[spans(start, length)]] = True
    return out


def spans(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The positions of several ranges, one after the other.

    >>> spans(np.array([4, 9]), np.array([2, 3])).tolist()
    [4, 5, 9, 10, 11]
    """
    ends = np.cumsum(length)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - ends + length, length)


class Answers(NamedTuple):
    """Sets of entities of n queries: set i is values[starts[i] : starts[i + 1]], ascending."""

    starts: np.ndarray
    values: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Size of each set."""
        return np.diff(self.starts)


def as_lists(rows: np.ndarray) -> Answers:
    """Boolean rows as lists.

    >>> as_lists(np.array([[True, False, True], [False, False, False]])).starts.tolist()
    [0, 2, 2]
    """
    return Answers(np.append(0, np.cumsum(rows.sum(1))), np.nonzero(rows)[1])


def draw_answers(found: Answers, rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """One answer of each given query, uniformly.

    Args:
        found: the sets.
        rows: queries; their sets are not empty.
        uniform: one number in [0, 1) for each.
    """
    return found.values[found.starts[rows] + (uniform * found.counts[rows]).astype(np.int64)]


def hard_answers(
    small: Graph, big: Graph, queries: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per structure the easy answers (those on `small`) and the hard ones (only on `big`), (n, N) booleans.

    Args:
        small: train edges, say.
        big: train and validation edges.
        queries: structure -> rows.
    """
    out = {}
    for name, rows in queries.items():
        easy = answers(small, name, rows)
        out[name] = easy, answers(big, name, rows) & ~easy
    return out
