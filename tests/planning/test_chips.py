import importlib.util
import os

import pytest

from jaxmodels.planning.chips import CHIPS, GiB, parse, topology

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


@pytest.mark.parametrize("name", ["v5e:1x1", "v5e:2x2", "v5e:16x16", "v6e:2x4", "v4:2x2x4", "v5p:1x1x1"])
def test_parse(name):
    chip, shape = parse(name)
    assert name == f"{chip.name}:{'x'.join(map(str, shape))}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5x:2x2", "one of v3, v4, v5e, v5p, v6e, tpu7x, then a shape; did you mean 'v5"),
        ("v5e", "found 'v5e', expected 2 sizes as in 'v5e:4x4'"),
        ("v5e:2x2x2", "expected 2 sizes"),
        ("v5p:2x2", "expected 3 sizes as in 'v5p:4x4x4'"),
        ("v5e:0x2", "expected 2 sizes"),
        ("v5e:-2x2", "expected 2 sizes"),
        ("v5e:3x4", "expected even sizes"),
    ],
)
def test_parse_errors(name, message):
    with pytest.raises(ValueError, match=message):
        parse(name)


def test_table_is_in_bytes_and_per_second():
    for name, chip in CHIPS.items():
        assert chip.name == name
        assert 8 * GiB < chip.memory < 256 * GiB
        assert chip.flops > 10 * chip.bandwidth > 10 * chip.network


def test_missing_libtpu_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name))
    with pytest.raises(ImportError, match=r"pip install 'jaxmodels\[plan\]'"):
        topology("v5e:2x2")


@needs_libtpu
@pytest.mark.parametrize(("name", "devices"), [("v5e:1x1", 1), ("v5e:4x4", 16), ("v4:2x2x2", 8), ("tpu7x:2x2x1", 8)])
def test_topology(name, devices):
    before = dict(os.environ)
    found = topology(name)
    assert len(found) == devices
    assert {device.platform for device in found} == {"tpu"}
    added = set(os.environ) - set(before)
    assert not added & {"TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES", "ALLOW_MULTIPLE_LIBTPU_LOAD"}
