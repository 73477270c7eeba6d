"""Query structures: the language of multi-hop logical queries (Ren and Leskovec 2020, arXiv 2010.11465).

A structure is a nested tuple of `e` (an anchor entity), `r` (a relation), `n` (negation) and `u` (the mark of a union).
Its tokens, depth first and left to right, are a row of integers: entity and relation ids, -2 for `n`, -1 for `u`. One
recursive rule reads every structure: a node whose last tuple holds only `r` and `n` is a chain, which applies them from
left to right to an anchor or to a sub-node; any other node is the intersection of its children, or their union when
the last child is `('u',)`. Models, exact answers and rewritings are walks over that tree, so a new structure is data.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.data.query_structures import NEGATION, letters, shown, structure_of

MARK = ("u",)
PATHS = ("1p", "2p", "3p")  # the structures of the 'path' batches, which leave the intersection networks alone
NEGATED = ("2in", "3in", "inp", "pin", "pni")


class Algebra(NamedTuple):
    """What a walk does at each node; columns are (n,) token columns, values are whatever `anchor` starts with."""

    anchor: Callable[[Any], Any]
    project: Callable[[Any, Any], Any]
    negate: Callable[[Any], Any]
    intersect: Callable[[Sequence[Any]], Any]
    union: Callable[[Sequence[Any]], Any]


def is_chain(node: tuple) -> bool:
    """Whether the node applies relations and negations to its first element.

    >>> is_chain(('e', ('r',))), is_chain((('e', ('r',)), ('e', ('r',))))
    (True, False)
    """
    return isinstance(node[-1], tuple) and all(letter in ("r", "n") for letter in node[-1])


def is_union(node: tuple) -> bool:
    """Whether the node joins its children: the last one is the mark."""
    return node[-1] == MARK


def width(structure: str | tuple) -> int:
    """Tokens in a row."""
    return len(letters(structure_of(structure)))


def walk(structure: str | tuple, tokens: Any, algebra: Algebra) -> Any:
    """Evaluates all rows of one structure at once.

    Args:
        structure: a name or a structure.
        tokens: (n, L) integers; NumPy or JAX, or anything with columns.
        algebra: what each node does.

    Returns:
        What the algebra makes of the root.

    Raises:
        ValueError: rows of another length than the structure's, or a malformed structure.
    """
    check_width(structure, tokens)
    tree = structure_of(structure)
    value, _ = _visit(tree, tokens, 0, algebra)
    return value


def _visit(node: tuple, tokens: Any, at: int, algebra: Algebra) -> tuple[Any, int]:
    if is_chain(node):
        return _visit_chain(node, tokens, at, algebra)
    if any(not isinstance(child, tuple) for child in node):
        raise ValueError(f"query structure: found {node!r}, expected a chain or a tuple of nodes")
    values = []
    for child in node[:-1] if is_union(node) else node:
        value, at = _visit(child, tokens, at, algebra)
        values.append(value)
    return (algebra.union(values), at + 1) if is_union(node) else (algebra.intersect(values), at)


def _visit_chain(node: tuple, tokens: Any, at: int, algebra: Algebra) -> tuple[Any, int]:
    if len(node) != 2:
        raise ValueError(f"query structure: found {node!r}, expected a chain (start, operators)")
    if node[0] == "e":
        value, at = algebra.anchor(tokens[:, at]), at + 1
    else:
        value, at = _visit(node[0], tokens, at, algebra)
    for letter in node[1]:
        value = algebra.project(value, tokens[:, at]) if letter == "r" else algebra.negate(value)
        at += 1
    return value, at


def check_width(structure: str | tuple, tokens: Any) -> None:
    """Raises ValueError unless rows have one token per letter of the structure."""
    kinds = letters(structure_of(structure))
    if tokens.ndim != 2 or tokens.shape[1] != len(kinds):
        raise ValueError(
            f"query {shown(structure)}: found tokens of shape {tuple(tokens.shape)}, "
            f"expected (n, {len(kinds)}): {' '.join(kinds)}"
        )


class Rewritten(NamedTuple):
    """A structure and where its tokens come from: columns of the original row, or NEGATION for a new -2."""

    structure: tuple
    columns: tuple[int, ...]


def disjuncts(structure: str | tuple) -> tuple[Rewritten, ...]:
    """The disjunctive normal form: structures without unions whose answers together are those of the original.

    A relation is applied to every disjunct, an intersection takes one of each child (all combinations), and the
    negation of several disjuncts is the intersection of their negations.

    >>> [each.columns for each in disjuncts('up-DNF')]
    [(0, 1, 5), (2, 3, 5)]
    """
    found, _ = _disjuncts(structure_of(structure), 0)
    return tuple(found)


def _disjuncts(node: tuple, at: int) -> tuple[list[Rewritten], int]:
    if is_chain(node):
        if node[0] == "e":
            columns = tuple(range(at, at + 1 + len(node[1])))
            return [Rewritten(node, columns)], at + len(columns)
        found, at = _disjuncts(node[0], at)
        for letter in node[1]:
            if letter == "n" and len(found) > 1:
                found = [_together([_then(part, "n", at) for part in found])]
            else:
                found = [_then(part, letter, at) for part in found]
            at += 1
        return found, at
    parts = []
    for child in node[:-1] if is_union(node) else node:
        part, at = _disjuncts(child, at)
        parts.append(part)
    if is_union(node):
        return [one for part in parts for one in part], at + 1
    combined: list[list[Rewritten]] = [[]]
    for part in parts:
        combined = [[*before, one] for before in combined for one in part]
    return [_together(each) for each in combined], at


def _then(part: Rewritten, letter: str, column: int) -> Rewritten:
    """The part with one more operator; chains of chains are one chain."""
    node = part.structure
    longer = (node[0], (*node[1], letter)) if is_chain(node) else (node, (letter,))
    return Rewritten(longer, (*part.columns, column))


def _together(parts: Sequence[Rewritten]) -> Rewritten:
    if len(parts) == 1:
        return parts[0]
    return Rewritten(tuple(part.structure for part in parts), tuple(c for part in parts for c in part.columns))


def de_morgan(structure: str | tuple) -> Rewritten:
    """The structure with every union written as the negation of an intersection of negations.

    >>> de_morgan('2u-DNF')
    Rewritten(structure=((('e', ('r', 'n')), ('e', ('r', 'n'))), ('n',)), columns=(0, 1, -2, 2, 3, -2, -2))
    """
    found, _ = _de_morgan(structure_of(structure), 0)
    return found


def _de_morgan(node: tuple, at: int) -> tuple[Rewritten, int]:
    if is_chain(node):
        if node[0] == "e":
            columns = tuple(range(at, at + 1 + len(node[1])))
            return Rewritten(node, columns), at + len(columns)
        found, at = _de_morgan(node[0], at)
        for letter in node[1]:
            found, at = _then(found, letter, at), at + 1
        return found, at
    parts = []
    for child in node[:-1] if is_union(node) else node:
        part, at = _de_morgan(child, at)
        parts.append(part)
    if not is_union(node):
        return _together(parts), at
    return _then(_together([_then(part, "n", NEGATION) for part in parts]), "n", NEGATION), at + 1


def rewrite(tokens: Any, rewritten: Rewritten, xp: Any = np) -> Any:
    """The rows of a rewritten structure.

    Args:
        tokens: (n, L) rows of the original structure.
        rewritten: by `disjuncts` or `de_morgan`.
        xp: the module of the arrays, `numpy` or `jax.numpy`.

    >>> rewrite(np.array([[4, 0, 5, 1, -1]]), de_morgan('2u-DNF')).tolist()
    [[4, 0, -2, 5, 1, -2, -2]]
    """
    rows = xp.concatenate([tokens, xp.full_like(tokens[:, :1], NEGATION)], axis=1)
    return rows[:, np.array([tokens.shape[1] if c == NEGATION else c for c in rewritten.columns])]


def has(structure: str | tuple, letter: str) -> bool:
    """Whether a letter occurs: 'n' tells negation, 'u' union."""
    return letter in letters(structure_of(structure))


def canonical(structure: str | tuple, tokens: np.ndarray) -> np.ndarray:
    """The rows with interchangeable branches sorted, so that equal queries are equal rows.

    Siblings of one structure under an intersection or a union are interchangeable.

    >>> canonical('2i', np.array([[7, 1, 3, 2]])).tolist()
    [[3, 2, 7, 1]]
    """
    out = np.array(tokens)
    _sort(structure_of(structure), out, 0)
    return out


def _sort(node: Any, rows: np.ndarray, at: int) -> int:
    if isinstance(node, str):
        return at + 1
    spans: dict[tuple, list[int]] = {}
    for child in node:
        if isinstance(child, tuple):
            spans.setdefault(child, []).append(at)
        at = _sort(child, rows, at)
    for child, starts in spans.items():
        if len(starts) > 1:
            size = len(letters(child))
            columns = np.array([np.arange(first, first + size) for first in starts])
            blocks = rows[:, columns]  # (n, branches, tokens of a branch)
            _, rank = np.unique(blocks.reshape(-1, size), axis=0, return_inverse=True)
            order = np.argsort(rank.reshape(blocks.shape[:2]), axis=1, kind="stable")
            sorted_blocks = np.take_along_axis(blocks, order[:, :, None], axis=1)
            rows[:, columns.ravel()] = sorted_blocks.reshape(len(rows), columns.size)
    return at


def kinds(names: Mapping[str, Any] | Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Structures by the iterator they train in: (path, other).

    >>> kinds(['1p', '2i', '3p'])
    (('1p', '3p'), ('2i',))
    """
    return tuple(n for n in names if n in PATHS), tuple(n for n in names if n not in PATHS)
