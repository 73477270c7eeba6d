"""Logical queries with their answers, and the .npz file that they are kept in.

A split knows two graphs, a small and a large one (train: nothing and train; valid: train and train + valid; test: train
+ valid and all). `easy` answers are those on the small graph, `hard` ones those that only the large graph has; so all
answers of training queries are hard. The file holds `<split>/<structure>/queries` (n, L) and `easy_ptr`, `easy_idx`,
`hard_ptr`, `hard_idx` beside it (training: `answers_ptr`, `answers_idx`), with `entities`, `relations`, `n_entity` and
`n_relation`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.atomic import replacing
from jaxmodels.data.query_structures import check_tokens, letters, structure_of
from jaxmodels.data.tables import npz_arrays, npz_names

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
    if [head["n_entity"].tolist(), head["n_relation"].tolist()] != [num_entities, num_relations]:
        counts = f"n_entity={head['n_entity']}, n_relation={head['n_relation']}"
        raise ValueError(f"{file}: {counts}; expected {num_entities} and {num_relations}, as of the names")
    found: dict[str, dict[str, Queries]] = {split: {} for split in SPLITS}
    for split in checked_splits(splits):
        names = [key.split("/")[1] for key in stored if key.startswith(f"{split}/") and key.endswith("/queries")]
        for name in names:
            found[split][name] = _stored(file, split, name, num_entities, num_relations)
    return QueryData(entities, relations, **found)


def _stored(file: Path, split: str, name: str, num_entities: int, num_relations: int) -> Queries:
    try:
        structure_of(name)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    of, where = f"{split}/{name}", f"{file}: {split}/{name}"
    parts = ("answers",) if split == "train" else ("easy", "hard")
    keys = [f"{of}/{part}_{kind}" for part in parts for kind in ("ptr", "idx")]
    queries, *arrays = npz_arrays(file, [f"{of}/queries", *keys]).values()
    tokens = checked_tokens(name, queries, num_entities, num_relations, where)
    pairs = zip(arrays[::2], arrays[1::2], strict=True)
    lists = [checked_lists(Lists(*pair), len(tokens), num_entities, where) for pair in pairs]
    return checked_queries(tokens, lists, num_entities, where)


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
            tokens = checked_tokens(name, queries.tokens, num_entities, num_relations, where)
            easy, hard = (checked_lists(part, len(tokens), num_entities, where) for part in queries[1:])
            checked_queries(tokens, [easy, hard], num_entities, where)
            if split == "train" and len(easy.idx):
                raise ValueError(f"{where}: expected no easy answers, as training has no smaller graph")
            arrays[f"{of}/queries"] = tokens
            parts = {"answers": hard} if split == "train" else {"hard": hard, "easy": easy}
            for part, lists in parts.items():
                arrays[f"{of}/{part}_ptr"], arrays[f"{of}/{part}_idx"] = lists
    with replacing(file) as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def checked_splits(splits: Sequence[str]) -> Sequence[str]:
    """The splits, if there are such."""
    for split in splits:
        if split not in SPLITS:
            raise ValueError(f"split '{split}': expected one of {', '.join(SPLITS)}")
    return splits


def checked_tokens(name: str, rows: Any, num_entities: int, num_relations: int, where: str) -> np.ndarray:
    """Rows of tokens of one structure as (n, L) int32.

    Raises:
        ValueError: another shape or type, or an id outside of the graph.
    """
    width = len(letters(structure_of(name)))
    try:
        tokens = np.asarray(rows)
        tokens = tokens.reshape(-1, width).astype(np.int32) if not len(tokens) else tokens
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from None
    if tokens.dtype.kind not in "iu":
        raise ValueError(f"{where}: expected integer tokens, found {tokens.dtype}")
    check_tokens(name, tokens, num_entities=num_entities, num_relations=num_relations, where=where)
    return tokens.astype(np.int32)


def checked_queries(tokens: np.ndarray, lists: list[Lists], num_entities: int, where: str) -> Queries:
    """Queries with (hard,) or (easy, hard) answers.

    Raises:
        ValueError: an answer is both.
    """
    easy, hard = lists if len(lists) == 2 else (empty_lists(len(tokens)), lists[0])
    keys = [np.repeat(np.arange(len(tokens)), np.diff(part.ptr)) * num_entities + part.idx for part in (easy, hard)]
    both = np.intersect1d(*keys)
    if len(both):
        query, entity = divmod(int(both[0]), num_entities)
        raise ValueError(f"{where}: query {query} has entity {entity} among both its easy and its hard answers")
    return Queries(tokens, easy, hard)


def checked_lists(lists: Lists, num: int, num_entities: int, where: str) -> Lists:
    """`num` lists of answers as int32.

    Raises:
        ValueError: bounds that do not fit, an entity outside of the graph, or lists that do not rise.
    """
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
