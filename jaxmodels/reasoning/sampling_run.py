"""All queries of a knowledge graph: blocks drawn by several processes, put together in order, kept as they come.

Blocks are numbered and independent, and results are taken in the order of the numbers, so the queries depend neither on
the number of processes nor on interruptions. Finished blocks lie in a folder, each written under another name first.
"""

import collections
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.atomic import write_text
from jaxmodels.data.query_files import SPLITS, Lists, Queries, QueryData
from jaxmodels.data.query_structures import STRUCTURES, structure_of
from jaxmodels.data.triples import KnowledgeGraph
from jaxmodels.reasoning.graph import Answers, spans
from jaxmodels.reasoning.sampling import Block, Limits, Split, block, one_hop, split_of
from jaxmodels.weights.files import write_npz

SAMPLED = tuple(name for name in STRUCTURES if not name.endswith("-DM"))
TRAINED = ("1p", "2p", "3p", "2i", "3i", "2in", "3in", "inp", "pin", "pni")
Counts = Mapping[str, Mapping[str, int]]
Report = Callable[[str, str, int, int], None]  # split, structure, queries found, queries wanted


class Settings(NamedTuple):
    """What a block depends on, besides the triples.

    Attributes:
        seed: of all draws.
        attempts: of one block.
        limits: on answers.
        patience: a structure is given up after so many blocks without a new query.
    """

    seed: int = 0
    attempts: int = 8192
    limits: Limits = Limits()
    patience: int = 20


