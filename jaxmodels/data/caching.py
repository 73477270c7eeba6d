"""Caching: what is costly to read (decoded, resized images) is computed once and kept in memory or on disk."""

import functools
import os
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from jaxmodels.data.source import Example, LazySource, Source

CACHES = ("ram", "disk", "none")
SHARE = 0.5  # of the free memory, for one source


def kept(source: Source, cache: str) -> Source:
    """The source, each example computed at most once where its arrays fit; every process keeps its own.

    Args:
        source: whose examples are alike in size.
        cache: 'ram' keeps them in memory, if all of them fit in half of what is free at the first one (else none is
            kept); 'disk' in a file without a name in the user's cache folder, which is gone with the process; 'none'
            keeps nothing.

    Raises:
        ValueError: an unknown cache.
        OSError: on access: the disk is full.
    """
    if cache not in CACHES:
        raise ValueError(f"--cache={cache}: expected one of {', '.join(CACHES)}")
    if cache == "none":
        return source
    keep = _Memory() if cache == "ram" else _Disk()
    return LazySource(len(source), functools.partial(_read, source, keep))


def _read(source: Source, keep: Any, i: int) -> Example:
    found = keep.get(i)
    if found is None:
        found = source[i]
        keep.put(i, found, len(source))
    return found


class _Memory:
    def __init__(self) -> None:
        self._kept: dict[int, Example] = {}
        self._fits: bool | None = None

    def get(self, i: int) -> Example | None:
        return self._kept.get(i)

    def put(self, i: int, example: Example, number: int) -> None:
        if self._fits is None:
            size = sum(np.asarray(value).nbytes for value in example.values())
            self._fits = number * size <= SHARE * free_memory()
        if self._fits:
            self._kept[i] = example


class _Disk:
    """Large arrays in a file, one after the other as they come; what is small stays in memory."""

    def __init__(self) -> None:
        self._open()

    def _open(self) -> None:
        self._rows: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._end = 0
        folder = Path(platformdirs.user_cache_dir("jaxmodels"))
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)
        weakref.finalize(self, self._file.close)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # another process opens a file of its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open()

    def get(self, i: int) -> Example | None:
        row = self._rows.get(i)
        if row is None:
            return None
        return {name: self._array(*value) if isinstance(value, tuple) else value for name, value in row.items()}

    def _array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        found = np.empty(shape, dtype)
        os.preadv(self._file.fileno(), [found.reshape(-1).view(np.uint8).data], offset)
        return found

    def put(self, i: int, example: Example, number: int) -> None:
        row: dict[str, Any] = {}
        for name, value in example.items():
            array = np.ascontiguousarray(value)
            row[name] = value if array.ndim < 2 else (self._write(array), array.shape, array.dtype)
        self._rows[i] = row

    def _write(self, array: np.ndarray) -> int:
        with self._lock:
            offset, self._end = self._end, self._end + array.nbytes
        try:
            written = os.pwrite(self._file.fileno(), array.reshape(-1).view(np.uint8).data, offset)
        except OSError as error:
            raise OSError(f"--cache=disk: {platformdirs.user_cache_dir('jaxmodels')}: {error.strerror}") from None
        if written != array.nbytes:
            raise OSError(f"--cache=disk: {platformdirs.user_cache_dir('jaxmodels')}: the disk is full")
        return offset


def free_memory() -> int:
    """Bytes that new data may take, of this machine and of the container; physical memory where neither is known."""
    found = []
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(1024 * int(line.split()[1]))
    most, used = _text("/sys/fs/cgroup/memory.max").strip(), _text("/sys/fs/cgroup/memory.current").strip()
    if most.isdigit() and used.isdigit():
        found.append(int(most) - int(used))
    return min(found) if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
