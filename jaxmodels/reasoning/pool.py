"""The pool of diffused queries that joins the training queries of Logic Diffusion; a reconstruction, see `diffusion`.

Seed pairs (training query, one of its answers) go through one or more logic operations; what comes out is answered
exactly on the training graph and kept where it is new.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxmodels.data.query_structures import structure_of
from jaxmodels.reasoning.diffusion import OPERATIONS, UNIFORMS, Surroundings, apply_operation
from jaxmodels.reasoning.graph import Answers, answers, as_lists, draw_answers
from jaxmodels.reasoning.structures import canonical, has


class Pool(NamedTuple):
    """Diffused queries.

    Attributes:
        queries: structure -> (n, L) tokens.
        answers: structure -> their exact answers on the training graph.
        attempts: seeds that were drawn.
    """

    queries: dict[str, np.ndarray]
    answers: dict[str, Answers]
    attempts: int

    def report(self) -> dict[str, int]:
        """Number of queries of each structure; hard ones may stay below their quota."""
        return {name: len(rows) for name, rows in self.queries.items()}


def diffuse(
    near: Surroundings,
    seeds: Mapping[str, np.ndarray],
    seed_answers: Mapping[str, Answers],
    *,
    targets: Sequence[str],
    quota: int,
    supported: Sequence[str],
    exclude: Mapping[str, np.ndarray] | None = None,
    holdout: Sequence[str] = (),
    depth: int = 2,
    tau: float = 1.0,
    max_answers: int | None = None,
    max_negated_answers: int | None = 100,
    max_attempts: int | None = None,
    seed: int | tuple[int, ...] = 0,
    chunk: int = 2048,
) -> Pool:
    """Draws a pool.

    Args:
        near: the training graph, by `diffusion.surroundings`.
        seeds: training queries of each structure.
        seed_answers: their answers on the training graph.
        targets: structures to collect.
        quota: queries wanted of each.
        supported: structures that the model can embed; no operation leaves them.
        exclude: more queries that may not be drawn (those of the validation and test split); seeds never are.
        holdout: targets that are left out, to measure generalisation on.
        depth: largest number of operations on one seed.
        tau: exponent of relation weights; 0 walks uniformly.
        max_answers: queries with more are dropped; None keeps all.
        max_negated_answers: the same for structures with negation.
        max_attempts: seeds at most; ten times the sum of the quotas unless given.
        seed: of the draws.
        chunk: seeds at a time.

    Raises:
        ValueError: no target is left, a target that is not supported, no seeds, or a depth below 1.
    """
    wanted = [name for name in targets if name not in holdout]
    for name in wanted:
        structure_of(name)
        if name not in supported:
            raise ValueError(
                f"targets: '{name}' is not supported by the model, expected some of {', '.join(supported)}"
            )
    if not wanted:
        raise ValueError(f"targets: none is left after holding out {', '.join(holdout)}")
    if depth < 1:
        raise ValueError(f"depth: found {depth}, expected at least 1")
    names = [name for name, rows in seeds.items() if len(rows)]
    if not names:
        raise ValueError("seeds: found no training query, expected some")
    rng = np.random.default_rng(seed)
    used: dict[str, set[bytes]] = {name: set() for name in wanted}
    for queries in (seeds, exclude or {}):
        for name in wanted:
            if name in queries:
                used[name].update(_keys(name, queries[name]))
    limit = 10 * quota * len(wanted) if max_attempts is None else max_attempts
    kept: dict[str, list] = {name: [] for name in wanted}
    count = dict.fromkeys(wanted, 0)
    attempts = 0
    sizes = np.array([len(seeds[name]) for name in names])
    while attempts < limit and min(count.values()) < quota:
        size = min(chunk, limit - attempts)
        attempts += size
        for name, rows in _attempt(near, names, sizes, seeds, seed_answers, supported, depth, tau, rng, size).items():
            if name not in kept or count[name] >= quota:
                continue
            most = max_negated_answers if has(name, "n") else max_answers
            new, found = _new(near, name, rows, used[name], most, quota - count[name])
            if len(new):
                kept[name].append((new, found))
                count[name] += len(new)
    return _gathered(kept, near.graph.entities, attempts)


def _attempt(near, names, sizes, seeds, seed_answers, supported, depth, tau, rng, size) -> dict[str, np.ndarray]:
    """The rows that `size` seeds became, by structure."""
    flat = rng.integers(sizes.sum(), size=size)
    which = np.searchsorted(np.cumsum(sizes), flat, side="right")
    index = flat - (np.cumsum(sizes) - sizes)[which]
    steps, pick, uniform = rng.integers(1, depth + 1, size=size), rng.random(size), rng.random((size, depth, UNIFORMS))
    chosen = rng.random((size, depth))
    current: dict[str, list] = {}
    for i, name in enumerate(names):
        rows = np.flatnonzero(which == i)
        rows = rows[seed_answers[name].counts[index[rows]] > 0]
        if len(rows):
            positive = draw_answers(seed_answers[name], index[rows], pick[rows])
            current.setdefault(name, []).append((rows, np.asarray(seeds[name])[index[rows]], positive))
    done: dict[str, list] = {}
    for level in range(depth):
        following: dict[str, list] = {}
        for name, parts in current.items():
            rows, queries, positive = (np.concatenate(column) for column in zip(*parts, strict=True))
            options = possible(name, supported)
            if not options:
                continue
            choice = np.floor(chosen[rows, level] * len(options)).astype(np.int64)
            for i, operation in enumerate(options):
                mine = choice == i
                made = apply_operation(
                    near, operation, name, queries[mine], positive[mine], uniform[rows[mine], level], tau
                )
                for out in made:
                    origin = rows[mine][out.source]
                    ended = steps[origin] == level + 1
                    done.setdefault(out.name, []).append(out.queries[ended])
                    following.setdefault(out.name, []).append(
                        (origin[~ended], out.queries[~ended], out.positive[~ended])
                    )
        current = following
    return {name: np.concatenate(parts) for name, parts in done.items()}


def possible(name: str, supported: Sequence[str]) -> list[str]:
    """The operations that turn a structure into supported ones.

    >>> possible('2p', ['1p', '2p', '3p'])
    ['extend', 'prefix']
    """
    return [
        operation
        for operation, table in OPERATIONS.items()
        if name in table and all(target in supported for target in table[name])
    ]


def _keys(name: str, rows: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in canonical(name, np.asarray(rows, np.int64))]


def _new(near, name, rows, used: set, most: int | None, room: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `room` rows that are new and have answers, but not too many; `used` grows by them."""
    keys = _keys(name, rows)
    first: dict[bytes, int] = {}
    for i, key in enumerate(keys):
        if key not in used:
            first.setdefault(key, i)
    fresh = np.array(list(first.values()), np.int64)
    found = answers(near.graph, name, rows[fresh])
    counts = found.sum(1)
    good = np.flatnonzero((counts > 0) & (counts <= (most if most is not None else found.shape[1])))[:room]
    used.update(keys[i] for i in fresh[good])
    return rows[fresh[good]], found[good]


