"""Comparing what we compute with what a fixture holds: one `Quantity` per compared array or group of arrays."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Quantity(NamedTuple):
    """One comparison: `error` is the worst deviation in the fixture's own measure, `limit` its tolerance."""

    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        return bool(self.error <= self.limit)  # NaN fails


Checker = Callable[[Path], list[Quantity]]  # one fixture file -> what was compared
Checkers = tuple[tuple[str, Checker], ...]  # (glob over the file's name, checker); the first match decides


def absolute(name: str, found, expected, limit: float) -> Quantity:
    """Largest absolute deviation; shapes must agree."""
    return Quantity(name, _deviation(found, expected), limit)


def relative(name: str, found, expected, limit: float, floor: float = 0.0) -> Quantity:
    """Largest absolute deviation divided by the largest expected magnitude (at least `floor`)."""
    scale = max(float(np.abs(np.asarray(expected, np.float64)).max(initial=0.0)), floor)
    deviation = _deviation(found, expected)
    return Quantity(name, deviation / scale if scale else deviation, limit)


def exact(name: str, found, expected) -> Quantity:
    """Bitwise equal values."""
    return absolute(name, found, expected, 0.0)


def relative_all(name: str, found: Mapping, expected: Mapping, limit: float, floor: float = 0.0) -> Quantity:
    """`relative` over arrays of the same keys; the worst one is reported under its own name."""
    if set(found) != set(expected):
        difference = sorted(map(str, set(found) ^ set(expected)))
        return Quantity(f"{name}: keys differ: {', '.join(difference[:4])}", float("nan"), limit)
    each = [relative(f"{name}:{key}", found[key], expected[key], limit, floor) for key in sorted(expected)]
    return max(each, key=lambda q: float("inf") if np.isnan(q.error) else q.error)


def _deviation(found, expected) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return float("nan")
    if found.dtype.kind in "US" or expected.dtype.kind in "US":
        return 0.0 if (found == expected).all() else float("nan")
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    both_nan = np.isnan(found.astype(np.float64)) & np.isnan(expected.astype(np.float64))
    return float(np.where(both_nan, 0.0, difference).max(initial=0.0))


def read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file."""
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose name starts with `prefix`, without it."""
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}


def close(name: str, found, expected, rtol: float, atol: float = 1e-12) -> Quantity:
    """|found - expected| <= atol + rtol |expected|, entry by entry; the error is the worst excess, in units of rtol."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return Quantity(f"{name}: shape {found.shape}, expected {expected.shape}", float("nan"), rtol)
    return Quantity(name, float((np.abs(found - expected) / (atol / rtol + np.abs(expected))).max(initial=0.0)), rtol)
