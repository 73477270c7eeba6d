"""Relation diffusion and logic operations: unseen queries from the surroundings of seen ones.

A reconstruction: only the abstract of Logic Diffusion (Xie et al. 2023, arXiv 2306.03515) could be obtained, so the
rules here are this project's reading of "relation diffusion" and of "sampling sub-logic by random walks".

A query's relations and their inverses spread over relations that share entities with them (a truncated personalised
PageRank); walks on the training edges prefer relations of that distribution. Each operation takes the rows of one
structure with a known answer a each and gives rows of another structure that a (or the entity reached) answers. All
randomness comes in as uniform numbers, six per attempt at fixed places; NumPy on the host, vectorised over attempts.
"""

from typing import NamedTuple

import numpy as np

from jaxmodels.data.query_structures import NEGATION, UNION, letters, structure_of
from jaxmodels.reasoning.graph import Graph, answers
from jaxmodels.rules import nearest

FLOOR = 1e-6  # added to a relation's weight, so that no candidate is impossible
UNIFORMS = 6

# Operation -> {structure: the structures it can become}.
OPERATIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "extend": {"1p": ("2p",), "2p": ("3p",), "2i": ("ip",), "2in": ("inp",), "2u-DNF": ("up-DNF",)},
    "conjoin1": {"1p": ("2i",), "2i": ("3i",), "2p": ("pi",), "2in": ("3in",)},
    "conjoin2": {"1p": ("pi",)},
    "union1": {"1p": ("2u-DNF",)},
    "negate1": {"1p": ("2in",), "2i": ("3in",), "2p": ("pin",)},
    "negate2": {"1p": ("pni",)},
    "prefix": {"1p": ("2p",), "2p": ("3p",), "2i": ("pi",), "2in": ("pin",)},
    "sub": {
        "2i": ("1p", "1p"),
        "3i": ("2i", "2i", "2i"),
        "pi": ("2p", "1p"),
        "2in": ("1p",),
        "3in": ("2i", "2in", "2in"),
        "pin": ("2p",),
        "pni": ("1p",),
    },
}
# What `sub` keeps: columns of the row, per choice.
KEPT: dict[str, tuple[tuple[int, ...], ...]] = {
    "2i": ((0, 1), (2, 3)),
    "3i": ((2, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 3)),
    "pi": ((0, 1, 2), (3, 4)),
    "2in": ((0, 1),),
    "3in": ((0, 1, 2, 3), (2, 3, 4, 5, 6), (0, 1, 4, 5, 6)),
    "pin": ((0, 1, 2),),
    "pni": ((4, 5),),
}


# Relations ------------------------------------------------------------------------------------------------------------


def incidence(graph: Graph) -> np.ndarray:
    """(N, R) booleans: the entity has an outgoing edge of the relation."""
    out = np.zeros((graph.entities, graph.relations), bool)
    out[graph.edges[:, 0], graph.edges[:, 1]] = True
    return out


def cooccurrence(outgoing: np.ndarray) -> np.ndarray:
    """(R, R) numbers of entities that two relations share, zero on the diagonal."""
    counts = np.rint(outgoing.astype(np.float32).T @ outgoing.astype(np.float32)).astype(np.int64)
    np.fill_diagonal(counts, 0)
    return counts


