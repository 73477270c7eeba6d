"""A small language of logical queries, compiled to structures and tokens.

    people.born_in(france) & ~won(nobel)

`r(q)` reads like a sentence with its subject left out: all x with (x, r, y) for some y of q, so `born_in(france)` are
those born in France. `r^-1(q)` goes along the relation: `born_in^-1(curie)` is where Curie was born. `&` is and, `|` is
or, `~` is not; `~` binds tightest, then `&`, then `|`. A name before `(` is a relation, any other an entity.

    query   = terms { "|" terms }
    terms   = factor { "&" factor }
    factor  = "~" factor | "(" query ")" | relation [ "^-1" ] "(" query ")" | entity

Names with other characters stand in quotes, '...' or "...", a quote inside doubled. Entities are written in full. A
relation in quotes too; without, the parts between its dots and slashes may be left out but for the last: people.born_in
and born_in both mean /people/person/born_in, as long as no other relation is meant as well.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.data.query_structures import NEGATION, UNION
from jaxmodels.reasoning.structures import is_chain

INVERSE = "^-1"
MANY = 100_000  # names; among more, only those with the same first letters are looked through for a near one
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<mark>\^-1|[()&|~,])|(?P<word>[^\s()&|~,'"^]+))"""
)


class QueryError(ValueError):
    """A query that cannot be read: one line, with the column and the text from there on.

    Attributes:
        text: the query.
        column: where, counted from 1.
        reason: what was found and what was expected.
    """

    def __init__(self, text: str, column: int, reason: str):
        self.text, self.column, self.reason = text, column, reason
        line = self._line()
        super().__init__(f"query, column {column}: {reason}: {line[: column - 1]}>>>{line[column - 1 :]}")

    def _line(self) -> str:
        return re.sub(r"\s", " ", self.text)

    def caret(self) -> str:
        """The query with a caret below the column, and the reason."""
        return f"{self._line()}\n{' ' * (self.column - 1)}^ {self.reason}"


class Question(NamedTuple):
    """A query ready for models and graphs.

    Attributes:
        text: as it was written.
        structure: a nested tuple.
        tokens: (1, L) int32.
    """

    text: str
    structure: tuple
    tokens: np.ndarray


class _Word(NamedTuple):
    kind: str  # name, quoted, a mark, or end
    text: str
    column: int


class _Part(NamedTuple):
    """A structure and its tokens; an entity alone has structure 'e'."""

    structure: Any
    tokens: tuple[int, ...]
    column: int


def parse(text: str, *, entities: Sequence[str], relations: Sequence[str]) -> Question:
    """Reads a query.

    Args:
        text: in the language of this module.
        entities: names; an entity's id is its place.
        relations: names; the k-th has id 2k, its inverse 2k + 1.

    Raises:
        QueryError: the text is no query, or names something unknown; one line with the column and the nearest name.

    >>> question = parse('born_in(france) & ~won(nobel)', entities=['france', 'nobel'], relations=['born_in', 'won'])
    >>> question.structure
    (('e', ('r',)), ('e', ('r', 'n')))
    >>> question.tokens.tolist()
    [[0, 1, 1, 3, -2]]
    """
    reader = _Reader(text, entities, relations)
    part = reader.either()
    reader.expect("end", "'&', '|' or the end")
    if _is_entity(part):
        raise QueryError(text, part.column, "found an entity alone, expected a relation around it, such as r(...)")
    structure = _plain(part.structure)
    return Question(text, structure, np.array([part.tokens], np.int32))


def _words(text: str) -> list[_Word]:
    words, at = [], 0
    end = len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if not found:
            at += len(text[at:]) - len(text[at:].lstrip())
            what = "a quote that does not end" if text[at] in "'\"" else f"'{text[at]}'"
            hint = f"; the inverse of a relation is {INVERSE}" if text[at] == "^" else ""
            raise QueryError(text, at + 1, f"found {what}{hint}")
        kind = str(found.lastgroup)
        word, column = found[kind], found.start(kind) + 1
        if kind == "quoted":
            word = word[1:-1].replace(word[0] * 2, word[0])
        words.append(_Word(word if kind == "mark" else kind, word, column))
        at = found.end()
    return [*words, _Word("end", "", end + 1)]


