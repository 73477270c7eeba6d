"""Graph-level data sets in the text format of GIN (Xu et al. 2019, arXiv 1810.00826), with its ten folds.

`<NAME>.txt` begins with the number of graphs; each graph is a line "n class", then for each node a line
"tag m j1 ... jm [attributes]" with its m neighbours, numbered from 0. `10fold_idx/{train,test}_idx-<1..10>.txt` list
the graphs of the folds.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxmodels.data.graph_checks import (
    categories,
    checked_features,
    checked_split,
    cut_graphs,
    degree_features,
    found_file,
    tidy_edges,
)
from jaxmodels.data.graph_files import GraphData, Split
from jaxmodels.data.tables import lines_of, table


def gin_graphs(
    folder: Path | str, *, name: str | None = None, degrees: bool | None = None, attributes: bool = False
) -> GraphData:
    """One data set; undirected, so every edge comes in both directions; self loops stay.

    Args:
        folder: holds `<NAME>.txt` and `10fold_idx/`.
        name: how the file is called; None takes the folder's name.
        degrees: one-hot degrees as features instead of one-hot tags; None does so where all nodes have the same tag.
        attributes: append the attributes to the features.

    Returns:
        the graphs, with the classes numbered in rising order of the file's and the ten folds as splits. Those have no
        validation part, and need not test every graph.

    Raises:
        ValueError: a missing file, a line that is wrong or missing (named), a graph without nodes, a neighbour that is
            none, a fold that tests what it trains on.
    """
    folder = Path(folder)
    name = name or folder.name
    file = found_file(folder, [f"{name}.txt"], "the text format of GIN")
    parsed = _Parsed()
    for numbers, line in _graphs(file):
        _read_graph(parsed, numbers, line, file)
    ends, num = np.cumsum(parsed.sizes), len(parsed.tags)
    senders, receivers, _ = tidy_edges(parsed.senders, parsed.receivers, num, str(file), reverse=True, loops=True)
    if degrees or (degrees is None and len(set(parsed.tags)) == 1):
        x = degree_features(senders, num)
    else:
        x = categories(np.array(parsed.tags, np.int64)[:, np.newaxis])
    if attributes:
        x = np.concatenate([x, _attributes(parsed.attributes, file)], axis=1)
    known, labels = np.unique(parsed.classes, return_inverse=True)
    return GraphData(
        graphs=cut_graphs(x, senders, receivers, None, ends),
        labels=labels.astype(np.int32),
        splits=_folds(folder / "10fold_idx", len(ends)),
        num_classes=len(known),
        metric="accuracy",
        description=f"{name}: {len(ends)} graphs, {num} nodes, {x.shape[1]} features, {len(senders)} directed edges",
    )


class _Parsed:
    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.classes: list[int] = []
        self.tags: list[int] = []
        self.senders: list[int] = []
        self.receivers: list[int] = []
        self.attributes: list[list[str]] = []


def _graphs(file: Path) -> Iterator[tuple[list[list[str]], int]]:
    """The lines of each graph, split at blanks, and the number of its first line."""
    lines = [line.split() for line in lines_of(file)]
    while lines and not lines[-1]:
        lines.pop()
    (count,) = _integers(lines[0] if lines else [], 1, f"{file}:1", "the number of graphs")
    at = 1
    for graph in range(count):
        if at >= len(lines):
            raise ValueError(f"{file}: ends after {graph} of {count} graphs")
        size, _ = _integers(lines[at], 2, f"{file}:{at + 1}", "'nodes class'")
        if size < 1:
            raise ValueError(f"{file}:{at + 1}: graph {graph} has {size} nodes; expected at least one")
        if at + size >= len(lines):
            raise ValueError(
                f"{file}: ends within graph {graph} of {count}, after {len(lines) - at - 1} of {size} nodes"
            )
        yield lines[at : at + size + 1], at + 1
        at += size + 1
    if at < len(lines):
        raise ValueError(f"{file}:{at + 1}: expected the end after {count} graphs")


def _read_graph(parsed: _Parsed, lines: list[list[str]], number: int, file: Path) -> None:
    size, label = (int(word) for word in lines[0])
    start = len(parsed.tags)
    for node, words in enumerate(lines[1:]):
        where = f"{file}:{number + 1 + node}"
        tag, degree = _integers(words[:2], 2, where, "'tag number-of-neighbours neighbours'")
        neighbours = _integers(words[2 : 2 + degree], degree, where, f"{degree} neighbours")
        if neighbours and not (0 <= min(neighbours) and max(neighbours) < size):
            raise ValueError(f"{where}: neighbours {min(neighbours)} to {max(neighbours)}; expected 0 to {size - 1}")
        parsed.tags.append(tag)
        parsed.senders += [start + node] * degree
        parsed.receivers += [start + other for other in neighbours]
        parsed.attributes.append(words[2 + degree :])
    parsed.sizes.append(size)
    parsed.classes.append(label)


def _integers(words: list[str], count: int, where: str, what: str) -> list[int]:
    try:
        if len(words) == count >= 0:
            return [int(word) for word in words]
    except ValueError:
        pass
    raise ValueError(f"{where}: expected {what}, found '{' '.join(words)[:60]}'")


def _attributes(rows: list[list[str]], file: Path) -> np.ndarray:
    if not rows[0] or len({len(row) for row in rows}) != 1:
        raise ValueError(f"{file}: expected as many attributes for every node, found {len(rows[0])} for the first")
    try:
        return checked_features(np.array(rows).astype(np.float64), str(file))
    except ValueError as error:
        raise ValueError(f"{file}: attributes: {error}") from None


def _folds(folder: Path, num: int) -> list[Split]:
    splits = []
    for i in range(1, 11):
        train, test = (
            table(found_file(folder, [f"{part}_idx-{i}.txt"], "the ten folds of GIN"), np.int64, columns=1)[:, 0]
            for part in ("train", "test")
        )
        splits.append(checked_split(train, [], test, num=num, where=f"{folder}: fold {i}"))
    return splits
