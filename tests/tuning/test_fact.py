"""FacT: one decomposed tensor for all matrices, written out by hand; its start and its options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.backbones.vit import Size, vit
from jaxmodels.tuning.fact import fact
from jaxmodels.tuning.sites import LINEARS
from jaxmodels.tuning.tree import get
from tests.tiny_vit import BACKBONE
from tests.tuning.tiny import backbone_params, frozen, largest, random_params, tuned

KEY, RANK, WIDTH = jax.random.key(0), 3, 16
KINDS = pytest.mark.parametrize("kind", ["tt", "tk"])


def sigma_by_hand(params, path, chunk, side):
    """Sigma (r, r) of one chunk; `side` is the wide side of the layer."""
    if "core" in params:
        column = params[path][:, chunk]
        return sum(params["core"][:, :, k] * column[k] for k in range(RANK))
    rows = cut = slice(chunk * RANK, (chunk + 1) * RANK)
    return params[path][:, cut] if side == "outputs" else params[path][rows]


@KINDS
@pytest.mark.parametrize("target", LINEARS)
def test_the_update_is_u_sigma_v_chunk_by_chunk(kind, target):
    tuner = fact(RANK, kind=kind, scale=0.5)
    params = random_params(tuner)
    path = f"block1/{LINEARS[target]}"
    merged = tuner.merge(params, backbone_params(), {})
    change = np.asarray(get(merged, path)["kernel"] - get(backbone_params(), path)["kernel"])
    side = "inputs" if target == "fc2" else "outputs"
    for chunk in range(max(change.shape) // WIDTH):
        expected = 0.5 * params["u"] @ sigma_by_hand(params, path, chunk, side) @ params["v"]
        cut = slice(chunk * WIDTH, (chunk + 1) * WIDTH)
        found = change[cut] if side == "inputs" else change[:, cut]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@KINDS
def test_starts_equal_to_the_frozen_model(kind):
    tuner = fact(RANK, kind=kind)
    params = tuner.init(KEY, BACKBONE)
    assert not params["v"].any()
    np.testing.assert_array_equal(tuned(tuner, params), frozen())


def test_tensor_train_starts_as_linear_layers_do():
    params = fact(16).init(KEY, BACKBONE)
    for path, fan_in in (("u", 16), ("block0/attn/q_proj", 16), ("block0/mlp/fc1", 16), ("block0/mlp/fc2", 64)):
        assert 0.9 * fan_in**-0.5 < float(jnp.abs(params[path]).max()) <= fan_in**-0.5, path
    assert params["block0/mlp/fc1"].shape == (16, 64) and params["block0/mlp/fc2"].shape == (64, 16)


def test_tucker_starts_xavier_over_all_columns():
    params = fact(8, kind="tk").init(KEY, BACKBONE)
    columns = jnp.concatenate([params[path] for path in params if path not in ("u", "v", "core")], axis=1)
    assert columns.shape == (8, 12 * 2)
    bound = (6 / (8 + 24)) ** 0.5
    assert 0.9 * bound < float(jnp.abs(columns).max()) <= bound
    assert 0.9 * 3**0.5 / 8 < float(jnp.abs(params["core"]).max()) <= 3**0.5 / 8
    assert params["block0/attn/k_proj"].shape == (8, 1) and params["block1/mlp/fc2"].shape == (8, 4)
    assert largest(params["block0/attn/q_proj"] - params["block1/attn/q_proj"]) > 1e-3


@KINDS
def test_scale_multiplies_the_update(kind):
    params = random_params(fact(RANK, kind=kind))
    tripled = {**params, "v": 3.0 * params["v"]}
    np.testing.assert_allclose(
        tuned(fact(RANK, kind=kind, scale=3.0), params), tuned(fact(RANK, kind=kind), tripled), rtol=1e-4, atol=1e-6
    )


def test_dropout_acts_in_training_only():
    tuner = fact(RANK, dropout=0.5)
    params = random_params(tuner)
    np.testing.assert_array_equal(tuned(tuner, params), tuned(fact(RANK, dropout=0.0), params))
    first, second = (tuned(tuner, params, key=jax.random.key(i)) for i in (0, 1))
    assert largest(first - second) > 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank: found 0, expected at least 1"),
        ({"kind": "tucker"}, "kind: found 'tucker', expected one of tt, tk"),
        ({"dropout": 1.0}, "dropout: found 1.0, expected 0 <= dropout < 1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fact(**options)


def test_blocks_of_several_widths_are_named():
    wider = vit(Size(16, 1, 2, 4), image_size=8)._replace(name="pyramid", width=32)
    with pytest.raises(ValueError, match="fact on pyramid: 'block0/attn/q_proj' is 16 -> 16, expected multiples of 32"):
        fact(RANK).init(KEY, wider)
