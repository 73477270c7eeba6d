"""Source: a random-access sequence of examples, each a dict of NumPy arrays.

Anything with a length and an integer index is one (a list of dicts, a TFDS data source); what is built here computes
its examples when they are asked for, so a chain of `mapped` and `subset` costs nothing until it is read. Everything
here can be pickled, as worker processes need, provided that the functions given to it can.
"""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

Example = Mapping[str, Any]  # named NumPy arrays without a batch axis


@runtime_checkable
class Source(Protocol):
    """A random-access sequence of examples."""

    def __len__(self) -> int:
        """The number of examples."""
        ...

    def __getitem__(self, index: int) -> Example:
        """The example at `index`."""
        ...


class LazySource:
    """`length` examples, computed by `get(index)` on access; negative indices count from the end, as in a list."""

    def __init__(self, length: int, get: Callable[[int], Example]):
        self._range = range(length)
        self._get = get

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._range)

    def __getitem__(self, index: int) -> Example:
        """The example at `index`; IndexError past the end, so that a source can be iterated."""
        return self._get(self._range[operator.index(index)])


def array_source(arrays: Mapping[str, Any]) -> LazySource:
    """The rows of arrays that share their first axis.

    Args:
        arrays: name -> array (N, ...).

    Raises:
        ValueError: the arrays have different lengths, or there are none.

    >>> array_source({'label': [7, 8, 9]})[-1]
    {'label': np.int64(9)}
    """
    columns = {name: np.asarray(array) for name, array in arrays.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"arrays of one source: expected one common length, found {lengths}")
    return LazySource(next(iter(lengths.values())), lambda i: {name: column[i] for name, column in columns.items()})


def mapped(source: Source, function: Callable[[Example], Example]) -> LazySource:
    """The source with every example replaced by `function(example)`."""
    return LazySource(len(source), lambda i: function(source[i]))


def subset(source: Source, indices: Iterable[int]) -> LazySource:
    """The examples at `indices`, in that order.

    >>> [int(row['label']) for row in subset(array_source({'label': [5, 6, 7, 8]}), [3, 1])]
    [8, 6]
    """
    chosen = np.asarray(list(indices), np.int64)
    if len(chosen) and not (0 <= chosen.min() and chosen.max() < len(source)):
        raise ValueError(f"subset: expected indices in [0, {len(source)}), found {chosen.min()}..{chosen.max()}")
    return LazySource(len(chosen), lambda i: source[int(chosen[i])])


def concat(sources: Sequence[Source]) -> LazySource:
    """One source after the other.

    >>> both = concat([array_source({'label': [1, 2]}), array_source({'label': [3]})])
    >>> [int(row['label']) for row in both]
    [1, 2, 3]
    """
    ends = np.cumsum([0, *(len(source) for source in sources)])
    return LazySource(int(ends[-1]), functools.partial(_of_concat, tuple(sources), ends))


def _of_concat(sources: tuple[Source, ...], ends: np.ndarray, i: int) -> Example:
    which = int(np.searchsorted(ends, i, side="right")) - 1
    return sources[which][i - int(ends[which])]
