"""Logical queries with their answers: the published folders of pickles, and one .npz file of our own.

A split knows two graphs, a small and a large one (train: nothing and train; valid: train and train + valid; test: train
+ valid and all). `easy` answers are those on the small graph, `hard` ones those that only the large graph has; so all
answers of training queries are hard. Layouts: of the folder, Ren & Leskovec 2020 (arXiv 2010.11465); of the .npz,
`<split>/<structure>/queries` (n, L) and `easy_ptr`, `easy_idx`, `hard_ptr`, `hard_idx` beside it (training:
`answers_ptr`, `answers_idx`), with `entities`, `relations`, `n_entity` and `n_relation`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.data.graph_checks import found_file
from jaxmodels.data.query_structures import check_tokens, flatten, name_of, template
from jaxmodels.data.restricted_pickle import load_pickle
from jaxmodels.data.tables import lines_of, npz_arrays, npz_names

SPLITS = ("train", "valid", "test")


class Lists(NamedTuple):
    """n lists of entity ids end to end: list i is idx[ptr[i]:ptr[i + 1]], rising. Both int32."""

    ptr: np.ndarray
    idx: np.ndarray


class Queries(NamedTuple):
    """Queries of one structure in one split: tokens (n, L) int32 and the answers of each."""

    tokens: np.ndarray
    easy: Lists
    hard: Lists


class QueryData(NamedTuple):
    """All queries of one knowledge graph.

    Attributes:
        entities: names; an entity's id is its place.
        relations: names; the k-th has id 2k and its inverse 2k + 1.
        train: structure name -> queries, whose answers are all hard.
        valid: as train, with easy and hard answers.
        test: as valid.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    train: dict[str, Queries]
    valid: dict[str, Queries]
    test: dict[str, Queries]


def empty_lists(num: int) -> Lists:
    """`num` lists without entries."""
    return Lists(np.zeros(num + 1, np.int32), np.zeros(0, np.int32))


def read_query_folder(folder: Path | str, *, splits: Sequence[str] = SPLITS) -> QueryData:
    """The published layout: pickles of structure -> set of queries, and of query -> set of answers.

    Reads `stats.txt`, `id2ent.pkl`, `id2rel.pkl`, `<split>-queries.pkl` and `train-answers.pkl` or
    `<split>-{easy,hard}-answers.pkl`, by `load_pickle`: nothing in them runs. Queries come sorted by their tokens.

    Args:
        folder: e.g. `FB15k-237-betae`.
        splits: which to read; the others stay empty.

    Raises:
        ValueError: a missing file, one that is refused, an unknown structure (names the nearest), a query of another
            nesting, without answers, or with an id outside of the graph.
    """
    folder = Path(folder)
    num_entities, num_relations = _stats(found_file(folder, ["stats.txt"], "of the published query folders"))
    entities = _names(folder, "id2ent.pkl", num_entities)
    relations = _names(folder, "id2rel.pkl", num_relations)
    found: dict[str, dict[str, Queries]] = {split: {} for split in SPLITS}
    for split in _known(splits):
        file = found_file(folder, [f"{split}-queries.pkl"], "structure -> queries")
        kinds = ("answers",) if split == "train" else ("easy-answers", "hard-answers")
        answers = [found_file(folder, [f"{split}-{kind}.pkl"], "query -> answers") for kind in kinds]
        loaded = [(answer, _mapping(answer)) for answer in answers]
        for structure, queries in _mapping(file).items():
            try:
                name = name_of(structure)
                listed = sorted((flatten(name, query), query) for query in queries)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{file}: {error}") from None
            where = f"{file}: {name}"
            tokens = _tokens(name, [row for row, _ in listed], num_entities, num_relations, where)
            lists = [_lists(answer, [query for _, query in listed], num_entities, at) for at, answer in loaded]
            found[split][name] = _queries(tokens, lists, num_entities, where)
    return QueryData(entities, _forward(relations), **found)