def transition(counts: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Rows of `counts` as distributions; a row of zeros is uniform over the relations that have edges.

    Args:
        counts: by `cooccurrence`.
        present: (R,) booleans, the relations with edges.
    """
    total = counts.sum(1, keepdims=True)
    uniform = present / max(int(present.sum()), 1)
    return np.where(total > 0, counts / np.maximum(total, 1), uniform[None])


def relation_histogram(name: str, queries: np.ndarray, relations: int) -> np.ndarray:
    """Normalised histogram of each query's relations and their inverses, (n, R).

    Args:
        name: of the structure.
        queries: (n, L) tokens.
        relations: R.
    """
    columns = [i for i, letter in enumerate(letters(structure_of(name))) if letter == "r"]
    used = np.asarray(queries)[:, columns]
    both = np.concatenate([used, used ^ 1], axis=1)
    out = np.zeros((len(used), relations))
    np.add.at(out, (np.arange(len(used))[:, None], both), 1.0)
    return out / out.sum(1, keepdims=True)


def diffusion_matrix(step: np.ndarray, *, beta: float = 0.5, hops: int = 2) -> np.ndarray:
    """Sum over k = 0 .. hops of beta (1 - beta)^k step^k, normalised: pi = pi0 @ matrix.

    Args:
        step: by `transition`.
        beta: chance to stop; 1 means no diffusion.
        hops: K; 0 means no diffusion.

    Raises:
        ValueError: beta outside (0, 1] or negative hops.
    """
    if not 0.0 < beta <= 1.0:
        raise ValueError(f"beta: found {beta}, expected above 0 and at most 1")
    if hops < 0:
        raise ValueError(f"hops: found {hops}, expected at least 0")
    power, total = np.eye(len(step)), np.zeros_like(step, dtype=np.float64)
    for k in range(hops + 1):
        total += beta * (1.0 - beta) ** k * power
        power = power @ step
    return total / (1.0 - (1.0 - beta) ** (hops + 1))


class Surroundings(NamedTuple):
    """What walks on a graph look up.

    Attributes:
        graph: the training edges.
        outgoing: (N, R) booleans.
        spread: by `diffusion_matrix`.
    """

    graph: Graph
    outgoing: np.ndarray
    spread: np.ndarray


def surroundings(graph: Graph, *, beta: float = 0.5, hops: int = 2) -> Surroundings:
    """Prepares a graph for walks.

    Args:
        graph: the training edges, both directions.
        beta: see `diffusion_matrix`.
        hops: see `diffusion_matrix`.
    """
    outgoing = incidence(graph)
    step = transition(cooccurrence(outgoing), np.any(outgoing, axis=0))
    return Surroundings(graph, outgoing, diffusion_matrix(step, beta=beta, hops=hops))


# Walks ----------------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """Where a walk went: relation of the edge, the entity reached, and whether there was a way."""

    relation: np.ndarray
    entity: np.ndarray
    ok: np.ndarray


def forward(near: Surroundings, at, weight, before, uniform, tau: np.ndarray) -> Step:
    """A step along an outgoing edge: first the relation, by its weight, then a tail, uniformly.

    Args:
        near: by `surroundings`.
        at: (n,) entities.
        weight: (n, R) diffused distribution of each query.
        before: (n,) relation of the neighbouring atom, whose inverse is not taken; -1 where there is none.
        uniform: (n, 2).
        tau: (n,) exponent of the weights; 0 draws relations uniformly.
    """
    return _step(near, at, weight, before, uniform, tau, backwards=False)


def backward(near: Surroundings, at, weight, before, uniform, tau: np.ndarray) -> Step:
    """A step to the head of an edge that ends at `at`; arguments as in `forward`.

    The weight counts outgoing relations, and an incoming c is an outgoing c ^ 1.
    """
    return _step(near, at, weight, before, uniform, tau, backwards=True)


def _step(near, at, weight, before, uniform, tau, *, backwards: bool) -> Step:
    graph, rows = near.graph, np.arange(len(at))
    inverse = np.arange(graph.relations) ^ 1
    candidates = near.outgoing[at]  # a copy
    if backwards:
        candidates, weight = candidates[:, inverse], weight[:, inverse]
    chained = before >= 0
    candidates[rows[chained], before[chained] ^ 1] = False
    mass = np.where(candidates, (weight + FLOOR) ** tau[:, None], 0.0)
    relation, ok = _inverse_cdf(mass, candidates, uniform[:, 0])
    lists = graph.heads if backwards else graph.tails
    start, length = lists.find(at, relation, graph.relations)
    place = start + np.floor(uniform[:, 1] * length).astype(np.int64)
    entity = lists.values[np.where(ok, place, 0)] if len(lists.values) else np.zeros(len(at), np.int64)
    return Step(relation, entity, ok)


def _inverse_cdf(mass: np.ndarray, candidates: np.ndarray, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per row the first candidate with a cumulated mass above uniform x total, else the last; is there any at all?"""
    cdf = np.cumsum(mass, axis=1)
    beyond = candidates & (cdf > (uniform * cdf[:, -1])[:, None])
    last = candidates.shape[1] - 1 - np.argmax(candidates[:, ::-1], axis=1)
    return np.where(beyond.any(1), np.argmax(beyond, axis=1), last), np.any(candidates, axis=1)


# Operations -----------------------------------------------------------------------------------------------------------


class Diffused(NamedTuple):
    """Rows of one structure that an operation made.

    Attributes:
        name: their structure.
        source: (m,) the attempts they come from.
        queries: (m, L) tokens.
        positive: (m,) a known answer of each.
    """

    name: str
    source: np.ndarray
    queries: np.ndarray
    positive: np.ndarray


def apply_operation(
    near: Surroundings, operation: str, name: str, queries: np.ndarray, positive: np.ndarray, uniform, tau=1.0
) -> list[Diffused]:
    """Applies one operation to rows of one structure; attempts that fail are missing in the result.

    Args:
        near: by `surroundings`.
        operation: a name of OPERATIONS.
        name: structure of the rows; an operation that does not list it fails.
        queries: (n, L) tokens.
        positive: (n,) an answer of each.
        uniform: (n, 6) in [0, 1).
        tau: exponent of relation weights, a number or (n,).

    Raises:
        ValueError: an operation that does not exist.
    """
    if operation not in OPERATIONS:
        raise ValueError(
            f"no operation '{operation}'{nearest(operation, OPERATIONS)}; there are {', '.join(OPERATIONS)}"
        )
    queries, positive, uniform = np.asarray(queries, np.int64), np.asarray(positive, np.int64), np.asarray(uniform)
    if name not in OPERATIONS[operation]:
        return []
    if operation == "sub":
        return _sub(name, queries, positive, uniform)
    weight = relation_histogram(name, queries, near.graph.relations) @ near.spread
    attempt = Attempt(near, name, queries, positive, uniform, weight, np.broadcast_to(np.float64(tau), (len(queries),)))
    rows, reached, ok = MAKERS[operation](attempt)
    (target,) = OPERATIONS[operation][name]
    source = np.flatnonzero(ok)
    return [Diffused(target, source, rows[source], reached[source])]


class Attempt(NamedTuple):
    """The arguments of an operation."""

    near: Surroundings
    name: str
    queries: np.ndarray
    positive: np.ndarray
    uniform: np.ndarray
    weight: np.ndarray
    tau: np.ndarray

    def back(self, at, before, first: int) -> Step:
        """A backward step with the uniforms number `first` and the next."""
        return backward(self.near, at, self.weight, before, self.uniform[:, first : first + 2], self.tau)

    @property
    def alone(self) -> np.ndarray:
        """No neighbouring atom."""
        return np.full(len(self.queries), -1)


def _columns(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate([part[:, None] if part.ndim == 1 else part for part in parts], axis=1)


def _extend(a: Attempt):
    before = a.queries[:, -1] if a.name in ("1p", "2p") else a.alone
    step = forward(a.near, a.positive, a.weight, before, a.uniform[:, :2], a.tau)
    return _columns(a.queries, step.relation), step.entity, step.ok


def _fresh(a: Attempt, step: Step) -> np.ndarray:
    """The new branch equals no positive one-hop branch of the row."""
    kinds = letters(structure_of(a.name))
    same = np.zeros(len(a.queries), bool)
    at = 0
    while at < len(kinds):
        stop = next((i for i in range(at + 1, len(kinds)) if kinds[i] == "e"), len(kinds))
        if kinds[at:stop] == ("e", "r"):
            same |= (a.queries[:, at] == step.entity) & (a.queries[:, at + 1] == step.relation)
        at = stop
    return ~same


def _conjoin1(a: Attempt):
    step = a.back(a.positive, a.alone, 0)
    branch = _columns(step.entity, step.relation)
    rows = _columns(branch, a.queries) if a.name == "2in" else _columns(a.queries, branch)
    return rows, a.positive, step.ok & _fresh(a, step)


def _two_back(a: Attempt, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    near = a.back(start, a.alone, 0)
    far = a.back(near.entity, near.relation, 2)
    return _columns(far.entity, far.relation, near.relation), near.ok & far.ok


def _conjoin2(a: Attempt):
    branch, ok = _two_back(a, a.positive)
    return _columns(branch, a.queries), a.positive, ok


def _union1(a: Attempt):
    step = a.back(a.positive, a.alone, 0)
    rows = _columns(a.queries, step.entity, step.relation, np.full(len(a.queries), UNION))
    return rows, a.positive, step.ok & _fresh(a, step)


def _elsewhere(a: Attempt) -> tuple[np.ndarray, np.ndarray]:
    """An entity drawn from all, and whether it may ground a negated branch."""
    other = np.floor(a.uniform[:, 4] * a.near.graph.entities).astype(np.int64)
    return other, (other != a.positive) & a.near.outgoing[other].any(1)


def _answered(a: Attempt, name: str, branch: np.ndarray) -> np.ndarray:
    found = answers(a.near.graph, name, branch)
    return found[np.arange(len(branch)), a.positive]


def _negate1(a: Attempt):
    other, ok = _elsewhere(a)
    step = a.back(other, a.alone, 0)
    branch = _columns(step.entity, step.relation)
    ok &= step.ok & ~_answered(a, "1p", branch)
    return _columns(a.queries, branch, np.full(len(ok), NEGATION)), a.positive, ok


def _negate2(a: Attempt):
    other, ok = _elsewhere(a)
    branch, way = _two_back(a, other)
    ok &= way & ~_answered(a, "2p", branch)
    return _columns(branch, np.full(len(ok), NEGATION), a.queries), a.positive, ok


def _prefix(a: Attempt):
    step = a.back(a.queries[:, 0], a.queries[:, 1], 0)
    return _columns(step.entity, step.relation, a.queries[:, 1:]), a.positive, step.ok


MAKERS = {
    "extend": _extend,
    "conjoin1": _conjoin1,
    "conjoin2": _conjoin2,
    "union1": _union1,
    "negate1": _negate1,
    "negate2": _negate2,
    "prefix": _prefix,
}


def _sub(name: str, queries: np.ndarray, positive: np.ndarray, uniform: np.ndarray) -> list[Diffused]:
    kept, targets = KEPT[name], OPERATIONS["sub"][name]
    choice = np.floor(uniform[:, 0] * len(kept)).astype(np.int64)
    out = []
    for i, (columns, target) in enumerate(zip(kept, targets, strict=True)):
        source = np.flatnonzero(choice == i)
        out.append(Diffused(target, source, queries[source][:, columns], positive[source]))
    return out
