"""Numbers in text files, plain or gzipped, and arrays in .npz files: read fast, complained about by line."""

import contextlib
import gzip
import io
import itertools
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels.rules import nearest

BLANK = re.compile(r"(?:(?<=,)|^)\s*(?=,|$)")


def lines_of(file: Path) -> Iterator[str]:
    """The lines of a text file, unzipped where its name ends in .gz.

    Raises:
        ValueError: the file is missing, truncated, or no UTF-8 text.
    """
    try:
        with _opened(file) as stream:
            yield from stream
    except FileNotFoundError:
        raise ValueError(f"{file}: found no such file") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file}: expected UTF-8 text") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{file}: expected a complete gzip file: {error}") from None


def _opened(file: Path) -> io.TextIOWrapper:
    if file.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(file), encoding="utf-8-sig")
    return open(file, encoding="utf-8-sig")  # a byte-order mark is no part of the first name


def table(file: Path, dtype: Any, *, columns: int | None = None, blank_is_nan: bool = False) -> np.ndarray:
    """A table of numbers, separated by commas or blanks; empty lines are skipped.

    Args:
        file: text, or text.gz.
        dtype: of all numbers.
        columns: how many every line has; None takes those of the first.
        blank_is_nan: nothing between two commas is NaN.

    Returns:
        (rows, columns).

    Raises:
        ValueError: a missing or unreadable file; names the line that is no row of so many numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy reads 1.5 as the integer 1, with a warning
            rows = _loaded(file, dtype, blank_is_nan)
        if columns is None or not len(rows) or columns == rows.shape[1]:
            return rows if len(rows) else np.zeros((0, columns or 0), dtype)
        reason = f"{rows.shape[1]} columns"
    except (ValueError, OverflowError, DeprecationWarning) as error:
        if str(error).startswith(f"{file}:"):
            raise
        reason = " ".join(str(error).split())
    raise _complaint(file, dtype, columns, blank_is_nan) or ValueError(f"{file}: {reason}")


def _loaded(file: Path, dtype: Any, blank_is_nan: bool) -> np.ndarray:
    lines = (_cells(line, blank_is_nan) for line in lines_of(file))
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        return np.zeros((0, 0), dtype)
    return np.loadtxt(itertools.chain([first], lines), dtype, comments=None, ndmin=2)


def _cells(line: str, blank_is_nan: bool) -> str:
    if blank_is_nan and line.strip():
        line = BLANK.sub("nan", line.strip())
    return line.replace(",", " ")


def _complaint(file: Path, dtype: Any, columns: int | None, blank_is_nan: bool) -> ValueError | None:
    """What is wrong with the first line that is wrong."""
    kind, number_of = ("integers", int) if np.dtype(dtype).kind in "iu" else ("numbers", float)
    for number, line in enumerate(lines_of(file), 1):
        parts = _cells(line, blank_is_nan).split()
        columns = len(parts) if columns is None and parts else columns
        try:
            right = len([number_of(part) for part in parts]) in (0, columns)
        except ValueError:
            right = False
        if not right:
            return ValueError(f"{file}:{number}: expected {columns} {kind}, found '{line.strip()[:60]}'")
    return None


def npz_names(file: Path) -> list[str]:
    """The names of the arrays in one .npz file.

    Raises:
        ValueError: the file is missing or no .npz.
    """
    with _npz(file) as stored:
        return list(stored.files)


def npz_arrays(file: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of one .npz file, by name and in the order of the names; never unpickles.

    Raises:
        ValueError: the file is missing, damaged or no .npz, lacks a name, or holds objects under it.
    """
    with _npz(file) as stored:
        for name in names:
            if name not in stored.files:
                known = stored.files
                raise ValueError(f"no array '{name}'{nearest(name, known)} found {', '.join(known)[:120]}")
        return {name: stored[name] for name in names}


@contextlib.contextmanager
def _npz(file: Path) -> Iterator[Any]:
    try:
        with open(file, "rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("one bare array")
            with stored:
                yield stored
    except FileNotFoundError:
        raise ValueError(f"{file}: found no such file; expected an .npz file") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file}: expected an .npz file of plain arrays: {' '.join(str(error).split())}") from None
