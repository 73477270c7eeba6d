"""One block of sampled queries with exact easy and hard answers (the rules of BetaE's `create_queries`).

A split has a small and a big graph (train: nothing and train; valid: train and train + valid; test: train + valid and
all three). Easy answers are those on the small graph, hard ones those that only the big one has. A query of valid and
test needs a hard answer, one with negation also an answer that the big graph takes away; it stays among the easy ones.

A block is a number of attempts with a random stream of its own, so it is the same wherever and whenever it is drawn.
"""

import zlib
from typing import NamedTuple

import numpy as np

from jaxmodels.data.query_files import SPLITS
from jaxmodels.data.query_structures import structure_of
from jaxmodels.data.triples import KnowledgeGraph
from jaxmodels.reasoning.graph import Answers, Graph, build_graph
from jaxmodels.reasoning.grounding import fingerprints, ground
from jaxmodels.reasoning.sets import Tails, lists_of, sets_of, tails_of
from jaxmodels.reasoning.structures import Algebra, has, is_chain, walk, width

CHUNK = 1024  # queries answered at once


class Limits(NamedTuple):
    """Which queries and answers are kept: queries with more answers than these are dropped; None keeps all.

    Attributes:
        evaluation: hard answers of valid and test, and answers that the big graph takes away.
        train: answers of training queries.
        train_negated: the same for structures with negation.
        lost: keep answers that the big graph takes away among the easy ones, as the published files do.
    """

    evaluation: int | None = 100
    train: int | None = None
    train_negated: int | None = 100
    lost: bool = True


class Split(NamedTuple):
    """What a split's queries are drawn from.

    Attributes:
        name: train, valid or test.
        big: its graph with all its edges.
        small: the edges known before; none for train.
        new: (N x R,) booleans, or sorted keys where that is too large: pairs with a tail that `small` lacks.
        new_relations: (R,) whether any pair of the relation is new.
        own: (n, 2) pairs (head, relation) with an edge in the split's own file.
    """

    name: str
    big: Tails
    small: Tails
    new: np.ndarray
    new_relations: np.ndarray
    own: np.ndarray


class Block(NamedTuple):
    """Accepted queries of one block, without repetitions.

    Attributes:
        tokens: (n, L) int32.
        easy: answers on the small graph.
        hard: answers that only the big graph has.
        keys: `grounding.fingerprints` of the queries.
        drawn: attempts that could be grounded, repetitions included.
    """

    tokens: np.ndarray
    easy: Answers
    hard: Answers
    keys: np.ndarray
    drawn: int


def split_of(kg: KnowledgeGraph, name: str) -> Split:
    """Prepares one split of a knowledge graph for drawing.

    Args:
        kg: triples.
        name: train, valid or test.

    Raises:
        ValueError: no such split.
    """
    if name not in SPLITS:
        raise ValueError(f"split '{name}': expected one of {', '.join(SPLITS)}")
    at = SPLITS.index(name)
    files = [kg.train, kg.valid, kg.test]
    big, small = (_graph(kg, files[:stop]) for stop in (at + 1, at))
    own = _graph(kg, files[at : at + 1])
    tails = tails_of(big), tails_of(small)
    pairs = np.stack([own.edges[:, 0], own.edges[:, 1]], axis=1)
    pairs = np.unique(pairs, axis=0)
    fresh = _grown(tails[0], tails[1], pairs)
    keys = pairs[fresh, 0] * big.relations + pairs[fresh, 1]
    relations = np.zeros(big.relations, bool)
    relations[pairs[fresh, 1]] = True
    new = np.zeros(big.entities * big.relations, bool) if tails[0].place is not None else keys
    if new.dtype == bool:
        new[keys] = True
    return Split(name, *tails, new, relations, pairs)


def _graph(kg: KnowledgeGraph, files: list[np.ndarray]) -> Graph:
    triples = np.concatenate([np.zeros((0, 3), np.int64), *files])
    return build_graph(triples, entities=len(kg.entities), relations=kg.num_relations)


def _grown(big: Tails, small: Tails, pairs: np.ndarray) -> np.ndarray:
    """Which pairs have more tails in the big graph."""
    sizes = []
    for tails in (big, small):
        place = tails.find(pairs[:, 0], pairs[:, 1])
        length = np.append(np.diff(tails.graph.tails.starts), 0)
        sizes.append(length[place])
    return sizes[0] > sizes[1]


