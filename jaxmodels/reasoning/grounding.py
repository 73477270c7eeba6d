"""Queries grounded backwards from an answer, thousands at a time (the rule of BetaE's `create_queries`).

An answer entity is drawn uniformly among those with an incoming edge. A chain is walked from its last relation to its
first: a relation uniformly among the distinct incoming ones (not among edges), then one of its heads, uniformly. The
inverse of the relation drawn just before in the same chain is not taken (the published code draws again, up to 40
times); where nothing else comes in the attempt fails. All branches start from the same entity, negated ones too. A
query with two equal branches is discarded.
"""

import numpy as np

from jaxmodels.data.query_structures import NEGATION, UNION, structure_of
from jaxmodels.reasoning.graph import Graph
from jaxmodels.reasoning.structures import Algebra, is_chain, is_union, walk


def incoming(graph: Graph) -> np.ndarray:
    """Where each entity's (tail, relation) pairs begin among `graph.heads.keys`, (N + 1,)."""
    return np.searchsorted(graph.heads.keys, np.arange(graph.entities + 1) * graph.relations)


def ground(graph: Graph, structure: str | tuple, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws queries of one structure.

    Args:
        graph: where every query has an answer, as far as its positive branches go.
        structure: a structure or its name.
        count: of attempts.
        rng: of the draws.

    Returns:
        (n, L) tokens, n at most `count`: the attempts that succeeded, in order, repetitions included.

    Raises:
        ValueError: a graph without edges.
    """
    if not len(graph.edges):
        raise ValueError("graph: found no edges, expected some to draw queries from")
    starts = incoming(graph)
    answers = np.flatnonzero(np.diff(starts))
    seed = answers[rng.integers(len(answers), size=count)]
    columns, good = _ground(graph, starts, structure_of(structure), seed, rng)
    return np.stack(columns, axis=1)[good]


def _ground(graph, starts, node, at, rng) -> tuple[list[np.ndarray], np.ndarray]:
    """Columns of tokens of a node that `at` answers, and which rows succeeded."""
    if is_chain(node):
        return _ground_chain(graph, starts, node, at, rng)
    columns: list[np.ndarray] = []
    good = np.ones(len(at), bool)
    branches: list[tuple[tuple, np.ndarray]] = []
    for child in node[:-1] if is_union(node) else node:
        part, fine = _ground(graph, starts, child, at, rng)
        good &= fine
        tokens = np.stack(part, axis=1)
        for other, earlier in branches:
            if other == child:
                good &= (tokens != earlier).any(1)
        branches.append((child, tokens))
        columns += part
    return [*columns, np.full(len(at), UNION)] if is_union(node) else columns, good


def _ground_chain(graph, starts, node, at, rng) -> tuple[list[np.ndarray], np.ndarray]:
    operators: list[np.ndarray] = []
    good, before = np.ones(len(at), bool), None
    for letter in reversed(node[1]):
        if letter == "n":
            operators.insert(0, np.full(len(at), NEGATION))
            continue
        relation, at, fine = _step_back(graph, starts, at, before, rng)
        good, before = good & fine, relation
        operators.insert(0, relation)
    if node[0] == "e":
        return [at, *operators], good
    columns, fine = _ground(graph, starts, node[0], at, rng)
    return [*columns, *operators], good & fine


def _step_back(graph, starts, at, before, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An incoming relation of each entity, one of its heads, and whether there is one."""
    keys, lists, heads = graph.heads
    first, choices = starts[at], starts[at + 1] - starts[at]
    uniform = rng.random((2, len(at)))
    if before is None:
        place = first + (uniform[0] * choices).astype(np.int64)
    else:
        wanted = at * graph.relations + (before ^ 1)
        barred = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        present = keys[barred] == wanted
        choices = choices - present
        place = first + (uniform[0] * choices).astype(np.int64)
        place += present & (place >= barred)
    good = choices > 0
    place = np.where(good, place, 0)
    length = lists[place + 1] - lists[place]
    head = heads[lists[place] + (uniform[1] * length).astype(np.int64)]
    return keys[place] % graph.relations, head, good


def fingerprints(structure: str | tuple, queries: np.ndarray) -> np.ndarray:
    """64 bits for each query, equal for queries that differ by the order of branches only.

    Two different queries share theirs with a chance of 2^-64.

    Args:
        structure: a structure or its name.
        queries: (n, L) tokens.

    >>> one, two, three = fingerprints('2i', np.array([[5, 0, 7, 2], [7, 2, 5, 0], [7, 0, 5, 2]]))
    >>> bool(one == two), bool(one == three)
    (True, False)
    """

    def together(kind):
        return lambda parts: _mixed(np.stack(parts).sum(0, dtype=np.uint64), kind)

    hashed = Algebra(
        lambda ids: _mixed(ids.astype(np.uint64), 1),
        lambda value, relation: _mixed(value ^ _mixed(relation.astype(np.uint64), 2), 3),
        lambda value: _mixed(value, 4),
        together(5),
        together(6),
    )
    return walk(structure, np.asarray(queries), hashed)


def _mixed(value: np.ndarray, salt: int) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014) after adding a multiple of its constant."""
    value = value + np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
