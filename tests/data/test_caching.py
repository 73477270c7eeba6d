"""Examples are computed once and come back as they were, from memory or disk; what does not fit is not kept."""

import copy

import numpy as np
import pytest

from jaxmodels.data import caching
from jaxmodels.data.source import LazySource


class Counted:
    """Images of various sizes that remember how often they were read."""

    def __init__(self):
        self.read = []

    def __call__(self, i):
        self.read.append(i)
        image = np.random.default_rng(i).integers(0, 255, (i + 1, 4, 3)).astype(np.uint8)
        return {"image": image[:, ::-1], "label": np.int32(i), "name": f"{i}.png"}


def same(a, b):
    assert a.keys() == b.keys() and a["label"] == b["label"] and a["name"] == b["name"]
    np.testing.assert_array_equal(a["image"], b["image"])
    assert a["image"].dtype == b["image"].dtype


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(caching.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    return tmp_path / "jaxmodels"


@pytest.mark.parametrize("cache, times", [("ram", 1), ("disk", 1), ("none", 2)])
def test_every_example_is_computed_once_and_comes_back_as_it_was(cache, times):
    read = Counted()
    source = caching.kept(LazySource(5, read), cache)
    for _ in range(2):
        for i in (3, 0, 4, 1, 2):
            same(source[i], Counted()(i))
    assert sorted(read.read) == sorted(list(range(5)) * times)


def test_what_does_not_fit_in_memory_is_not_kept(monkeypatch):
    for free, times in ((300, 2), (1000, 1)):
        monkeypatch.setattr(caching, "free_memory", lambda free=free: free)
        read = Counted()
        source = caching.kept(LazySource(5, read), "ram")  # the first has 12 bytes of image and some of other fields
        for i in (0, 1, 0, 1):
            source[i]
        assert read.read == [0, 1] * times, free


def test_the_file_has_no_name_and_other_processes_have_their_own(own_cache):
    source = caching.kept(LazySource(3, Counted()), "disk")
    source[1]
    assert own_cache.is_dir() and list(own_cache.iterdir()) == []
    other = copy.deepcopy(source)  # what pickling does, too
    same(other[1], Counted()(1))
    same(source[1], other[1])


def test_a_full_disk_is_one_line(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.os, "pwrite", full)
    with pytest.raises(OSError, match="--cache=disk: .*: No space left on device"):
        caching.kept(LazySource(3, Counted()), "disk")[0]
    monkeypatch.setattr(caching.os, "pwrite", lambda *_: 5)
    with pytest.raises(OSError, match="the disk is full"):
        caching.kept(LazySource(3, Counted()), "disk")[0]


def test_free_memory_is_that_of_the_container(monkeypatch):
    files = {"/proc/meminfo": "MemTotal: 900 kB\nMemAvailable:   500 kB\n"}
    monkeypatch.setattr(caching, "_text", lambda path: files.get(path, ""))
    assert caching.free_memory() == 500 * 1024
    files |= {"/sys/fs/cgroup/memory.max": "5000\n", "/sys/fs/cgroup/memory.current": "2000\n"}
    assert caching.free_memory() == 3000
    files |= {"/sys/fs/cgroup/memory.max": "max\n"}
    assert caching.free_memory() == 500 * 1024
    files.clear()
    assert caching.free_memory() > 2**20
