"""Exact answers of many queries at once, as sparse rows: the cost is the edges followed, never the number of entities.

A batch of sets is one sparse matrix, a row per query. A projection is a product of two sparse matrices (which entity
and relation each row stands at, times the tails of each), so no Python runs per query. A complement stays a flag: an
intersection with it is a set difference, as every common structure allows, and only a projection of it or an answer
that is a complement itself writes all entities out.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from jaxmodels.data.query_structures import check_tokens, shown, structure_of
from jaxmodels.reasoning.graph import Answers, Graph, spans
from jaxmodels.reasoning.structures import Algebra, walk

LARGEST_TABLE = 2**26  # entries of a direct table of (entity, relation); above that the sorted keys are searched


class Sets(NamedTuple):
    """A set per query.

    Attributes:
        rows: the entities of each, (n, N).
        complement: whether all others are meant.
        anchors: (n,) the only entity of each row, where that is so; a projection then copies lists.
    """

    rows: sparse.csr_array
    complement: bool = False
    anchors: np.ndarray | None = None


class Tails(NamedTuple):
    """What a projection looks up.

    Attributes:
        graph: whose tails.
        matrix: (G, N): a row for each pair (head, relation) that has tails, in the order of `graph.tails.keys`.
        place: (N x R,) the row of a pair, -1 where it has none; None where that would be too large a table.
    """

    graph: Graph
    matrix: sparse.csr_array
    place: np.ndarray | None

    def find(self, entity: np.ndarray, relation: np.ndarray) -> np.ndarray:
        """The row of `matrix` for each pair, -1 where there is none."""
        wanted = np.asarray(entity, np.int64) * self.graph.relations + relation
        if self.place is not None:
            return self.place[wanted]
        keys = self.graph.tails.keys
        at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        return np.where(keys[at] == wanted, at, -1) if len(keys) else np.full(len(wanted), -1)


def tails_of(graph: Graph) -> Tails:
    """Prepares a graph for projections."""
    keys, starts, values = graph.tails
    matrix = _rows(starts, values.astype(np.int32), graph.entities)
    if graph.entities * graph.relations > LARGEST_TABLE:
        return Tails(graph, matrix, None)
    place = np.full(graph.entities * graph.relations, -1, np.int32)
    place[keys] = np.arange(len(keys), dtype=np.int32)
    return Tails(graph, matrix, place)


def _rows(starts: np.ndarray, columns: np.ndarray, width: int) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(columns), bool), columns, starts), shape=(len(starts) - 1, width))


def sets_of(tails: Tails, structure: str | tuple, queries: np.ndarray) -> sparse.csr_array:
    """The answers of queries of one structure, (n, N) sparse booleans with ascending columns.

    Args:
        tails: where to look.
        structure: a structure or its name.
        queries: (n, L) tokens; their ids are not checked, see `answer_lists`.
    """
    found = _plain(walk(structure_of(structure), np.asarray(queries), _algebra(tails)))
    found.sort_indices()
    return found


def answer_lists(tails: Tails, structure: str | tuple, queries: np.ndarray, *, chunk: int = 2048) -> Answers:
    """The answers of queries of one structure, as lists.

    Args:
        tails: where to look.
        structure: a structure or its name.
        queries: (n, L) tokens.
        chunk: rows worked on at once.

    Raises:
        ValueError: rows that are no queries of this structure, or ids that the graph does not know.
    """
    graph, queries = tails.graph, np.asarray(queries)
    where = f"query {shown(structure)}"
    check_tokens(structure, queries, num_entities=graph.entities, num_relations=graph.relations, where=where)
    parts = [sets_of(tails, structure, queries[i : i + chunk]) for i in range(0, len(queries), chunk)]
    return lists_of(parts)


def lists_of(parts: list[sparse.csr_array]) -> Answers:
    """Sparse rows of several matrices, one after the other, as lists."""
    counts = [np.diff(part.indptr) for part in parts]
    starts = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts]))])
    return Answers(starts.astype(np.int64), np.concatenate([np.zeros(0, np.int32), *(part.indices for part in parts)]))


def _algebra(tails: Tails) -> Algebra:
    size = tails.graph.entities

    def anchor(ids):
        return Sets(_rows(np.arange(len(ids) + 1), np.asarray(ids, np.int32), size), anchors=np.asarray(ids))

    def step(part, relation):
        if part.anchors is None or part.complement:
            return Sets(project(tails, _plain(part), relation))
        return Sets(_copied(tails, tails.find(part.anchors, relation)))

    def intersect(parts):
        for part in parts:
            part.rows.sort_indices()
        inside = [part.rows for part in parts if not part.complement]
        outside = [part.rows for part in parts if part.complement]
        if not inside:
            return Sets(_any(outside), complement=True)
        found = inside[0]
        for rows in inside[1:]:
            found = found.multiply(rows).tocsr()
        return Sets(found > _any(outside) if outside else found)  # booleans: more than = in one and not in the other

    def negate(part):
        return part._replace(complement=not part.complement)

    def union(parts):
        return negate(intersect([negate(part) for part in parts]))

    return Algebra(anchor, step, negate, intersect, union)


def _copied(tails: Tails, place: np.ndarray) -> sparse.csr_array:
    """Rows of the matrix, empty where the place is -1."""
    starts = tails.graph.tails.starts
    first = starts[place]
    length = np.where(place >= 0, starts[place + 1] - first, 0)
    columns = tails.matrix.indices[spans(first, length)]
    return _rows(np.append(0, np.cumsum(length)), columns, tails.graph.entities)


def _any(each: list[sparse.csr_array]) -> sparse.csr_array:
    found = each[0]
    for rows in each[1:]:
        found = found + rows
    return found


def _plain(part: Sets) -> sparse.csr_array:
    """The rows themselves, with complements written out."""
    if not part.complement:
        return part.rows
    others = ~part.rows.toarray()
    return _rows(np.append(0, np.cumsum(others.sum(1))), np.nonzero(others)[1].astype(np.int32), others.shape[1])


def project(tails: Tails, reached: sparse.csr_array, relation: np.ndarray) -> sparse.csr_array:
    """The tails that each row's entities have under the row's relation, in no order.

    Args:
        tails: where to look.
        reached: (n, N) booleans.
        relation: (n,) ids.
    """
    counts = np.diff(reached.indptr)
    place = tails.find(reached.indices, np.repeat(np.asarray(relation), counts))
    known = place >= 0
    starts = np.append(0, np.cumsum(known))[reached.indptr]
    return _rows(starts, place[known].astype(np.int32), tails.matrix.shape[0]) @ tails.matrix
