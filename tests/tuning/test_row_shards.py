"""Gradients of thin factors over several devices: the same values, and only the factors are sent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.planning.collectives import collectives
from jaxmodels.training.mesh import make_mesh, rows
from jaxmodels.tuning.row_shards import pulled

FACTORS = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)


def pull(matrix):
    return {"thin": jnp.asarray(FACTORS) @ matrix, "sum": matrix.sum(0)}


def compiled(mesh, batch):
    generator = np.random.default_rng(1)
    x, g = (jnp.asarray(generator.normal(size=(batch, 5, width)), jnp.float32) for width in (64, 16))
    expected = pull(jnp.einsum("bni,bno->io", x, g))
    with jax.set_mesh(mesh):
        placed = jax.device_put((x, g), rows(mesh))
        program = jax.jit(lambda x, g: pulled(pull, x, g, dtype=jnp.float32)).lower(*placed).compile()
        found = program(*placed)
    sent = sum(each.bytes for each in collectives(program.as_text(), devices=mesh.size))
    return expected, found, sent


@pytest.mark.parametrize("axes", ["data:-1", "data:2,fsdp:-1"])
def test_what_is_sent_is_what_is_pulled(axes):
    expected, found, sent = compiled(make_mesh(axes), batch=16)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), expected, found)
    assert sent == 4 * (3 * 16 + 16) < 4 * 64 * 16


def test_rows_that_devices_do_not_divide_are_not_split():
    x, g = jnp.ones((3, 64)), jnp.ones((3, 16))
    with jax.set_mesh(make_mesh("data:-1")):
        found = jax.jit(lambda: pulled(pull, x, g, dtype=jnp.float32))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, pull(3.0 * jnp.ones((64, 16))))
