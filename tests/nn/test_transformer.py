"""Attention against a slow obvious one, the merging of two attentions, the MLP and stochastic depth."""

import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.nn.transformer import Attention, DropPath, Mlp, attend, gelu, trunc_normal


def slow_attention(q, k, v, bias=None):
    """One query at a time, in float64: outputs and log-sum-exps."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    (b, n, h, d), m = q.shape, k.shape[1]
    bias = np.broadcast_to(0.0 if bias is None else np.asarray(bias, np.float64), (b, h, n, m))
    out, lse = np.zeros((b, n, h, v.shape[-1])), np.zeros((b, h, n))
    for i, j, t in np.ndindex(b, h, n):
        logits = [q[i, t, j] @ k[i, s, j] / math.sqrt(d) + bias[i, j, t, s] for s in range(m)]
        total = sum(math.exp(x) for x in logits)
        out[i, t, j] = sum(math.exp(x) / total * v[i, s, j] for s, x in enumerate(logits))
        lse[i, j, t] = math.log(total)
    return out, lse


def inputs(n, m, seed, b=2, h=2, d=3):
    generator = np.random.default_rng(seed)
    shapes = ((b, n, h, d), (b, m, h, d), (b, m, h, d), (b, h, n, m))
    return tuple(jnp.asarray(generator.standard_normal(shape, np.float32)) for shape in shapes)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 5), (4, 1)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_attention_equals_the_slow_one(n, m, with_bias):
    *qkv, bias = inputs(n, m, seed=n)
    bias = bias if with_bias else None
    for found, expected in zip(attend(*qkv, bias), slow_attention(*qkv, bias), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_large_logits_do_not_overflow():
    q, k, v, _ = inputs(2, 3, seed=0)
    out, lse = attend(100 * q, 100 * k, v)
    assert np.isfinite(out).all() and np.isfinite(lse).all()
    with jax.enable_x64(True):
        exact = attend(*(jnp.asarray(np.asarray(x), jnp.float64) for x in (100 * q, 100 * k, v)))
    np.testing.assert_allclose(lse, exact[1], rtol=1e-5)


@settings(max_examples=10, deadline=None)
@given(split=st.integers(1, 4), seed=st.integers(0, 99))
def test_two_attentions_merge_from_their_log_sum_exps(split, seed):
    q, k, v, _ = inputs(3, 5, seed)
    (first, a), (second, b) = attend(q, k[:, :split], v[:, :split]), attend(q, k[:, split:], v[:, split:])
    whole, lse = attend(q, k, v)
    share = jax.nn.sigmoid(a - b).swapaxes(1, 2)[..., None]  # exp(a) / (exp(a) + exp(b))
    np.testing.assert_allclose(share * first + (1 - share) * second, whole, atol=1e-6)
    np.testing.assert_allclose(np.logaddexp(a, b), lse, atol=1e-6)


def test_gradients_equal_those_of_a_plain_softmax():
    q, k, v, bias = inputs(3, 4, seed=1)

    def plain(q, k, v, bias):
        logits = jnp.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1]) + bias
        out = jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(logits), v)
        return jnp.sin(out).sum() + jnp.cos(jax.nn.logsumexp(logits, -1)).sum()

    def ours(q, k, v, bias):
        out, lse = attend(q, k, v, bias)
        return jnp.sin(out).sum() + jnp.cos(lse).sum()

    for found, expected in zip(
        *(jax.jit(jax.grad(f, (0, 1, 2, 3)))(q, k, v, bias) for f in (ours, plain)), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("x64", [False, True])
def test_recomputed_gradients_equal_those_of_kept_probabilities(x64):
    with jax.enable_x64(x64):
        q, k, v, _ = (jnp.asarray(np.asarray(x), float) for x in inputs(3, 4, seed=5))

        def loss(q, k, v, bias=None):
            out, lse = attend(q, k, v, bias)
            return jnp.sin(out).sum() + jnp.cos(lse).sum()

        kept = jax.grad(loss, (0, 1, 2))(q, k, v, jnp.zeros((1, 1, 1, 1), q.dtype))
        for transform in (jax.jit, lambda f: jax.checkpoint(f)):
            found = transform(jax.grad(loss, (0, 1, 2)))(q, k, v)
            for a, b in zip(found, kept, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-13 if x64 else 2e-6)
        stacked = jax.vmap(jax.grad(loss, (0, 1, 2)))(*(jnp.stack([x, 2 * x]) for x in (q, k, v)))
        np.testing.assert_allclose(stacked[0][0], kept[0], atol=1e-13 if x64 else 2e-6)


def test_gelu_is_exact():
    x = jnp.linspace(-6, 6, 201)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=5e-7)
    assert gelu(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    slopes = jax.vmap(jax.grad(lambda y: gelu(y)))(x)
    np.testing.assert_allclose(slopes, jax.vmap(jax.grad(lambda y: jax.nn.gelu(y, approximate=False)))(x), atol=1e-6)


def test_half_precision_keeps_the_softmax_in_float32():
    q, k, v, _ = (x.astype(jnp.bfloat16) for x in inputs(3, 4, seed=2))
    out, lse = attend(q, k, v)
    assert out.dtype == jnp.bfloat16 and lse.dtype == jnp.float32
    expected = slow_attention(q, k, v)
    np.testing.assert_allclose(np.asarray(out, np.float32), expected[0], atol=0.02)
    np.testing.assert_allclose(lse, expected[1], atol=0.02)
    program = str(jax.make_jaxpr(lambda *x: jax.vjp(lambda *y: attend(*y)[0], *x)[1](x[0]))(q, k, v))
    exponentials = re.findall(r":(\w+)\[[^]]*\] = exp ", program)
    assert len(exponentials) >= 2 and set(exponentials) == {"f32"}


def test_self_attention_is_equivariant_under_permutations_of_tokens():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 8), np.float32))
    module = Attention(heads=2)
    params = module.init(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_allclose(module.apply(params, x[:, order]), module.apply(params, x)[:, order], atol=1e-5)


def test_the_mlp_uses_the_exact_gelu():
    x = jnp.linspace(-3, 3, 12).reshape(3, 4)
    module = Mlp(hidden=4)
    identity = {"kernel": jnp.eye(4), "bias": jnp.zeros(4)}
    found = module.apply({"params": {"fc1": identity, "fc2": identity}}, x)
    expected = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in np.asarray(x, np.float64).ravel()]
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(rate=st.floats(0.05, 0.9), seed=st.integers(0, 1000))
def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean(rate, seed):
    count = 2000
    out = DropPath(rate).apply({}, jnp.ones((count, 2, 3)), rngs={"drop_path": jax.random.key(seed)})
    kept = np.asarray(out[:, 0, 0] != 0)
    np.testing.assert_array_equal(np.asarray(out) != 0, np.broadcast_to(kept[:, None, None], out.shape))
    np.testing.assert_allclose(out[kept], 1 / (1 - rate), rtol=1e-5)
    five_sigma = 5 * math.sqrt(rate * (1 - rate) / count)
    assert abs(kept.mean() - (1 - rate)) < five_sigma


def test_stochastic_depth_is_the_identity_without_key_or_rate():
    x = jnp.ones((4, 2))
    assert DropPath(0.5).apply({}, x) is x
    assert DropPath(0.0).apply({}, x, rngs={"drop_path": jax.random.key(0)}) is x


def test_initial_weights_have_the_published_spread():
    kernel = trunc_normal(jax.random.key(0), (400, 400))
    assert abs(float(kernel.std()) - 0.02) < 2e-4 and abs(float(kernel.mean())) < 2e-4
    assert float(jnp.abs(kernel).max()) > 0.06  # a cut at two standard deviations would show here
    dense = nn.Dense(4, kernel_init=trunc_normal).init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    np.testing.assert_array_equal(dense["bias"], 0.0)
