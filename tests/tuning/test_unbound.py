"""Attention over more keys equals the frozen attention and a branch beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.nn.transformer import attend
from jaxmodels.tuning.unbound import attend_shared, mix_attention, unbound_prefix, unbound_prompt

# (batch, tokens, heads, width, extra); each shape compiles once, the seeds run through it
SIZES = st.sampled_from([(1, 1, 1, 1, 1), (2, 4, 3, 2, 1), (1, 3, 2, 4, 3)])
SEEDS = st.integers(0, 2**31 - 1)


def draw(seed, *shapes, scale=1.0):
    generator = np.random.default_rng(seed)
    return [jnp.asarray(scale * generator.normal(size=shape), jnp.float32) for shape in shapes]


def appended(x, extra):
    return jnp.concatenate([x, jnp.broadcast_to(extra, (x.shape[0], *extra.shape))], 1)


@jax.jit
def bound_prefix(q, k, v, k_pre, v_pre):
    return attend(q, appended(k, k_pre), appended(v, v_pre))


@jax.jit
def bound_prompt(x, prompts):
    return attend(*(appended(a, b) for a, b in zip(x, prompts, strict=True)))[0]


@settings(max_examples=12, deadline=None)
@given(SIZES, SEEDS)
def test_prefix_bound_equals_unbound(sizes, seed):
    batch, tokens, heads, width, extra = sizes
    shape, more = (batch, tokens, heads, width), (extra, heads, width)
    q, k, v, k_pre, v_pre = draw(seed, shape, shape, shape, more, more)
    bound, bound_lse = bound_prefix(q, k, v, k_pre, v_pre)
    unbound = jax.jit(unbound_prefix)(q, k, v, k_pre, v_pre)
    np.testing.assert_allclose(unbound.out, bound, atol=1e-5)
    np.testing.assert_allclose(unbound.lse, bound_lse, atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(SIZES, SEEDS)
def test_prompt_bound_equals_unbound(sizes, seed):
    batch, tokens, heads, width, extra = sizes
    shape, more = (batch, tokens, heads, width), (extra, heads, width)
    x, prompts = draw(seed, (3, *shape), (3, *more))
    bound = bound_prompt(x, prompts)
    rows, own = jax.jit(unbound_prompt)(*x, *prompts)
    np.testing.assert_allclose(jnp.concatenate([rows.out, own.out], 1), bound, atol=1e-5)


def test_gradients_of_the_two_forms_agree():
    shape, more = (2, 4, 2, 3), (3, 2, 3)
    q, k, v, k_pre, v_pre, weights = draw(0, shape, shape, shape, more, more, shape)

    def bound(k_pre, v_pre):
        return (weights * bound_prefix(q, k, v, k_pre, v_pre)[0]).sum()

    def unbound(k_pre, v_pre):
        return (weights * unbound_prefix(q, k, v, k_pre, v_pre).out).sum()

    for ours, theirs in zip(*(jax.jit(jax.grad(f, (0, 1)))(k_pre, v_pre) for f in (unbound, bound)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_merging_is_the_same_in_any_order():
    q, k, v, *more = draw(1, (2, 3, 2, 4), (2, 3, 2, 4), (2, 3, 2, 4), *[(2, 2, 4)] * 4)
    parts = [attend(q, k, v), attend_shared(q, *more[:2]), attend_shared(q, *more[2:])]

    def merged(a, b, c):
        first = mix_attention(*parts[a], *parts[b])
        return mix_attention(first.out, first.lse, *parts[c])

    np.testing.assert_allclose(merged(0, 1, 2).out, merged(2, 0, 1).out, atol=1e-5)
    np.testing.assert_allclose(merged(0, 1, 2).lse, merged(2, 0, 1).lse, atol=1e-5)


def test_scores_that_would_overflow_an_exponential_stay_finite():
    q, k, v, k_pre, v_pre = draw(2, (1, 3, 1, 4), (1, 3, 1, 4), (1, 3, 1, 4), (2, 1, 4), (2, 1, 4), scale=100.0)
    out, lse, weight = jax.jit(unbound_prefix)(q, k, v, k_pre, v_pre)
    bound, _ = bound_prefix(q, k, v, k_pre, v_pre)
    assert float(jnp.abs(lse).max()) > 100.0 and bool(jnp.isfinite(weight).all())
    np.testing.assert_allclose(out, bound, rtol=1e-4)


def test_no_keys_at_all_is_an_error():
    q, none = jnp.ones((1, 2, 1, 3)), jnp.ones((0, 1, 3))
    with pytest.raises(ValueError, match="length: found 0 keys"):
        attend_shared(q, none, none)


def test_the_branch_follows_the_queries_dtype():
    q, k, v, k_pre, v_pre = draw(3, (1, 3, 1, 4), (1, 3, 1, 4), (1, 3, 1, 4), (2, 1, 4), (2, 1, 4))
    half = unbound_prefix(*(x.astype(jnp.bfloat16) for x in (q, k, v)), k_pre, v_pre)
    assert half.out.dtype == jnp.bfloat16 and half.lse.dtype == jnp.float32