class _Reader:
    """Recursive descent over the words of one query."""

    def __init__(self, text: str, entities: Sequence[str], relations: Sequence[str]):
        self.text, self.entities, self.relations = text, entities, relations
        self.words, self.at = _words(text), 0
        if len(self.words) == 1:
            raise QueryError(text, 1, "found an empty query, expected such as relation(entity)")

    @property
    def word(self) -> _Word:
        return self.words[self.at]

    def take(self) -> _Word:
        self.at += 1
        return self.words[self.at - 1]

    def expect(self, kind: str, wanted: str) -> _Word:
        if self.word.kind != kind:
            found = "the end" if self.word.kind == "end" else f"'{self.word.text}'"
            raise QueryError(self.text, self.word.column, f"found {found}, expected {wanted}")
        return self.take()

    def either(self) -> _Part:
        return self.joined("|", self.both, _union)

    def both(self) -> _Part:
        return self.joined("&", self.factor, self.intersection)

    def joined(self, mark, below, make) -> _Part:
        parts = [below()]
        while self.word.kind == mark:
            self.take()
            parts.append(below())
        return parts[0] if len(parts) == 1 else make(parts)

    def intersection(self, parts: list[_Part]) -> _Part:
        for part in parts:
            if _is_entity(part):
                reason = "found an entity beside '&', expected a relation around it, such as r(...)"
                raise QueryError(self.text, part.column, reason)
        return _together("&", parts)

    def factor(self) -> _Part:
        if self.word.kind == "~":
            column = self.take().column
            return _not(self.factor())._replace(column=column)
        if self.word.kind == "(":
            column = self.take().column
            inside = self.either()
            self.expect(")", "'&', '|' or ')'")
            return inside._replace(column=column)
        if self.word.kind not in ("word", "quoted"):
            self.expect("word", "a name, '(' or '~'")
        name = self.take()
        if self.word.kind in ("(", INVERSE):
            return self.application(name)
        return _Part("e", (self.entity(name),), name.column)

    def application(self, name: _Word) -> _Part:
        forward = self.word.kind == INVERSE
        if forward:
            self.take()
        relation = self.relation(name)
        opened = self.expect("(", f"'(' after {INVERSE}")
        if self.word.kind == ")":
            raise QueryError(self.text, opened.column, f"{name.text} has no argument, expected one")
        inside = self.either()
        if self.word.kind == ",":
            reason = f"{name.text} has several arguments, expected one; 'or' is |, 'and' is &"
            raise QueryError(self.text, self.word.column, reason)
        self.expect(")", "'&', '|' or ')'")
        return _apply(relation if forward else relation + 1, inside)._replace(column=name.column)

    def entity(self, name: _Word) -> int:
        try:
            return self.entities.index(name.text)
        except ValueError:
            hint = near(name.text, self.entities)
            longer = (each for each in (*self.relations, *self.entities) if each.startswith(f"{name.text} "))
            if not hint and self.word.kind == "word" and (whole := next(longer, "")):
                hint = f"; names with blanks stand in quotes: '{whole}'"
            if not hint and any(_means(relation, name.text) for relation in self.relations):
                hint = f"; it is a relation, which takes an argument: {name.text}(...)"
            raise QueryError(self.text, name.column, f"no entity '{name.text}'{hint}") from None

    def relation(self, name: _Word) -> int:
        if name.text in self.relations:
            return 2 * self.relations.index(name.text)
        unquoted = name.kind == "word"
        found = [k for k, relation in enumerate(self.relations) if unquoted and _means(relation, name.text)]
        if len(found) == 1:
            return 2 * found[0]
        if found:
            known = " or ".join(f"'{self.relations[k]}'" for k in found[:3]) + (" ..." if len(found) > 3 else "")
            raise QueryError(self.text, name.column, f"'{name.text}' may be {known}, expected one of them")
        hint = near(name.text, self.relations)
        if not hint:
            last = {_segments(relation)[-1]: relation for relation in self.relations if _segments(relation)}
            close = closest(["", *_segments(name.text)][-1], last)
            hint = f"; did you mean '{last[close]}'?" if close else ""
        raise QueryError(self.text, name.column, f"no relation '{name.text}'{hint}")