def read_queries(file: Path | str, *, splits: Sequence[str] = SPLITS) -> QueryData:
    """Our own .npz.

    Args:
        file: as `write_queries` leaves it.
        splits: which to read; the others stay empty.

    Raises:
        ValueError: a missing or damaged file, an unknown structure (names the nearest), answers that do not fit the
            queries, or an id outside of the graph.
    """
    file = Path(file)
    stored = npz_names(file)
    head = npz_arrays(file, ("entities", "relations", "n_entity", "n_relation"))
    entities, relations = (tuple(str(name) for name in head[part].reshape(-1)) for part in ("entities", "relations"))
    num_entities, num_relations = len(entities), 2 * len(relations)
    if head["n_entity"] != num_entities or head["n_relation"] != num_relations:
        counts = f"n_entity={head['n_entity']}, n_relation={head['n_relation']}"
        raise ValueError(f"{file}: {counts}; expected {num_entities} and {num_relations}, as of the names")
    found: dict[str, dict[str, Queries]] = {split: {} for split in SPLITS}
    for split in _known(splits):
        names = [key.split("/")[1] for key in stored if key.startswith(f"{split}/") and key.endswith("/queries")]
        for name in names:
            where = f"{file}: {split}/{name}"
            try:
                template(name)
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from None
            parts = ("answers",) if split == "train" else ("easy", "hard")
            keys = [f"{split}/{name}/{part}_{kind}" for part in parts for kind in ("ptr", "idx")]
            queries, *arrays = npz_arrays(file, [f"{split}/{name}/queries", *keys]).values()
            tokens = _tokens(name, queries, num_entities, num_relations, where)
            lists = [
                _checked(Lists(*pair), len(tokens), num_entities, where)
                for pair in zip(arrays[::2], arrays[1::2], strict=True)
            ]
            found[split][name] = _queries(tokens, lists, num_entities, where)
    return QueryData(entities, relations, **found)


