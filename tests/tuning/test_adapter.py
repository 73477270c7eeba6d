"""Bottleneck adapters: where they read and write, their activations, initialisations and options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.tuning.adapter import adapter, adaptformer
from jaxmodels.tuning.tuner import Context
from tests.tiny_vit import BACKBONE, SIZE
from tests.tuning.tiny import backbone_params, frozen, images, largest, random_params, tuned

KEY = jax.random.key(0)
BOTH = pytest.mark.parametrize("build", [adapter, adaptformer])


def activations(tuner, params, *paths):
    writers = tuner.writes(params, Context(backbone_params(), {}, None))
    return BACKBONE.read(backbone_params(), images(), paths, writers=writers).values()


def by_hand(params, x, act=jax.nn.relu):
    h = act(x @ params["down"]["kernel"] + params["down"]["bias"].reshape(1, 1, -1))
    return h @ params["up"]["kernel"] + params["up"]["bias"].reshape(1, 1, -1)


@pytest.mark.parametrize(("kind", "ports"), [("houlsby", ("attn_out", "mlp_out")), ("pfeiffer", ("mlp_out",))])
def test_the_kind_chooses_the_places(kind, ports):
    params = adapter(3, kind=kind).init(KEY, BACKBONE)
    assert set(params) == {f"block{i}/{port}" for i in range(SIZE.depth) for port in ports}


def test_sequential_reads_the_branch_it_follows():
    tuner = adapter(3, activation="relu", scale=0.5)
    params = random_params(tuner)
    plain = BACKBONE.read(backbone_params(), images(), ("block0/mlp_out",))["block0/mlp_out"]
    (found,) = activations(tuner, params, "block0/mlp_out")
    np.testing.assert_allclose(found, plain + 0.5 * by_hand(params["block0/mlp_out"], plain), rtol=1e-4, atol=1e-6)


def test_parallel_reads_the_residual_stream_before_the_norm():
    tuner = adaptformer(3, scale=0.5)
    params = random_params(tuner)
    paths = ("tokens", "block0/attn_out", "block0/mlp_out")
    plain = BACKBONE.read(backbone_params(), images(), paths)
    residual = plain["tokens"] + plain["block0/attn_out"]
    (found,) = activations(tuner, params, "block0/mlp_out")
    expected = plain["block0/mlp_out"] + 0.5 * by_hand(params["block0/mlp_out"], residual)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", lambda x: jnp.maximum(x, 0)),
        ("gelu", lambda x: x * jax.scipy.stats.norm.cdf(x)),
        ("quick_gelu", lambda x: x / (1 + jnp.exp(-1.702 * x))),
    ],
)
def test_activations(activation, function):
    tuner = adapter(3, activation=activation)
    params = jax.tree.map(lambda x: 3.0 * x, random_params(tuner))
    plain = BACKBONE.read(backbone_params(), images(), ("block0/mlp_out",))["block0/mlp_out"]
    (found,) = activations(tuner, params, "block0/mlp_out")
    np.testing.assert_allclose(found, plain + by_hand(params["block0/mlp_out"], plain, function), rtol=1e-4, atol=1e-5)


def test_kaiming_zero_up_starts_at_the_frozen_model():
    for tuner in (adapter(3, init="kaiming_zero_up"), adaptformer(3)):
        params = tuner.init(KEY, BACKBONE)
        site = params["block0/mlp_out"]
        assert 0.15 < jnp.abs(site["down"]["kernel"]).max() <= 0.25  # 1/sqrt(16)
        assert not site["up"]["kernel"].any() and not site["up"]["bias"].any() and not site["down"]["bias"].any()
        np.testing.assert_array_equal(tuned(tuner, params), frozen())


def test_xavier_has_its_variance_and_tiny_biases():
    site = adapter(64, init="xavier").init(KEY, BACKBONE)["block1/mlp_out"]
    for name in ("down", "up"):
        assert abs(float(site[name]["kernel"].std()) / (2 / (16 + 64)) ** 0.5 - 1) < 0.1
        assert 0 < float(jnp.abs(site[name]["bias"]).max()) < 1e-5


def test_blocks_start_with_different_weights():
    params = adapter(3, kind="houlsby").init(KEY, BACKBONE)
    kernels = [site["down"]["kernel"] for site in params.values()]
    assert all(largest(a - b) > 1e-3 for i, a in enumerate(kernels) for b in kernels[:i])


@BOTH
def test_hidden_sets_the_width(build):
    assert build(7).init(KEY, BACKBONE)["block0/mlp_out"]["down"]["kernel"].shape == (16, 7)


@BOTH
def test_dropout_acts_in_training_only(build):
    tuner = build(8, dropout=0.5)
    params = random_params(tuner)
    np.testing.assert_array_equal(tuned(tuner, params), tuned(build(8), params))
    first, second = (tuned(tuner, params, key=jax.random.key(i)) for i in (0, 1))
    assert largest(first - second) > 1e-6


@BOTH
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden: found 0, expected at least 1"),
        (
            {"activation": "gleu"},
            r"activation: found 'gleu', expected one of gelu, relu, quick_gelu; did you mean 'gelu'",
        ),
        ({"init": "zero"}, "init: found 'zero', expected one of xavier, kaiming_zero_up"),
        ({"dropout": -0.1}, "dropout: found -0.1, expected 0 <= dropout < 1"),
    ],
)
def test_wrong_options_are_named(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="kind: found 'houlsbi', expected one of houlsby, pfeiffer; did you mean"):
        adapter(kind="houlsbi")
