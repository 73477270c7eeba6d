"""Data sets whose objects have several views: MATLAB cells, .npz arrays, or a folder of tables with missing rows."""

import csv
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
import scipy.sparse
from scipy.io.matlab import MatReadError

from jaxmodels.data.tables import lines_of, npz_arrays, npz_names
from jaxmodels.data.view_outliers import check_views

LABELS = "labels.csv"


class ViewData(NamedTuple):
    """Objects with views.

    Attributes:
        views: per view (N, D) float64; rows of objects that lack it are zeros.
        classes: (N,) indices into `labels`, or None where the data have none.
        mask: (N, V) int32, 1 where an object has a view.
        ids: names of the objects; their numbers unless the data name them.
        names: of the views.
        name: of the data set.
        labels: what the data call their classes, ascending.
    """

    views: tuple[np.ndarray, ...]
    classes: np.ndarray | None
    mask: np.ndarray
    ids: tuple[str, ...]
    names: tuple[str, ...]
    name: str
    labels: tuple[str, ...] = ()


def read_views(path: Path | str) -> ViewData:
    """A data set by the look of its path: a .mat, a .npz, or a folder of .csv files.

    Raises:
        ValueError: no such path, none of the three, or wrong content; one line that names the file.
    """
    path = Path(path)
    if path.is_dir():
        return csv_views(path)
    readers = {".mat": mat_views, ".npz": npz_views}
    if path.suffix not in readers:
        raise ValueError(f"{path}: expected a .mat, a .npz or a folder of .csv files")
    return readers[path.suffix](path)


def mat_views(file: Path | str) -> ViewData:
    """A MATLAB file up to version 7: a cell X of (N, D) matrices, or X1, X2, ...; classes Y and `mask` if there.

    Raises:
        ValueError: a missing, damaged or newer file, other names, or views of different lengths.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"{file}: found no such file")
    try:
        found = scipy.io.loadmat(file)
    except NotImplementedError:
        raise ValueError(f"{file}: found MATLAB 7.3 (HDF5), expected an older version: save it with -v7") from None
    except (ValueError, TypeError, KeyError, OSError, EOFError, MatReadError, zlib.error) as error:
        raise ValueError(f"{file}: expected a MATLAB file: {' '.join(str(error).split())[:120]}") from None
    if "X" in found and found["X"].dtype == object:
        parts = list(found["X"].ravel())
    else:
        parts = _numbered(file, found, ("X{}",), 1)
    if not parts:
        names = ", ".join(name for name in found if not name.startswith("__"))
        raise ValueError(f"{file}: found {names or 'nothing'}, expected a cell X of views, or X1, X2, ...")
    return _checked(file, [_dense(file, v, x) for v, x in enumerate(parts)], found.get("Y"), found.get("mask"))


def npz_views(file: Path | str) -> ViewData:
    """A .npz of view_0, view_1, ... (or X1, X2, ...), each (N, D); `labels` (or Y) and `mask` (N, V) if there.

    Without a mask a row that is all NaN is a missing one. Nothing is unpickled.

    Raises:
        ValueError: a missing or damaged file, other names, or arrays that do not fit.
    """
    file = Path(file)
    found = npz_arrays(file, npz_names(file))
    parts = _numbered(file, found, ("view_{}",), 0) or _numbered(file, found, ("X{}",), 1)
    if not parts:
        raise ValueError(f"{file}: found {', '.join(found)[:120]}, expected view_0, view_1, ...")
    classes = found.get("labels", found.get("Y"))
    return _checked(file, [_dense(file, v, x) for v, x in enumerate(parts)], classes, found.get("mask"))


def csv_views(folder: Path | str) -> ViewData:
    """A folder with one .csv per view, in the order of their names, and maybe labels.csv.

    Where the first column is headed `id`, objects are known by it, and a view's file leaves out the objects that lack
    it. Otherwise all files have a row per object, and an empty row (or one of NaN) stands for a missing view. A first
    row with a word in it is a header. labels.csv holds one class per object, a number or a name, with the same
    id column or without one.

    Raises:
        ValueError: no .csv files, an empty one, cells that are no numbers, an id twice or without a view, or files of
            different lengths; one line that names file and line.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.glob("*.csv") if path.name != LABELS)
    if not files:
        raise ValueError(f"{folder}: found no .csv files, expected one per view")
    tables = [_table(file) for file in files]
    named = [ids is not None for ids, _ in tables]
    if any(named) and not all(named):
        missing = files[named.index(False)]
        raise ValueError(f"{missing}: found no column `id`, expected one as in {files[named.index(True)].name}")
    if all(named):
        ids = list(dict.fromkeys(name for found, _ in tables for name in found or ()))
    else:
        ids = [str(i) for i in range(len(tables[0][1]))]
    place = {name: i for i, name in enumerate(ids)}
    views = []
    for file, (own, rows) in zip(files, tables, strict=True):
        if own is None and len(rows) != len(ids):
            raise ValueError(f"{file}: found {len(rows)} rows, expected {len(ids)} as in {files[0].name}")
        x = np.full((len(ids), rows.shape[1]), np.nan)
        x[np.arange(len(ids)) if own is None else [place[name] for name in own]] = rows
        views.append(x)
    classes = _classes(folder / LABELS, ids, all(named)) if (folder / LABELS).exists() else None
    data = _checked(folder, views, classes, None)
    return data._replace(ids=tuple(ids), names=tuple(file.stem for file in files))