def write_queries(file: Path | str, data: QueryData) -> None:
    """Writes one .npz, which takes the place of an older one only once it is complete.

    Raises:
        ValueError: an unknown structure, ids outside of the graph, answers that do not fit, or easy answers in train.
        OSError: the file cannot be written.
    """
    file = Path(file)
    arrays: dict[str, Any] = {"entities": np.array(data.entities, str), "relations": np.array(data.relations, str)}
    num_entities, num_relations = len(data.entities), 2 * len(data.relations)
    arrays |= {"n_entity": np.int32(num_entities), "n_relation": np.int32(num_relations)}
    for split in SPLITS:
        for name, queries in getattr(data, split).items():
            where = f"{file}: {split}/{name}"
            of = f"{split}/{name}"
            tokens = _tokens(name, queries.tokens, num_entities, num_relations, where)
            easy, hard = (_checked(part, len(tokens), num_entities, where) for part in queries[1:])
            _queries(tokens, [easy, hard], num_entities, where)
            if split == "train" and len(easy.idx):
                raise ValueError(f"{where}: expected no easy answers, as training has no smaller graph")
            arrays[f"{of}/queries"] = tokens
            parts = {"answers": hard} if split == "train" else {"hard": hard, "easy": easy}
            for part, lists in parts.items():
                arrays[f"{of}/{part}_ptr"], arrays[f"{of}/{part}_idx"] = lists
    draft = file.with_name(f".{file.name}.{os.getpid()}.draft")
    try:
        with open(draft, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _known(splits: Sequence[str]) -> Sequence[str]:
    for split in splits:
        if split not in SPLITS:
            raise ValueError(f"split '{split}': expected one of {', '.join(SPLITS)}")
    return splits


def _stats(file: Path) -> tuple[int, int]:
    words = [line.split() for line in lines_of(file) if line.strip()]
    if len(words) < 2 or not all(row[-1].isdecimal() for row in words[:2]):
        raise ValueError(f"{file}: expected 'numentity: N' and 'numrelations: R' on two lines")
    return int(words[0][-1]), int(words[1][-1])


def _mapping(file: Path) -> dict[Any, Any]:
    found = load_pickle(file)
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected a dict, found {type(found).__name__}")
    return found


def _names(folder: Path, name: str, num: int) -> tuple[str, ...]:
    file = found_file(folder, [name], "id -> name")
    found = _mapping(file)
    if len(found) != num or any(type(found.get(i)) is not str for i in range(num)):
        raise ValueError(f"{file}: expected names of the ids 0 to {num - 1} of stats.txt, found {len(found)} entries")
    return tuple(found[i] for i in range(num))


def _forward(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the even ids; '+name' beside '-name' is `name`."""
    if len(names) % 2:
        raise ValueError(f"{len(names)} relations; expected an even number, as every one has an inverse")
    pairs = zip(names[::2], names[1::2], strict=True)
    return tuple(a[1:] if a[:1] == "+" and b == "-" + a[1:] else a for a, b in pairs)


def _tokens(name: str, rows: Any, num_entities: int, num_relations: int, where: str) -> np.ndarray:
    width = len(template(name))
    try:
        tokens = np.asarray(rows)
        tokens = tokens.reshape(-1, width).astype(np.int32) if not len(tokens) else tokens
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from None
    if tokens.dtype.kind not in "iu":
        raise ValueError(f"{where}: expected integer tokens, found {tokens.dtype}")
    check_tokens(name, tokens, num_entities=num_entities, num_relations=num_relations, where=where)
    return tokens.astype(np.int32)


def _lists(answers: Mapping[Any, Any], queries: list[Any], num_entities: int, file: Path) -> Lists:
    rows = []
    for query in queries:
        found = answers.get(query)
        if not isinstance(found, set | frozenset) or any(type(entity) is not int for entity in found):
            what = "no answers" if found is None else f"{str(found)[:40]}"
            raise ValueError(f"{file}: expected a set of entity ids for the query {str(query)[:80]}, found {what}")
        rows.append(np.sort(np.fromiter(found, np.int64, len(found))))
    ptr = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    idx = np.concatenate([np.zeros(0, np.int64), *rows])
    return _checked(Lists(ptr, idx), len(queries), num_entities, str(file))


def _queries(tokens: np.ndarray, lists: list[Lists], num_entities: int, where: str) -> Queries:
    """Queries with (hard,) or (easy, hard) answers."""
    easy, hard = lists if len(lists) == 2 else (empty_lists(len(tokens)), lists[0])
    keys = [np.repeat(np.arange(len(tokens)), np.diff(part.ptr)) * num_entities + part.idx for part in (easy, hard)]
    both = np.intersect1d(*keys)
    if len(both):
        query, entity = divmod(int(both[0]), num_entities)
        raise ValueError(f"{where}: query {query} has entity {entity} among both its easy and its hard answers")
    return Queries(tokens, easy, hard)


def _checked(lists: Lists, num: int, num_entities: int, where: str) -> Lists:
    ptr, idx = lists
    whole = ptr.ndim == idx.ndim == 1 and ptr.dtype.kind in "iu" and idx.dtype.kind in "iu"
    if not whole or len(ptr) != num + 1 or ptr[0] != 0 or ptr[-1] != len(idx) or (ptr[1:] < ptr[:-1]).any():
        raise ValueError(f"{where}: expected {num} lists of answers, found bounds {ptr.shape} of {idx.shape} entries")
    if len(idx) and not (0 <= idx.min() and idx.max() < num_entities):
        raise ValueError(f"{where}: answers {idx.min()} to {idx.max()}; expected entities 0 to {num_entities - 1}")
    falls = np.flatnonzero(idx[1:] <= idx[:-1]) + 1
    if len(np.setdiff1d(falls, ptr)):
        raise ValueError(f"{where}: expected rising answers of every query, without repetitions")
    if len(idx) >= 2**31:
        raise ValueError(f"{where}: {len(idx)} answers; expected fewer than 2 ** 31")
    return Lists(ptr.astype(np.int32), idx.astype(np.int32))