def _gathered(kept: dict[str, list], entities: int, attempts: int) -> Pool:
    queries, found = {}, {}
    for name, parts in kept.items():
        if parts:
            queries[name] = np.concatenate([rows for rows, _ in parts])
            found[name] = as_lists(np.concatenate([sets for _, sets in parts]))
    return Pool(queries, found, attempts)


def pool_rows(rows: int, fraction: float, pool: Mapping[str, np.ndarray], structures: Sequence[str]) -> dict[str, int]:
    """How many rows of a batch of these structures come from the pool: equal shares of round(fraction x rows).

    Args:
        rows: of the batch.
        fraction: of them.
        pool: structure -> queries.
        structures: those of the iterator ('path' or 'other'); without pool queries among them all rows stay seen.

    Raises:
        ValueError: a fraction outside 0 to 1.

    >>> pool_rows(16, 0.25, {'ip': np.zeros((3, 5)), 'pi': np.zeros((3, 5))}, ['2i', 'ip', 'pi'])
    {'ip': 2, 'pi': 2}
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction: found {fraction}, expected 0 to 1")
    present = [name for name in structures if len(pool.get(name, ()))]
    if not present or not fraction:
        return {}
    share, rest = divmod(round(fraction * rows), len(present))
    return {name: share + (i < rest) for i, name in enumerate(present)}