def _numbered(file: Path, found: Mapping[str, Any], patterns: Sequence[str], first: int) -> list[np.ndarray]:
    """The arrays of a pattern, in the order of their numbers."""
    for pattern in patterns:
        names = [name for name in found if re.fullmatch(pattern.format(r"\d+"), name)]
        expected = [pattern.format(first + v) for v in range(len(names))]
        if lost := sorted(set(expected) - set(names)):
            raise ValueError(f"{file}: found {', '.join(sorted(names))}, expected {lost[0]} too")
        if names:
            return [found[name] for name in expected]
    return []


def _dense(file: Path, v: int, x: Any) -> np.ndarray:
    x = x.toarray() if scipy.sparse.issparse(x) else np.asarray(x)
    if x.dtype.kind not in "biuf" or x.ndim != 2 or not x.size:
        raise ValueError(f"{file}: view {v}: found {x.dtype} {x.shape}, expected numbers (objects, features)")
    return x.astype(np.float64)  # integers would wrap as soon as they are scaled


def _checked(file: Path, views: list[np.ndarray], classes: np.ndarray | None, mask: np.ndarray | None) -> ViewData:
    if classes is not None:
        classes = np.asarray(classes).ravel()
        if classes.dtype.kind not in "biufUS" or (classes.dtype.kind == "f" and not np.isfinite(classes).all()):
            raise ValueError(
                f"{file}: found classes of type {classes.dtype}, expected numbers or names, one per object"
            )
    objects = len(views[0]) if classes is None else len(classes)
    if mask is None:
        mask = np.stack([~np.isnan(x).all(1) if len(x) == objects else np.ones(objects) for x in views], 1)
    mask = np.asarray(mask)
    try:
        if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
            raise ValueError("mask: expected zeros and ones")
        check_views(views, mask, objects)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    mask = mask.astype(np.int32)
    views = [np.where(mask[:, v : v + 1] > 0, x, 0.0) for v, x in enumerate(views)]
    labels, numbers = (np.array([]), None) if classes is None else np.unique(classes, return_inverse=True)
    names = tuple(f"view {v}" for v in range(len(views)))
    ids = tuple(map(str, range(objects)))
    return ViewData(tuple(views), numbers, mask, ids, names, file.stem, tuple(map(str, labels)))


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    """Cells by line number; an empty line is a row without cells."""
    try:
        found = [(i, [c.strip() for c in row]) for i, row in enumerate(csv.reader(lines_of(file), strict=True), 1)]
    except csv.Error as error:
        raise ValueError(f"{file}: {error}") from None
    if not any(any(row) for _, row in found):
        raise ValueError(f"{file}: found no rows, expected one per object")
    return found


def _table(file: Path) -> tuple[list[str] | None, np.ndarray]:
    rows = _rows(file)
    head = rows[0][1]
    named = bool(head) and head[0].lower() == "id"
    if named or any(cell and not _readable(cell) for cell in head):
        rows = rows[1:]
    width = max((len(row) for _, row in rows), default=0)
    if not rows or width < 1 + named:
        raise ValueError(f"{file}: found no rows of numbers below the header, expected one per object")
    lines: dict[str, int] = {}
    x = np.full((len(rows), width - named), np.nan)
    kept = []
    for k, (line, row) in enumerate(rows):
        if named and not any(row):
            continue  # a blank line is nobody
        if named and lines.setdefault(row[0], line) != line:
            raise ValueError(f"{file}:{line}: id '{row[0]}' stands in line {lines[row[0]]} already")
        kept.append(k)
        cells = row[named:]
        if not any(cells) or all(cell.lower() == "nan" for cell in cells):
            continue
        if len(row) != width or not all(map(_number, cells)):
            wrong = next((cell for cell in cells if not _number(cell)), f"{len(cells)} cells")
            raise ValueError(f"{file}:{line}: found '{wrong}', expected {width - named} numbers, or an empty row")
        x[k] = [float(cell) for cell in cells]
    return (list(lines) if named else None), x[kept]


def _number(cell: str) -> bool:
    return _readable(cell) and bool(np.isfinite(float(cell)))


def _readable(cell: str) -> bool:
    """Whether a cell is a number, NaN and infinity too."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _classes(file: Path, ids: list[str], named: bool) -> np.ndarray:
    rows = [(line, row) for line, row in _rows(file) if any(row)]
    width = 1 + named
    if rows[0][1][0].lower() in ("id", "label", "class") and len(rows) > (0 if named else len(ids)):
        rows = rows[1:]
    lines: dict[str, int] = {}
    for line, row in rows:
        if len(row) != width or not row[-1]:
            found = f"{len(row)} cells" if len(row) != width else "an empty label"
            raise ValueError(f"{file}:{line}: found {found}, expected {'id,label' if named else 'one label'}")
        if named and lines.setdefault(row[0], line) != line:
            raise ValueError(f"{file}:{line}: id '{row[0]}' stands in line {lines[row[0]]} already")
    if not named:
        if len(rows) != len(ids):
            raise ValueError(f"{file}: found {len(rows)} labels, expected {len(ids)}")
        return np.array([row[0] for _, row in rows])
    labels = {row[0]: row[1] for _, row in rows}
    lost = [name for name in ids if name not in labels]
    if lost:
        raise ValueError(f"{file}: found no label of id '{lost[0]}', expected one per object")
    return np.array([labels[name] for name in ids])
