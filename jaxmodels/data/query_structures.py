"""The shapes of logical queries (Ren & Leskovec 2020, arXiv 2010.11465), and how a query becomes a row of tokens.

A structure is a nested tuple: 'e' an anchor entity, 'r' a relation, 'n' a negation, 'u' a union. A query has the same
nesting with numbers in their place: entity and relation ids, -2 for a negation, -1 for a union. Read depth first, left
to right, it is a row of tokens. DNF (a union at the end) and DM (De Morgan: negations only) are two ways to ask for the
same union.
"""

from typing import Any

import numpy as np

from jaxmodels.rules import nearest

UNION, NEGATION = -1, -2

_1P, _2P, _3P = ("e", ("r",)), ("e", ("r", "r")), ("e", ("r", "r", "r"))
_1N, _2N = ("e", ("r", "n")), ("e", ("r", "r", "n"))

STRUCTURES: dict[str, tuple] = {
    "1p": _1P,
    "2p": _2P,
    "3p": _3P,
    "2i": (_1P, _1P),
    "3i": (_1P, _1P, _1P),
    "ip": ((_1P, _1P), ("r",)),
    "pi": (_2P, _1P),
    "2in": (_1P, _1N),
    "3in": (_1P, _1P, _1N),
    "inp": ((_1P, _1N), ("r",)),
    "pin": (_2P, _1N),
    "pni": (_2N, _1P),
    "2u-DNF": (_1P, _1P, ("u",)),
    "up-DNF": ((_1P, _1P, ("u",)), ("r",)),
    "2u-DM": ((_1N, _1N), ("n",)),
    "up-DM": ((_1N, _1N), ("n", "r")),
}
NAMES = {structure: name for name, structure in STRUCTURES.items()}


def structure_of(name: str | tuple) -> tuple:
    """The structure of a name; a structure is handed through.

    Raises:
        ValueError: no structure has that name.
    """
    if isinstance(name, tuple):
        return name
    if name not in STRUCTURES:
        raise ValueError(f"no query structure '{name}'{nearest(name, STRUCTURES)}; there are {', '.join(STRUCTURES)}")
    return STRUCTURES[name]


def letters(structure: Any) -> tuple[str, ...]:
    """The letters of a structure in the order of its tokens.

    Raises:
        ValueError: something else than nested tuples of e, r, n and u.

    >>> ' '.join(letters(STRUCTURES['up-DNF']))
    'e r e r u r'
    """
    if isinstance(structure, str):
        if structure not in ("e", "r", "n", "u"):
            raise ValueError(f"query structure: found '{structure}', expected e, r, n or u")
        return (structure,)
    if not isinstance(structure, tuple) or not structure:
        raise ValueError(f"query structure: found {structure!r}, expected a tuple")
    return tuple(letter for part in structure for letter in letters(part))


def name_of(structure: Any) -> str:
    """The name of a nested tuple.

    Raises:
        ValueError: it is none of `STRUCTURES`; names the nearest.

    >>> name_of((('e', ('r',)), ('e', ('r', 'n'))))
    '2in'
    """
    try:
        if structure in NAMES:
            return NAMES[structure]
    except TypeError:  # a list, say
        pass
    texts = {str(known): name for known, name in NAMES.items()}
    near = nearest(str(structure), texts)
    for text, name in texts.items():
        near = near.replace(f"'{text}'?", f"{name} = {text}?")
    raise ValueError(f"structure {str(structure)[:120]}: expected one of {', '.join(STRUCTURES)}{near}")


def flatten(name: str, query: Any) -> list[int]:
    """One nested query as tokens.

    Raises:
        ValueError: its nesting is not that of the structure, or it holds something but ints.

    >>> flatten('2in', ((3, (4,)), (5, (6, -2))))
    [3, 4, 5, 6, -2]
    """
    tokens: list[int] = []
    if not _flatten(STRUCTURES[name], query, tokens):
        raise ValueError(f"query {str(query)[:80]}: expected the nesting of {name}, {STRUCTURES[name]}")
    return tokens


def check_tokens(name: str | tuple, tokens: np.ndarray, *, num_entities: int, num_relations: int, where: str) -> None:
    """Whether rows of tokens (n, L) are queries of a structure.

    Raises:
        ValueError: another width, an id outside of the graph, or no mark where the structure has one.
    """
    kinds = letters(structure_of(name))
    if tokens.ndim != 2 or tokens.shape[1] != len(kinds):
        raise ValueError(f"{where}: expected (n, {len(kinds)}) tokens of {shown(name)}, found {tokens.shape}")
    ranges = {"e": (0, num_entities - 1), "r": (0, num_relations - 1), "n": (NEGATION,) * 2, "u": (UNION,) * 2}
    words = {"e": "entity", "r": "relation", "n": "negation", "u": "union"}
    for place, kind in enumerate(kinds):
        low, high = ranges[kind]
        bad = np.flatnonzero((tokens[:, place] < low) | (tokens[:, place] > high))
        if len(bad):
            found = tokens[bad[0], place]
            expected = f"{low} to {high}" if low != high else str(low)
            raise ValueError(f"{where}: query {bad[0]} has {words[kind]} {found} at {place}; expected {expected}")


def shown(structure: str | tuple) -> str:
    """Its name, or the tuple where it has none."""
    return structure if isinstance(structure, str) else NAMES.get(structure, repr(structure))


def _flatten(structure: Any, query: Any, tokens: list[Any]) -> bool:
    if type(structure) is str:
        tokens.append(query)
        return type(query) is int
    if type(query) is not tuple or len(query) != len(structure):
        return False
    return all(_flatten(part, value, tokens) for part, value in zip(structure, query, strict=True))
