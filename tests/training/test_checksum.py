import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmodels.training.checksum import checksums
from jaxmodels.training.mesh import make_mesh

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint32", "bool", "uint8", "float8_e4m3fn", "complex64")


def sum_of(array):
    return checksums({"x": jnp.asarray(array)})["x"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_and_every_position_counts(dtype):
    array = np.arange(12).reshape(3, 4) % 2
    array = np.asarray(jnp.asarray(array, dtype))
    expected = sum_of(array)
    assert 0 <= expected < 2**32 and sum_of(array.copy()) == expected
    assert sum_of(array[::-1]) == expected  # rows of a pattern that repeats
    assert sum_of(array[:, ::-1]) != expected
    bits = range(1 if dtype == "bool" else 8 * array.itemsize)
    for bit in bits:
        changed = array.copy()
        changed.reshape(-1).view(np.uint8)[5 * array.itemsize + bit // 8] ^= 1 << bit % 8
        assert sum_of(changed) != expected, bit


def test_wide_types_count_whole():
    with jax.enable_x64(True):
        array = np.arange(6, dtype=np.float64)
        expected = sum_of(array)
        for byte in range(8):
            changed = array.copy()
            changed.view(np.uint8)[8 + byte] ^= 1
            assert sum_of(changed) != expected


def test_nan_and_the_sign_of_zero_are_bits_too():
    assert sum_of(np.float32("nan")) == sum_of(np.float32("nan"))
    assert sum_of(np.float32(0.0)) != sum_of(np.float32(-0.0))


def test_round_numbers_do_not_cancel():
    """Few bits of round floats are set: a plain weighted sum modulo 2**32 would take many pairs for each other."""
    values = [np.array([a, b], np.float32) for a in range(32) for b in range(32)]
    assert len({sum_of(value) for value in values[:: len(values) // 128]}) == 128


@pytest.mark.parametrize(("mesh", "spec"), [("data:8", P("data")), ("data:2,fsdp:4", P("fsdp", "data"))])
def test_shards_change_nothing(mesh, spec):
    mesh = make_mesh(mesh)
    leaves = {"a": jnp.arange(64.0).reshape(8, 8), "b": jnp.ones((8, 2), jnp.bfloat16), "c": jnp.zeros((), jnp.int32)}
    spread = {name: NamedSharding(mesh, spec if leaf.ndim else P()) for name, leaf in leaves.items()}
    chex.assert_trees_all_equal(checksums(jax.device_put(leaves, spread)), checksums(leaves))
    assert checksums({}) == {}
