"""Published queries (Ren & Leskovec 2020, arXiv 2010.11465): a folder of pickles, read without running them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels.data.graph_checks import found_file
from jaxmodels.data.query_files import (
    SPLITS,
    Lists,
    Queries,
    QueryData,
    checked_lists,
    checked_queries,
    checked_splits,
    checked_tokens,
)
from jaxmodels.data.query_structures import flatten, name_of
from jaxmodels.data.restricted_pickle import load_pickle
from jaxmodels.data.tables import lines_of


def read_query_folder(folder: Path | str, *, splits: Sequence[str] = SPLITS) -> QueryData:
    """The published layout: pickles of structure -> set of queries, and of query -> set of answers.

    Reads `stats.txt`, `id2ent.pkl`, `id2rel.pkl`, `<split>-queries.pkl` and `train-answers.pkl` or
    `<split>-{easy,hard}-answers.pkl`, by `load_pickle`: nothing in them runs. Queries come sorted by their tokens. A
    query that the easy answers lack has none, as in the published code, whose dict makes an empty set of it.

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
    if num_relations % 2:
        raise ValueError(f"{folder}: {num_relations} relations; expected an even number, as every one has an inverse")
    found: dict[str, dict[str, Queries]] = {split: {} for split in SPLITS}
    for split in checked_splits(splits):
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
            tokens = checked_tokens(name, [row for row, _ in listed], num_entities, num_relations, where)
            lists = [_lists(answer, [query for _, query in listed], num_entities, at) for at, answer in loaded]
            found[split][name] = checked_queries(tokens, lists, num_entities, where)
    return QueryData(entities, _forward(relations), **found)


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
    pairs = zip(names[::2], names[1::2], strict=True)
    return tuple(a[1:] if a[:1] == "+" and b == "-" + a[1:] else a for a, b in pairs)


def _lists(answers: Mapping[Any, Any], queries: list[Any], num_entities: int, file: Path) -> Lists:
    rows = []
    for query in queries:
        found = answers.get(query, set() if "easy" in file.name else None)
        if not isinstance(found, set | frozenset) or any(type(entity) is not int for entity in found):
            what = "no answers" if found is None else f"{str(found)[:40]}"
            raise ValueError(f"{file}: expected a set of entity ids for the query {str(query)[:80]}, found {what}")
        if found and not (0 <= min(found) and max(found) < num_entities):
            raise ValueError(f"{file}: answer {max(found)} or {min(found)}; expected entities 0 to {num_entities - 1}")
        rows.append(np.sort(np.fromiter(found, np.int64, len(found))))
    ptr = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    idx = np.concatenate([np.zeros(0, np.int64), *rows])
    return checked_lists(Lists(ptr, idx), len(queries), num_entities, str(file))