def default_counts(train: int, evaluation: int) -> dict[str, dict[str, int]]:
    """How many queries of each structure: a tenth for training structures with negation, all of 1p.

    ip, pi, 2u and up are never trained. -1 stands for all, which only 1p has.

    Args:
        train: of 2p, 3p, 2i and 3i each.
        evaluation: of each structure but 1p, in valid and test each.
    """
    trained = {name: -1 if name == "1p" else train // 10 if "n" in name else train for name in TRAINED}
    evaluated = {name: -1 if name == "1p" else evaluation for name in SAMPLED}
    return {"train": trained, "valid": evaluated, "test": dict(evaluated)}


def sample_queries(
    kg: KnowledgeGraph,
    counts: Counts,
    settings: Settings | None = None,
    *,
    workers: int = 1,
    parts: Path | None = None,
    report: Report | None = None,
) -> QueryData:
    """Draws queries with their exact easy and hard answers.

    Args:
        kg: triples.
        counts: split -> structure -> number of queries; fewer where the graph has no more (see `Settings.patience`).
            1p is not drawn but listed; the first ones in the order of entities are taken, -1 takes all.
        settings: of the draws.
        workers: processes; with 1 everything runs in this one.
        parts: folder for finished blocks; those of an interrupted run with equal settings are read instead of drawn.
        report: called after each block.

    Raises:
        ValueError: an unknown split or structure, a count or a number of workers that makes no sense, or a folder of
            parts that were drawn with other settings or from other triples.
    """
    settings = settings or Settings()
    _check(counts, settings, workers)
    if parts is not None:
        _open_parts(parts, kg, settings)
    found: dict[str, dict[str, Queries]] = {split: {} for split in SPLITS}
    with _Drawing(kg, settings, workers, parts) as drawing:
        for split in SPLITS:
            for name, count in counts.get(split, {}).items():
                if count:
                    found[split][name] = _collected(drawing, split, name, count, report)
    return QueryData(kg.entities, kg.relations, **found)


def _check(counts: Counts, settings: Settings, workers: int) -> None:
    if workers < 1:
        raise ValueError(f"workers: found {workers}, expected at least 1")
    for field in ("attempts", "patience"):
        if getattr(settings, field) < 1:
            raise ValueError(f"{field}: found {getattr(settings, field)}, expected at least 1")
    if settings.seed < 0:
        raise ValueError(f"seed: found {settings.seed}, expected at least 0")
    for split, wanted in counts.items():
        if split not in SPLITS:
            raise ValueError(f"counts: found split '{split}', expected {', '.join(SPLITS)}")
        for name, count in wanted.items():
            structure_of(name)
            if name not in SAMPLED:
                raise ValueError(f"counts: '{name}' is a rewriting of '{name.replace('DM', 'DNF')}', expected that one")
            if count < (-1 if name == "1p" else 0):
                raise ValueError(f"counts: found {count} queries of {name}, expected 0 or more (-1, all, for 1p only)")


def _collected(drawing: "_Drawing", split: str, name: str, count: int, report: Report | None) -> Queries:
    """The first `count` distinct queries of the blocks of one structure."""
    kept: list[Block] = []
    seen = np.zeros(0, np.uint64)
    total = idle = 0

    def missing() -> int:
        return count - total

    for drawn in drawing.blocks(split, name, missing):
        new = np.flatnonzero(~np.isin(drawn.keys, seen))
        new = new if count < 0 else new[: missing()]
        seen = np.concatenate([seen, drawn.keys[new]])
        kept.append(_taken(drawn, new))
        total += len(new)
        idle = 0 if len(new) else idle + 1
        if report:
            report(split, name, total, count)
        if total == count or idle == drawing.settings.patience:
            break
    return Queries(
        np.concatenate([part.tokens for part in kept]), *(_joined([part[i] for part in kept]) for i in (1, 2))
    )


def _taken(drawn: Block, rows: np.ndarray) -> Block:
    easy, hard = (_chosen(answers, rows) for answers in (drawn.easy, drawn.hard))
    return Block(drawn.tokens[rows], easy, hard, drawn.keys[rows], drawn.drawn)


def _chosen(answers: Answers, rows: np.ndarray) -> Answers:
    length = answers.counts[rows]
    return Answers(np.append(0, np.cumsum(length)), answers.values[spans(answers.starts[rows], length)])


def _joined(parts: list[Answers]) -> Lists:
    counts = np.concatenate([part.counts for part in parts])
    values = np.concatenate([part.values for part in parts]).astype(np.int32)
    if len(values) >= 2**31:
        raise ValueError(f"queries: have {len(values)} answers, expected fewer than 2 ** 31; lower a limit on answers")
    return Lists(np.append(0, np.cumsum(counts)).astype(np.int32), values)


# Blocks ---------------------------------------------------------------------------------------------------------------


class _Drawing:
    """Blocks in the order of their numbers: from parts, from this process, or from others a few blocks ahead.

    Until the others have started, which takes seconds, this process draws.
    """

    def __init__(self, kg: KnowledgeGraph, settings: Settings, workers: int, parts: Path | None):
        self.settings, self.parts, self.workers = settings, parts, workers
        self._own = _Source(kg, settings)
        self._pool: ProcessPoolExecutor | None = None
        if workers > 1:
            spawned = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, spawned, initializer=_prepare, initargs=(kg, settings))
            self._started = self._pool.submit(_ready)

    def __enter__(self) -> "_Drawing":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def blocks(self, split: str, name: str, missing: Callable[[], int]) -> Iterator[Block]:
        """Endless, but for 1p, which is one block.

        Args:
            split: train, valid or test.
            name: of a structure.
            missing: how many queries are still wanted, asked before each block.
        """
        ahead: collections.deque[Future | None] = collections.deque()
        found, number = 0, 0
        try:
            while name != "1p" or not number:
                likely = -(-missing() * number // max(found, 1)) if number else 1
                while self._pool and self._started.done() and len(ahead) < min(2 * self.workers, likely):
                    ahead.append(self._submit(split, name, number + len(ahead)))
                drawn = self._next(split, name, number, ahead.popleft() if ahead else None)
                found, number = found + len(drawn.tokens), number + 1
                yield drawn
        finally:
            for future in ahead:
                if future:
                    future.cancel()

    def _submit(self, split: str, name: str, number: int) -> Future | None:
        file = self._part(split, name, number)
        return None if self._pool is None or (file and file.exists()) else self._pool.submit(_draw, split, name, number)

    def _next(self, split: str, name: str, number: int, future: Future | None) -> Block:
        file = self._part(split, name, number)
        if file and file.exists():
            return _read(file)
        drawn = future.result() if future else self._own.draw(split, name, number)
        if file:
            _write(file, drawn)
        return drawn

    def _part(self, split: str, name: str, number: int) -> Path | None:
        return self.parts / f"{split}-{name}-{number:06d}.npz" if self.parts else None


class _Source:
    """Draws blocks; splits are prepared when first needed."""

    def __init__(self, kg: KnowledgeGraph, settings: Settings):
        self.kg, self.settings = kg, settings
        self._splits: dict[str, Split] = {}

    def draw(self, split: str, name: str, number: int) -> Block:
        if split not in self._splits:
            self._splits = {split: split_of(self.kg, split)}  # one at a time: they are drawn one after the other
        prepared, chosen = self._splits[split], self.settings
        if name == "1p":
            return one_hop(prepared, limits=chosen.limits)
        return block(prepared, name, seed=chosen.seed, number=number, attempts=chosen.attempts, limits=chosen.limits)


_SOURCE: list[_Source] = []  # of a worker process


def _prepare(kg: KnowledgeGraph, settings: Settings) -> None:
    _SOURCE[:] = [_Source(kg, settings)]


def _ready() -> None:
    """Done once a process has started."""


def _draw(split: str, name: str, number: int) -> Block:
    return _SOURCE[0].draw(split, name, number)


# Parts ----------------------------------------------------------------------------------------------------------------


def _open_parts(folder: Path, kg: KnowledgeGraph, settings: Settings) -> None:
    """Makes the folder, or checks that what is in it was drawn with these settings from these triples."""
    digest = hashlib.sha256()
    for triples in (kg.train, kg.valid, kg.test):
        digest.update(np.ascontiguousarray(triples, np.int32).tobytes() + b"|")
    settled = {"seed": settings.seed, "attempts": settings.attempts, **settings.limits._asdict()}
    wanted = {**settled, "triples": digest.hexdigest()}
    file = folder / "settings.json"
    folder.mkdir(parents=True, exist_ok=True)
    if file.exists():
        try:
            found = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}: {error}") from None
        for key, value in wanted.items():
            if found.get(key) != value:
                raise ValueError(
                    f"{file}: {key} is {found.get(key)}, expected {value}; remove the folder to begin anew"
                )
        return
    write_text(file, json.dumps(wanted, indent=1) + "\n")


def remove_parts(folder: Path) -> None:
    """Deletes a folder of parts, if it is one."""
    if (folder / "settings.json").exists():
        shutil.rmtree(folder)


def _write(file: Path, drawn: Block) -> None:
    arrays: dict[str, Any] = {"tokens": drawn.tokens, "keys": drawn.keys, "drawn": np.int64(drawn.drawn)}
    for part in ("easy", "hard"):
        arrays[f"{part}_ptr"], arrays[f"{part}_idx"] = getattr(drawn, part)
    write_npz(file, arrays)


def _read(file: Path) -> Block:
    with np.load(file, allow_pickle=False) as stored:
        easy, hard = (Answers(stored[f"{part}_ptr"], stored[f"{part}_idx"]) for part in ("easy", "hard"))
        return Block(stored["tokens"], easy, hard, stored["keys"], int(stored["drawn"]))
