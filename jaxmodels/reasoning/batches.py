"""Batches of queries: `query_batches(...)[step]` is a pure function of (seed, step), vectorised over rows.

One step is one published "step" (KGReasoning): a batch of paths, one of the other structures, one of paths again, as a
tuple with which `fit` makes three updates. Every batch has a fixed number of rows of each structure, so that shapes are
static; the published code mixes and shuffles all, which gives the same shares on average. Within a structure each epoch
visits every query once, in an order of its own. Negatives are drawn on the device, see `method.query_method`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxmodels.data.query_files import Queries
from jaxmodels.reasoning.graph import Answers, draw_answers
from jaxmodels.reasoning.method import alternation
from jaxmodels.reasoning.pool import pool_rows

QueryBatch = dict[str, dict[str, np.ndarray]]
Rows = Callable[[int], Sequence[int]]  # rows of a structure in the global batch -> those that this process reads


class Trained(NamedTuple):
    """Queries to train on and all their answers.

    Attributes:
        tokens: (n, L).
        answers: of each query, at least one.
    """

    tokens: np.ndarray
    answers: Answers


def trained(queries: Mapping[str, Queries]) -> dict[str, Trained]:
    """The training split as `query_files` reads it; queries without answers are left out."""
    found = {}
    for name, (tokens, _, hard) in queries.items():
        keep = np.flatnonzero(np.diff(hard.ptr))
        sets = Answers(np.asarray(hard.ptr, np.int64), hard.idx)
        found[name] = Trained(tokens[keep], sets if len(keep) == len(tokens) else _chosen(sets, keep))
    return {name: each for name, each in found.items() if len(each.tokens)}


def _chosen(sets: Answers, keep: np.ndarray) -> Answers:
    values = [sets.values[sets.starts[i] : sets.starts[i + 1]] for i in keep]
    starts = np.append(0, np.cumsum([len(v) for v in values], dtype=np.int64))
    return Answers(starts, np.concatenate([np.zeros(0, np.int64), *values]))


def quotas(counts: Mapping[str, int], rows: int, multiple: int = 1) -> dict[str, int]:
    """Rows of each structure in a batch: in proportion to the numbers of queries, but none below `multiple`.

    Args:
        counts: structure -> queries.
        rows: of the batch.
        multiple: of every quota, so that devices can share the rows.

    Raises:
        ValueError: too few rows for one of each structure, or rows that are no multiple.

    >>> quotas({'1p': 700, '2p': 200, '3p': 100}, 16)
    {'1p': 11, '2p': 3, '3p': 2}
    """
    units, rest = divmod(rows, multiple)
    if rest or units < len(counts):
        least = f"a multiple of {multiple}, at least {multiple * len(counts)} for {len(counts)} structures"
        raise ValueError(f"--batch_size: found {rows} rows for {', '.join(counts)}, expected {least}")
    exact = np.array([float(c) for c in counts.values()]) * units / sum(counts.values())
    share = np.maximum(np.floor(exact).astype(int), 1)
    while share.sum() != units:
        change = 1 if share.sum() < units else -1
        gap = np.where(share + change < 1, -np.inf, change * (exact - share))
        share[np.argmax(gap)] += change
    return {name: int(n) * multiple for name, n in zip(counts, share, strict=True)}


def query_batches(
    queries: Mapping[str, Trained],
    batch_size: int,
    *,
    seed: int,
    pool: Mapping[str, Trained] | None = None,
    pool_fraction: float = 0.25,
    alternate: bool = True,
    with_answers: int | None = None,
    multiple: int = 1,
    rows: Rows | None = None,
) -> "QueryBatches":
    """Endless batches.

    Args:
        queries: structure -> training queries.
        batch_size: rows of each of a step's batches.
        seed: of orders and positives.
        pool: structure -> diffused queries, which take `pool_fraction` of the rows, in equal shares.
        pool_fraction: of the batches whose kind the pool has; the rest is as without a pool.
        alternate: path, other, path, as published; else one batch of all structures in a step.
        with_answers: the number of entities, to add the column 'answers' that `filter_negatives` needs; None leaves it
            out.
        multiple: of the rows of each structure, the number of devices that share them.
        rows: which rows of each structure this process reads, all unless given (`mesh.local_rows`).

    Raises:
        ValueError: no query, a fraction outside 0 to 1, or a batch too small for its structures or the diffused ones.
    """
    return QueryBatches(
        queries, batch_size, seed, pool or {}, pool_fraction, alternate, with_answers, multiple, rows or range
    )


class Refreshed:
    """Batches whose diffused queries change every so many steps; `batches[step]` stays a function of (seed, step)."""

    def __init__(self, make: Callable[[int], "QueryBatches"], every: int):
        """Takes what makes batches.

        Args:
            make: 0 for the first `every` steps, 1 for the next and so on -> batches, which may differ in the queries of
                their pool and not in its structures.
            every: steps, at least 1.
        """
        self._made, self._every = functools.lru_cache(maxsize=2)(make), every  # two: batches are read ahead

    def __getitem__(self, step: int) -> tuple[QueryBatch, ...]:
        """The batches of a step."""
        return self._made(step // self._every)[step]

    def counts(self) -> list[dict[str, int]]:
        """Rows of each structure in each of a step's batches."""
        return self._made(0).counts()


