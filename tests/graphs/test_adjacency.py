"""Chunked sums equal scattered ones, whatever the degrees and the order of edges; gradients and dropout of layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.graphs.adjacency import Adjacency, chunked
from jaxmodels.graphs.layers import Dropout, Norm, rows_product
from jaxmodels.graphs.proximity import moments
from tests.graphs.tiny import quick


def pulled(function, cotangent, *arguments):
    def run(*arguments):
        out, pull = jax.vjp(function, *arguments)
        return out, pull(jnp.asarray(cotangent))

    return quick(run)(*arguments)


def same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("edges", ["a hub", "by receiver", "none"])
def test_chunks_equal_scattering(edges):
    rng, rows = np.random.default_rng(0), 9
    receivers, senders = rng.integers(0, rows, (2, 0 if edges == "none" else 40)).astype(np.int32)
    receivers = np.sort(receivers) if edges == "by receiver" else receivers
    if edges == "a hub":
        receivers[:25] = 4  # more than three chunks, while node 8 gets nothing
        receivers[receivers == 8] = 0
    weights, loops, x, cotangent = (
        rng.normal(size=shape).astype(np.float32) for shape in ((len(senders),), (rows,), (rows, 3), (rows, 3))
    )
    adjacency = Adjacency(*(jnp.asarray(a) for a in (senders, receivers, weights, loops)))
    expected = pulled(lambda x: adjacency @ x, cotangent, x)
    same(pulled(lambda x: chunked(adjacency) @ x, cotangent, x), expected)
    dense = np.diag(loops)
    np.add.at(dense, (receivers, senders), weights)
    np.testing.assert_allclose(expected[0], dense @ x, rtol=1e-5, atol=1e-5)


def test_only_programs_for_cpus_sort_and_chunk():
    ends = jnp.arange(6, dtype=jnp.int32)
    adjacency, x = Adjacency(ends, ends[::-1], jnp.ones(6), jnp.ones(6)), jnp.ones((6, 2))
    traced = jax.jit(jax.grad(lambda x: (chunked(adjacency) @ x).sum())).trace(x)
    texts = {name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "tpu", "cuda")}
    assert {name: "stablehlo.sort" in text for name, text in texts.items()} == {
        "cpu": True,
        "tpu": False,
        "cuda": False,
    }
    assert texts["tpu"].count("stablehlo.gather") < texts["cpu"].count("stablehlo.gather")
    low = jax.grad(lambda x: (chunked(adjacency) @ x).sum())(x.astype(jnp.bfloat16))
    assert low.dtype == jnp.bfloat16


def test_layer_norm_equals_flax_in_value_and_gradient():
    rng = np.random.default_rng(0)
    x, cotangent = (rng.normal(2.0, 3.0, (2, 5, 6)).astype(np.float32) for _ in range(2))
    params = {name: rng.normal(size=6).astype(np.float32) for name in ("scale", "bias")}
    flax = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)
    found, expected = (
        pulled(lambda p, x, m=module: m.apply({"params": p}, x), cotangent, params, x) for module in (Norm(), flax)
    )
    same(found, expected)


def test_moments_have_the_gradient_of_the_product():
    rng = np.random.default_rng(0)
    a, b, cotangent = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 5, 3), (2, 5, 4), (2, 3, 4)))
    same(pulled(moments, cotangent, a, b), pulled(lambda a, b: a.mT @ b, cotangent, a, b))


@pytest.mark.parametrize("rows", [(7,), (2, 5), (3, 0)], ids=["one axis", "two axes", "no rows"])
def test_a_product_of_rows_has_the_gradient_of_the_product(rows):
    rng = np.random.default_rng(0)
    x, kernel, cotangent = (rng.normal(size=shape).astype(np.float32) for shape in ((*rows, 3), (3, 4), (*rows, 4)))
    same(pulled(rows_product, cotangent, x, kernel), pulled(lambda x, kernel: x @ kernel, cotangent, x, kernel))


def test_dropout_keeps_the_rate_and_the_mean():
    x, key = jnp.ones((400, 7)), jax.random.key(0)
    out = np.asarray(Dropout(0.3).apply({}, x, rngs={"dropout": key}))
    zeros = (out == 0).mean(0)
    # Seven columns, so that the last word of a row serves one entry; five deviations of 400 draws.
    np.testing.assert_allclose(zeros, 0.3, atol=5 * (0.21 / 400) ** 0.5)
    np.testing.assert_allclose(np.unique(out), [0.0, 1 / 0.7], rtol=1e-4)
    assert abs(np.corrcoef(out[:, 0], out[:, 4])[0, 1]) < 0.25  # the two halves of one word
    np.testing.assert_array_equal(Dropout(0.3).apply({}, x), x)
