"""Readers of rating tables: MovieLens as GroupLens ships it, and any `user item [rating] [time]` text file.

What becomes an interaction follows the conversion of the published experiments: ratings from some value on (4 for
MovieLens), users with at least five items, which are numbered anew.
"""

import csv
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmodels.data.interactions import FEWEST, Listed, checked_id, of_lists
from jaxmodels.data.tables import lines_of
from jaxmodels.rules import nearest

LEAST = 4.0  # rating from which MovieLens counts as liked
COLUMNS = ("user", "item", "rating", "time")
NAMES = {  # what headers call the columns, in lower case without blanks, hyphens and underscores
    "user": ("user", "userid", "uid", "reviewerid"),
    "item": ("item", "itemid", "iid", "movieid", "movie", "productid", "asin", "isbn"),
    "rating": ("rating", "score", "stars", "overall", "preference", "bookrating"),
    "time": ("time", "timestamp", "date", "unixreviewtime", "ts"),
}
FILLERS = str.maketrans("", "", "_- ")
QUOTED = re.compile(r'"[^"]*"')
OF_NAME = {name: column for column, names in NAMES.items() for name in names}


class Ratings(NamedTuple):
    """The rows of a table.

    Attributes:
        users: ids as in the file: integers, or texts where any is no integer.
        items: the same.
        ratings: numbers, None without the column.
        times: numbers, None without the column.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray | None
    times: np.ndarray | None


def read_ratings(file: Path | str) -> Ratings:
    """A text file (or .gz) with a row per rating: user, item, and where there are such, rating and time.

    Columns are separated by `::`, tabs, commas, semicolons or blanks, whichever the first line has (of commas and
    semicolons the more frequent). Cells may be quoted as in csv. A first line with names of columns says where each one
    is; without it they stand in this order.

    Raises:
        ValueError: names the file and the line: no rows, a missing column, more cells than the first line has, a quote
            without its end, a rating or time that is no number.
    """
    file = Path(file)
    lines: Iterator[tuple[int, str]] = ((i, line) for i, line in enumerate(lines_of(file), 1) if line.strip())
    first = next(lines, None)
    if first is None:
        raise ValueError(f"{file}: is empty, expected rows of user, item[, rating][, time]")
    separator = _separator(first[1])
    head = _cells(file, *first, separator)
    places = _header(file, head)
    if places is None:
        places = {name: i for i, name in enumerate(COLUMNS[: len(head)])}
        if len(places) < 2:
            raise ValueError(f"{file}:{first[0]}: found one column, expected user, item[, rating][, time]")
        lines = itertools.chain([first], lines)
    width, found = max(places.values()) + 1, {name: list[str]() for name in places}
    numbers = []
    for number, line in lines:
        cells = _cells(file, number, line, separator)
        if len(cells) < width or not (cells[places["user"]] and cells[places["item"]]):
            raise ValueError(f"{file}:{number}: expected {', '.join(places)}, found '{line.strip()[:60]}'")
        if any(cells[len(head) :]):  # of an unquoted title with commas, all that follows would be misread
            raise ValueError(f"{file}:{number}: found {len(cells)} cells, expected {len(head)}: '{line.strip()[:60]}'")
        numbers.append(number)
        for name, place in places.items():
            found[name].append(cells[place])
    if not numbers:
        raise ValueError(f"{file}: holds a header and no row")
    values = {name: _numbers(file, numbers, name, found[name]) for name in ("rating", "time") if name in found}
    return Ratings(_ids(found["user"]), _ids(found["item"]), values.get("rating"), values.get("time"))


def listed(
    ratings: Ratings, *, least: float | None = None, fewest: int = FEWEST, raw_items: bool = False, name: str = "data"
) -> Listed:
    """Interactions from ratings; of a pair that is rated several times the newest (else the last) row counts.

    Args:
        ratings: rows.
        least: rating from which a row counts; None takes all.
        fewest: items that a user needs.
        raw_items: items keep the numbers of the file, as published for MovieLens 100k and 1M, so that some (such as 0)
            belong to nothing; else they are numbered in the order of their ids.
        name: of the data, for messages.

    Raises:
        ValueError: no user has enough items, `least` without ratings, `raw_items` for ids that are no numbers from 0.
    """
    if least is not None and ratings.ratings is None:
        raise ValueError(f"{name}: found no column of ratings, expected one: rows count from a rating of {least:g}")
    people, user = np.unique(ratings.users, return_inverse=True)
    things, item = np.unique(ratings.items, return_inverse=True)
    order = np.arange(len(user)) if ratings.times is None else np.argsort(ratings.times, kind="stable")
    pair = (user.astype(np.int64) * len(things) + item)[order]
    _, last = np.unique(pair[::-1], return_index=True)
    rows = order[len(pair) - 1 - last]  # ascending by user, then by item
    if least is not None and ratings.ratings is not None:
        rows = rows[ratings.ratings[rows] >= least]
    held = np.bincount(user[rows], minlength=len(people))
    rows = rows[held[user[rows]] >= fewest]
    if not len(rows):
        rated = "" if least is None else f" with ratings from {least:g}"
        raise ValueError(f"{name}: no user has {fewest} items or more{rated}")
    kept = np.flatnonzero(held >= fewest)
    if raw_items:
        if things.dtype.kind != "i":
            raise ValueError(f"{name}: found item '{things[0]}', expected item ids that are numbers from 0")
        for end in (things[0], things[-1]):
            checked_id(int(end), name)
        own, ids = things[item[rows]], None
        number = int(own.max()) + 1
    else:
        used, own = np.unique(item[rows], return_inverse=True)
        ids, number = things[used], len(used)
    starts = np.concatenate([[0], np.cumsum(held[kept])])
    data = of_lists(np.split(own, starts[1:-1]), number)
    return Listed(data, people[kept], ids, None if ratings.times is None else ratings.times[rows])


def _separator(line: str) -> str | None:
    bare = QUOTED.sub("", line)
    for mark in ("::", "\t", *sorted((",", ";"), key=bare.count, reverse=True)):
        if mark in bare:
            return mark
    return None


def _cells(file: Path, number: int, line: str, separator: str | None) -> list[str]:
    line = line.strip("\r\n")
    if '"' not in line or separator == "::":
        return [cell.strip() for cell in line.split(separator)]
    try:
        row = next(csv.reader([line], delimiter=separator or " ", skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f"{file}:{number}: {error}: '{line.strip()[:60]}'") from None
    return [cell.strip() for cell in row]


def _header(file: Path, cells: list[str]) -> dict[str, int] | None:
    """Place of each column where the first line names them, else None."""
    # RecBole's files add the type to a name, as in user_id:token.
    words = [cell.lower().partition(":")[0].translate(FILLERS) for cell in cells]
    places = {OF_NAME[word]: i for i, word in reversed(list(enumerate(words))) if word in OF_NAME}
    if not places:
        return None
    for column in ("user", "item"):
        if column not in places:
            hint = next((nearest(word, NAMES[column]) for word in words if nearest(word, NAMES[column])), "")
            raise ValueError(f"{file}: found columns {', '.join(cells)}, expected one named '{column}'{hint}")
    return {column: places[column] for column in COLUMNS if column in places}


def _ids(texts: list[str]) -> np.ndarray:
    try:
        return np.array(texts, np.int64)
    except (ValueError, OverflowError):
        return np.array(texts, str)


def _numbers(file: Path, lines: list[int], column: str, texts: list[str]) -> np.ndarray:
    try:
        found = np.array(texts, np.float64)
    except ValueError:
        found = np.array([_number(text) for text in texts])
    if len(wrong := np.flatnonzero(~np.isfinite(found))):
        at = wrong[0]
        raise ValueError(f"{file}:{lines[at]}: {column} is '{texts[at][:40]}', expected a number")
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