def _segments(name: str) -> list[str]:
    return [part for part in re.split(r"[./]+", name) if part]


def _means(relation: str, written: str) -> bool:
    """Whether the written segments are among the relation's, in order, and the last is the last."""
    whole, parts = _segments(relation), _segments(written)
    if not parts or not whole or whole[-1] != parts[-1]:
        return False
    rest = iter(whole[:-1])
    return all(part in rest for part in parts[:-1])


def closest(name: str, known: Iterable[str]) -> str | None:
    """The most similar known name, if any is similar; upper and lower case are the same."""
    names = list(known)
    if len(names) > MANY:
        names = [each for each in names if each[:2] == name[:2]]
    lower = {each.lower(): each for each in reversed(names)}
    close = difflib.get_close_matches(name.lower(), list(lower), n=1)
    return lower[close[0]] if close else None


def near(name: str, known: Iterable[str]) -> str:
    """A hint: "; did you mean 'x'?" or nothing.

    >>> near('frnace', ['france', 'spain'])
    "; did you mean 'france'?"
    """
    close = closest(name, known)
    return f"; did you mean '{close}'?" if close else ""


# Structures -----------------------------------------------------------------------------------------------------------


def _is_entity(part: _Part) -> bool:
    """An entity, or several joined by 'or': what only a relation makes a query of."""
    return part.structure == "e" or (part.structure[0] == "|" and "e" in part.structure[1:])


def _not(part: _Part) -> _Part:
    """A chain with one 'n' more, or one less: two negations are none."""
    structure, tokens, column = part
    if structure == "e":
        return _Part(("e", ("n",)), (*tokens, NEGATION), column)
    if _is_entity(part):  # ~(a | b) = ~a & ~b
        return _together("&", [_not(each) for each in _children(part)])
    if _operators(structure) and structure[1][-1] == "n":
        shorter = structure[1][:-1]
        return _Part((structure[0], shorter) if shorter else structure[0], tokens[:-1], column)
    return _Part(_then(structure, "n"), (*tokens, NEGATION), column)


def _apply(relation: int, part: _Part) -> _Part:
    structure, tokens, column = part
    if _is_entity(part) and structure != "e":  # r(a | b) = r(a) | r(b)
        return _union([_apply(relation, each) for each in _children(part)])
    return _Part(("e", ("r",)) if structure == "e" else _then(structure, "r"), (*tokens, relation), column)


def _then(structure: tuple, letter: str) -> tuple:
    if _operators(structure):
        return structure[0], (*structure[1], letter)
    return structure, (letter,)


def _operators(structure: Any) -> bool:
    return structure != "e" and structure[0] not in ("&", "|") and is_chain(structure)


def _union(parts: list[_Part]) -> _Part:
    return _together("|", parts)


def _together(mark: str, parts: list[_Part]) -> _Part:
    """('&' or '|', children...), flat: (a & b) & c has three children."""
    flat = [each for part in parts for each in (_children(part) if part.structure[0] == mark else [part])]
    tokens = tuple(token for part in flat for token in part.tokens)
    closing = (UNION,) if mark == "|" else ()
    return _Part((mark, *(part.structure for part in flat)), tokens + closing, parts[0].column)


def _children(part: _Part) -> list[_Part]:
    """The parts that `_together` joined."""
    found, at = [], 0
    for structure in part.structure[1:]:
        size = _width(structure)
        found.append(_Part(structure, part.tokens[at : at + size], part.column))
        at += size
    return found


def _width(structure: Any) -> int:
    if structure == "e":
        return 1
    if structure[0] in ("&", "|"):
        return sum(map(_width, structure[1:])) + (structure[0] == "|")
    return _width(structure[0]) + len(structure[1])


def _plain(structure: Any) -> Any:
    """The nested tuple that models read: '&' and '|' are no letters of it."""
    if structure == "e":
        return structure
    if structure[0] == "&":
        return tuple(map(_plain, structure[1:]))
    if structure[0] == "|":
        return (*map(_plain, structure[1:]), ("u",))
    return _plain(structure[0]), structure[1]
