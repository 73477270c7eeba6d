"""Linear order equals the explicit matrix, clipped rows and their gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.graphs import proximity as px
from jaxmodels.graphs.blocks import blocks_of
from tests.graphs.tiny import batch_of, quick, random_graph

RNG = np.random.default_rng(0)


def draw(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape).astype(np.float32))


@pytest.fixture(scope="module", params=[2, 5], ids=["one graph", "three graphs"])
def blocks(request):
    if request.param == 2:
        return blocks_of(batch_of(random_graph(0), count=2))
    return blocks_of(batch_of(random_graph(0), random_graph(1, nodes=9), random_graph(2, nodes=1)), size=4)


def both(matrix, linear, *arguments):
    """Outputs and gradients of the two forms."""

    @quick
    def run(*arguments):
        (out, pull), (same, pull_same) = jax.vjp(matrix, *arguments), jax.vjp(linear, *arguments)
        cotangent = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        return (out, pull(cotangent)), (same, pull_same(cotangent))

    first, second = run(*arguments)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(a).max()))
    return first[0]


@pytest.mark.parametrize("scale", [1.0, 3e4], ids=["plain", "clipped"])
def test_linear_order_equals_the_matrix(blocks, scale):
    weights, graphs = draw(2), blocks.nodes.shape[0]
    states, values = draw(*blocks.mask.shape[:2], 4) * blocks.mask, draw(*blocks.mask.shape[:2], 6)
    pseudo, shared = draw(graphs, 3, 2, 4, scale=scale), draw(graphs, 3, 6)
    psi = px.diffuse(weights, pseudo, states, blocks)
    clipped = jnp.abs(blocks.total(psi.sum(-1))).max() > 9.9e3
    assert clipped == (scale > 1.0)

    def diffused(w, r, q, v):
        return blocks.total(px.diffuse(w, r, q, blocks) @ v)

    both(diffused, lambda w, r, q, v: px.diffuse_linear(w, r, q, v, blocks), weights, pseudo, states, values)

    def collected(w, r, q, v):
        return px.collect(w, q, r, blocks) @ blocks.share(v)

    both(collected, lambda w, r, q, v: px.collect_linear(w, q, r, v, blocks), weights, pseudo, states, shared)


def test_dense_pathways_equal_the_matrix_of_each_graph():
    blocks = blocks_of(batch_of(random_graph(0), random_graph(1, nodes=3), count=3), size=8)
    weights, states = draw(2), draw(*blocks.mask.shape[:2], 4) * blocks.mask
    values = draw(*blocks.mask.shape[:2], 6)
    out = px.dense_linear(weights, states, values, blocks)
    for graph in range(2):  # each is one block
        psi = px.proximity(weights, states[graph][:, None], states[graph][:, None])
        np.testing.assert_allclose(out[graph], psi @ values[graph], atol=1e-5)


@pytest.mark.parametrize("pathway", ["attention", "uniform"])
def test_other_pathways_sum_to_one_over_real_nodes(blocks, pathway):
    graphs = blocks.nodes.shape[0]
    states, pseudo = draw(*blocks.mask.shape[:2], 4) * blocks.mask, draw(graphs, 3, 2, 4, scale=30.0)
    psi = px.diffuse(draw(2), pseudo, states, blocks, pathway=pathway)
    real = min(graphs, 3)
    np.testing.assert_allclose(blocks.total(psi.sum(-1))[:real], np.ones((real, 3)), rtol=1e-5)
    assert not (psi * (1.0 - blocks.mask.mT)).any()
    np.testing.assert_allclose(px.collect(draw(2), states, pseudo, blocks, pathway=pathway).sum(-1), 1.0, rtol=1e-5)


def test_a_row_is_clipped_to_its_signed_sum_and_the_factor_has_no_gradient():
    a, b = jnp.full((1, 1, 1), 3e4), jnp.array([[[1.0]], [[-0.5]]])
    psi, pull = jax.vjp(lambda a: px.proximity(jnp.ones(1), a, b), a)
    np.testing.assert_allclose(psi, [[2e4, -1e4]], rtol=1e-6)  # the sum 1.5e4 becomes 1e4
    np.testing.assert_allclose(pull(jnp.ones_like(psi))[0], [[[0.5 * 2 / 3]]], rtol=1e-5)


def test_proximity_is_wide_in_half_precision():
    a = draw(3, 2, 4).astype(jnp.bfloat16)
    assert px.proximity(draw(2), a, a).dtype == jnp.float32
