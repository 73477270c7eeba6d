"""Knowledge graphs as text files of triples, `head<TAB>relation<TAB>tail` on every line.

Conventions are those of query answering (Ren & Leskovec 2020, arXiv 2010.11465): entities and relations are numbered in
the order in which the training file names them (head before tail); triples of the other files with a name that training
lacks are dropped; the k-th relation has id 2k and its inverse id 2k + 1. Names are never read as numbers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmodels.data.graph_checks import found_file
from jaxmodels.data.tables import lines_of, table

SPLITS = ("train", "valid", "test")


class KnowledgeGraph(NamedTuple):
    """Triples by number.

    Attributes:
        entities: names; an entity's id is its place.
        relations: names; the k-th has id 2k.
        train: (E, 3) int32 of head, relation (even ids), tail, in the order of the file, without duplicates.
        valid: as train.
        test: as train.
        dropped: triples of valid and test with a name that training lacks, per split.
        duplicates: repeated lines, per split.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    dropped: dict[str, int]
    duplicates: dict[str, int]

    @property
    def num_relations(self) -> int:
        """Relations and their inverses."""
        return 2 * len(self.relations)


def read_triples(file: Path | str) -> list[tuple[str, str, str]]:
    """The lines of one file.

    Args:
        file: text, or text.gz.

    Raises:
        ValueError: a missing or unreadable file, none but empty lines, or a line without three names (its number is
            named).
    """
    found = list(_triples(Path(file)))
    if not found:
        raise ValueError(f"{file}: expected 'head<TAB>relation<TAB>tail' on every line, found no line")
    return found


def knowledge_graph(folder: Path | str) -> KnowledgeGraph:
    """train, valid and test of one folder, each as .txt or .txt.gz.

    Raises:
        ValueError: a file is missing, or a line has not three names (file and line are named).
    """
    folder = Path(folder)
    names = {}
    for split in SPLITS:
        file = found_file(folder, [f"{split}.txt", f"{split}.txt.gz"], "triples, tab-separated")
        names[split] = read_triples(file)
    return _numbered(names)


def _numbered(names: dict[str, list[tuple[str, str, str]]]) -> KnowledgeGraph:
    """Names of train get numbers in the order of their first triple; triples with others are dropped."""
    entities: dict[str, int] = {}
    relations: dict[str, int] = {}
    for head, relation, tail in names["train"]:
        entities.setdefault(head, len(entities))
        entities.setdefault(tail, len(entities))
        relations.setdefault(relation, 2 * len(relations))
    numbered, dropped, duplicates = {}, {}, {}
    for split, triples in names.items():
        known = [
            (entities[head], relations[relation], entities[tail])
            for head, relation, tail in triples
            if head in entities and relation in relations and tail in entities
        ]
        unique = list(dict.fromkeys(known))
        numbered[split] = np.array(unique, np.int32).reshape(-1, 3)
        dropped[split], duplicates[split] = len(triples) - len(known), len(known) - len(unique)
    return KnowledgeGraph(tuple(entities), tuple(relations), **numbered, dropped=dropped, duplicates=duplicates)


def divided_graph(file: Path | str, *, share: float = 0.1, seed: int = 0) -> KnowledgeGraph:
    """One file of triples, divided at random into train, valid and test.

    The first triple of every entity and relation stays in train, so that no name is without one.

    Args:
        file: text, or text.gz.
        share: of the triples that become valid, and as many test; fewer where names would be left without.
        seed: of the division.

    Raises:
        ValueError: as `read_triples`, a share outside 0 to 0.5, or a file too small to divide.
    """
    if not 0.0 < share < 0.5:
        raise ValueError(f"held_out: found {share}, expected above 0 and below 0.5")
    lines = read_triples(file)
    triples, free = list(dict.fromkeys(lines)), []
    seen: set[tuple[str, str]] = set()
    for i in np.random.default_rng(seed).permutation(len(triples)):
        head, relation, tail = triples[i]
        needed = {("entity", head), ("entity", tail), ("relation", relation)}
        if needed <= seen:
            free.append(i)
        seen |= needed
    count = min(int(share * len(triples)), len(free) // 2)
    if not count:
        raise ValueError(f"{file}: its {len(triples)} triples are too few to hold out {share:g} of them twice")
    parts = {"valid": set(free[:count]), "test": set(free[count : 2 * count])}
    parts["train"] = set(range(len(triples))) - parts["valid"] - parts["test"]
    found = _numbered({split: [triples[i] for i in sorted(part)] for split, part in parts.items()})
    return found._replace(duplicates=found.duplicates | {"train": len(lines) - len(triples)})


def with_inverses(triples: np.ndarray) -> np.ndarray:
    """The triples and, after them, those of the inverse relations: (2E, 3).

    >>> with_inverses(np.array([[7, 4, 9]])).tolist()
    [[7, 4, 9], [9, 5, 7]]
    """
    return np.concatenate([triples, np.stack([triples[:, 2], triples[:, 1] ^ 1, triples[:, 0]], axis=1)])


def numbered_triples(file: Path | str, *, num_entities: int, num_relations: int) -> np.ndarray:
    """A file of ids instead of names, as the folders of published queries have it (inverse relations included).

    Returns:
        (E, 3) int32, without duplicates, in the order of the file.

    Raises:
        ValueError: a missing file, a line that is not three ids, or an id outside of the graph.
    """
    found = table(Path(file), np.int64, columns=3)
    most = np.array([num_entities, num_relations, num_entities])
    outside = np.flatnonzero(((found < 0) | (found >= most[np.newaxis])).any(axis=1))
    if len(outside):
        row = found[outside[0]].tolist()
        expected = f"entities below {num_entities}, relations below {num_relations}"
        raise ValueError(f"{file}: triple {outside[0]} is {row}; expected {expected}")
    _, first = np.unique(found, axis=0, return_index=True)
    return found[np.sort(first)].astype(np.int32)


def _triples(file: Path) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(lines_of(file), 1):
        if not line.strip():
            continue
        match line.rstrip("\r\n").split("\t"):
            case [head, relation, tail] if head and relation and tail:
                yield head, relation, tail
            case _:
                found = line.strip()[:60].replace("\t", "<TAB>")
                raise ValueError(f"{file}:{number}: expected 'head<TAB>relation<TAB>tail', found '{found}'")