class _Part(NamedTuple):
    """Rows of one structure from one origin in each batch of a kind."""

    name: str
    source: Trained
    quota: int
    stream: int  # of its random numbers
    turn: int  # which of its batches within a step
    turns: int  # of its batches in a step


class QueryBatches:
    """What `query_batches` returns; `batches[step]` is a tuple of batches."""

    def __init__(self, queries, batch_size, seed, pool, fraction, alternate, entities, multiple, rows):
        if not queries:
            raise ValueError("training queries: found none, expected some")
        pool = pool if fraction else {}
        names = tuple(dict.fromkeys((*queries, *pool)))
        self._seed, self._entities, self._rows = seed, entities, rows
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._tables: dict[int, np.ndarray] = {}
        self._plan: list[list[_Part]] = []
        groups = alternation(names) if alternate else (names,)
        for i, group in enumerate(groups):
            mine = {n: len(queries[n].tokens) for n in group if n in queries}
            tokens = {n: each.tokens for n, each in pool.items()}
            drawn = pool_rows(batch_size // multiple, fraction if mine else 1.0, tokens, group)
            diffused = {n: count * multiple for n, count in drawn.items() if count}
            left = quotas(mine, batch_size - sum(diffused.values()), multiple) if mine else {}
            turn, turns = sum(g == group for g in groups[:i]), sum(g == group for g in groups)
            self._plan.append(
                [_Part(n, queries[n], c, names.index(n), turn, turns) for n, c in left.items()]
                + [_Part(n, pool[n], c, len(names) + names.index(n), turn, turns) for n, c in diffused.items()]
            )
        came = {part.name for parts in self._plan for part in parts if part.source is pool.get(part.name)}
        missed = [n for n, each in pool.items() if len(each.tokens) and n not in came]
        if missed:
            over = f"over {multiple} devices " if multiple > 1 else ""
            raise ValueError(
                f"--pool_fraction: found {fraction} of --batch_size={batch_size}, which {over}has no row for diffused "
                f"{', '.join(missed)}; expected more of either"
            )

    def __getitem__(self, step: int) -> tuple[QueryBatch, ...]:
        """The batches of a step."""
        found = []
        for turn, parts in enumerate(self._plan):
            rng = np.random.default_rng((self._seed, step, turn))
            batch: dict[str, list[dict[str, np.ndarray]]] = {}
            for part in parts:
                batch.setdefault(part.name, []).append(self._columns(part, step, rng))
            found.append({name: _stacked(each, self._entities, self._rows) for name, each in batch.items()})
        return tuple(found)

    def counts(self) -> list[dict[str, int]]:
        """Rows of each structure in each of a step's batches."""
        found = []
        for parts in self._plan:
            each: dict[str, int] = {}
            for part in parts:
                each[part.name] = each.get(part.name, 0) + part.quota
            found.append(each)
        return found

    def _columns(self, part: _Part, step: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        first = (step * part.turns + part.turn) * part.quota
        chosen = self._visited(part, np.arange(first, first + part.quota))
        tokens, sets = part.source
        counts = sets.counts[chosen]
        columns = {
            "query": tokens[chosen].astype(np.int32),
            "positive": draw_answers(sets, chosen, rng.random(part.quota)).astype(np.int32),
            "weight": np.sqrt(1.0 / (counts + 4.0)).astype(np.float32),
        }
        if self._entities is not None:
            columns["answers"] = self._table(part)[chosen]
        return columns

    def _visited(self, part: _Part, places: np.ndarray) -> np.ndarray:
        """Queries at these places of the endless stream; each epoch is a permutation."""
        size = len(part.source.tokens)
        epochs = places // size
        out = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = self._order(part.stream, int(epoch), size)[places[here] % size]
        return out

    def _order(self, stream: int, epoch: int, size: int) -> np.ndarray:
        key = (stream, epoch)
        if key not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k[0] != stream or abs(k[1] - epoch) <= 1}
            self._orders[key] = np.random.default_rng((self._seed, 1, stream, epoch)).permutation(size)
        return self._orders[key]

    def _table(self, part: _Part) -> np.ndarray:
        """(n, most) answers of all queries, padded with the number of entities."""
        if part.stream not in self._tables:
            sets = part.source.answers
            table = np.full((len(sets.counts), sets.counts.max()), self._entities, np.int32)
            table[np.arange(table.shape[1])[None] < sets.counts[:, None]] = sets.values
            self._tables[part.stream] = table
        return self._tables[part.stream]


def _stacked(parts: list[dict[str, np.ndarray]], entities: int | None, rows: Rows) -> dict[str, np.ndarray]:
    """Columns of several origins one below the other, with lists of answers padded to the longest."""
    if entities is not None:
        most = max(part["answers"].shape[1] for part in parts)
        for part in parts:
            missing = ((0, 0), (0, most - part["answers"].shape[1]))
            part["answers"] = np.pad(part["answers"], missing, constant_values=entities)
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    mine = rows(len(joined["query"]))
    return joined if len(mine) == len(joined["query"]) else {key: x[np.asarray(mine)] for key, x in joined.items()}