def block(split: Split, structure: str, *, seed: int, number: int, attempts: int, limits: Limits) -> Block:
    """Draws one block.

    Args:
        split: by `split_of`.
        structure: a name.
        seed: of all draws.
        number: of the block; each has a random stream of its own.
        attempts: how many to draw.
        limits: on answers.
    """
    stream = [seed, SPLITS.index(split.name), zlib.crc32(structure.encode()), number]
    rng = np.random.default_rng(np.random.SeedSequence(stream))
    drawn = ground(split.big.graph, structure, attempts, rng)
    queries = drawn[np.sort(np.unique(fingerprints(structure, drawn), return_index=True)[1])]
    return _kept(split, structure, promising(split, structure, queries), limits)._replace(drawn=len(drawn))


def one_hop(split: Split, *, limits: Limits) -> Block:
    """All 1p queries of a split: every pair with an edge in its own file."""
    return _kept(split, "1p", split.own, limits)


def promising(split: Split, structure: str, queries: np.ndarray) -> np.ndarray:
    """The queries that may be accepted: cheap conditions, each necessary, that save most exact answers.

    An answer is gained (or lost) only where an atom has a new tail that counts for it (or, below an odd number of
    negations, against it). What a projection loses was lost below it.

    Args:
        split: by `split_of`.
        structure: a name.
        queries: (n, L) tokens.
    """
    if split.name == "train" or not len(queries):
        return queries
    _, gains, loses = walk(structure, queries, _changes(split))
    negated = has(structure, "n")
    queries = queries[gains & loses] if negated else queries[gains]
    tree = structure_of(structure)
    if negated and is_chain(tree) and tree[0] != "e" and "n" not in tree[1] and len(queries):
        return queries[_loses(split, tree[0], queries[:, : width(tree[0])])]
    return queries


def _changes(split: Split) -> Algebra:
    """Values are (entity or None, may gain, may lose)."""
    relations = split.big.graph.relations

    def project(value, relation):
        at, gains, loses = value
        fresh = split.new_relations[relation] if at is None else _is_new(split, at * relations + relation)
        return None, gains | fresh, loses

    def together(parts):
        return None, np.any([part[1] for part in parts], axis=0), np.any([part[2] for part in parts], axis=0)

    def anchor(ids):
        return ids, np.zeros(len(ids), bool), np.zeros(len(ids), bool)

    return Algebra(anchor, project, lambda value: (None, value[2], value[1]), together, together)


def _is_new(split: Split, keys: np.ndarray) -> np.ndarray:
    return split.new[keys] if split.new.dtype == bool else np.isin(keys, split.new)


def _loses(split: Split, structure: tuple, queries: np.ndarray) -> np.ndarray:
    """Whether the big graph takes an answer away."""
    found = [np.zeros(0, bool)]
    for i in range(0, len(queries), CHUNK):
        big, small = (sets_of(tails, structure, queries[i : i + CHUNK]) for tails in (split.big, split.small))
        found.append(np.diff((small > big).indptr) > 0)
    return np.concatenate(found)


def _kept(split: Split, structure: str, queries: np.ndarray, limits: Limits) -> Block:
    """The queries that the rules accept, with their answers."""
    tokens, easy, hard = [], [], []
    for i in range(0, len(queries), CHUNK):
        some = queries[i : i + CHUNK]
        large = whole = sets_of(split.big, structure, some)
        if split.name == "train":
            good = _within(large, limits.train_negated if has(structure, "n") else limits.train, least=1)
            known = large[:0]
        else:
            known = sets_of(split.small, structure, some)
            good = np.diff(large.indptr) > 0
            if has(structure, "n"):
                good &= _within(known > large, limits.evaluation, least=1)
            large = large > known
            good &= _within(large, limits.evaluation, least=1)
            known = (known if limits.lost else known.multiply(whole).tocsr())[np.flatnonzero(good)]
        tokens.append(some[good])
        easy.append(known)
        hard.append(large[np.flatnonzero(good)])
    rows = np.concatenate([np.zeros((0, width(structure)), np.int64), *tokens]).astype(np.int32)
    known = Answers(np.zeros(len(rows) + 1, np.int64), np.zeros(0, np.int32))
    if split.name != "train":
        known = lists_of(easy)
    return Block(rows, known, lists_of(hard), fingerprints(structure, rows), len(queries))


def _within(sets, most: int | None, *, least: int) -> np.ndarray:
    counts = np.diff(sets.indptr)
    return (counts >= least) & (counts <= (counts if most is None else most))
