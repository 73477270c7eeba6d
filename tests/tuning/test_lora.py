"""LoRA: its initialisation, its options, and the equivalence with a fused qkv matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.sites import LINEARS
from jaxmodels.tuning.tree import get
from tests.tiny_vit import BACKBONE
from tests.tuning.tiny import backbone_params, frozen, largest, random_params, tuned

KEY = jax.random.key(0)


def test_starts_equal_to_the_frozen_model():
    tuner = lora(3)
    np.testing.assert_array_equal(tuned(tuner, tuner.init(KEY, BACKBONE)), frozen())


def test_a_is_uniform_with_the_inputs_as_fan_in():
    params = lora(64, targets=("fc2",)).init(KEY, BACKBONE)  # fc2 reads 64 units
    for site in params.values():
        assert site["a"].shape == (64, 64)
        assert 0.9 / 8 < jnp.abs(site["a"]).max() <= 1 / 8
        assert not site["b"].any()


@pytest.mark.parametrize("target", LINEARS)
def test_each_target_is_one_layer_per_block(target):
    tuner = lora(2, targets=(target,))
    params = random_params(tuner)
    assert set(params) == {f"block{i}/{LINEARS[target]}" for i in range(2)}
    merged = tuner.merge(params, backbone_params(), {})
    path = f"block1/{LINEARS[target]}"
    expected = get(backbone_params(), path)["kernel"] + params[path]["a"] @ params[path]["b"]
    np.testing.assert_allclose(get(merged, path)["kernel"], expected, rtol=1e-6)
    assert largest(tuned(tuner, params) - frozen()) > 1e-5


def test_alpha_over_rank_scales_the_update():
    params = random_params(lora(2))
    doubled = jax.tree_util.tree_map_with_path(lambda path, x: 2 * x if path[-1].key == "b" else x, params)
    np.testing.assert_allclose(tuned(lora(2, alpha=4.0), params), tuned(lora(2), doubled), rtol=1e-5, atol=1e-6)
    assert lora(2).config["alpha"] == 2.0  # s = 1


def test_shared_a_equals_lora_on_a_fused_matrix():
    tuner = lora(3, shared_qkv_a=True)
    params = random_params(tuner)
    assert params["block0/attn/qkv"]["a"].shape == (16, 3)
    assert set(params["block0/attn/q_proj"]) == {"b"}
    fused = params["block0/attn/qkv"]["a"] @ jnp.concatenate(
        [params[f"block0/attn/{name}_proj"]["b"] for name in "qkv"], axis=1
    )
    merged = tuner.merge(params, backbone_params(), {})
    for i, name in enumerate("qkv"):
        layer = f"block0/attn/{name}_proj"
        change = get(merged, layer)["kernel"] - get(backbone_params(), layer)["kernel"]
        np.testing.assert_allclose(change, fused[:, 16 * i : 16 * (i + 1)], rtol=1e-4, atol=1e-6)


def test_shared_a_serves_q_k_and_v_only():
    tuner = lora(3, targets=("q", "k", "v", "proj"), shared_qkv_a=True)
    params = random_params(tuner)
    without = {path: site for path, site in params.items() if not path.endswith("attn/proj")}
    changed = {**params, "block0/attn/proj": {**params["block0/attn/proj"], "a": jnp.zeros((16, 3))}}
    changed["block1/attn/proj"] = {**params["block1/attn/proj"], "a": jnp.zeros((16, 3))}
    np.testing.assert_allclose(tuned(tuner, changed), tuned(tuner, without), rtol=1e-5)
    assert largest(tuned(tuner, params) - tuned(tuner, without)) > 1e-4


def test_dropout_acts_in_training_only_and_depends_on_the_key():
    tuner, params = lora(3, dropout=0.5), random_params(lora(3))
    np.testing.assert_array_equal(tuned(tuner, params), tuned(lora(3), params))
    first, second = (tuned(tuner, params, key=jax.random.key(i)) for i in (0, 1))
    assert largest(first - second) > 1e-5
    np.testing.assert_array_equal(first, tuned(tuner, params, key=jax.random.key(0)))


def test_dropout_of_shared_a_is_one_mask_as_on_a_fused_matrix():
    tuner = lora(16, shared_qkv_a=True, dropout=0.5)
    params = random_params(tuner)
    context = type("Key", (), {"key": jax.random.key(5)})
    a, b = jnp.eye(16), jnp.eye(16)
    plain = {path: {name: a if name == "a" else b for name in site} for path, site in params.items()}
    x = jnp.ones((1, 4, 16))
    masked = [
        tuner.writes(plain, context)[f"block0/attn/{name}_proj"](lambda x: jnp.zeros_like(x), x) for name in "qkv"
    ]
    assert 0 < float((masked[0] == 0).mean()) < 1
    np.testing.assert_array_equal(masked[0], masked[1])
    np.testing.assert_array_equal(masked[0], masked[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank: found 0, expected at least 1"),
        ({"dropout": 1.0}, "dropout: found 1.0, expected 0 <= dropout < 1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        lora(**options)


def test_an_unknown_target_is_named():
    with pytest.raises(ValueError, match="targets: found 'query', expected some of q, k, v, proj, fc1, fc2"):
        lora(targets=("query",)).init(KEY, BACKBONE)
