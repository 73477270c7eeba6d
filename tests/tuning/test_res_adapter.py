"""The adapter module in every weighting, its tuner at every place, the group adapter and the upsampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.tuning.res_adapter import adapter, init_adapter, res_adapter
from jaxmodels.tuning.res_maps import group_adapter, init_group_adapter, init_upsample, nearest, upsample
from jaxmodels.tuning.tuner import Context
from tests.tiny_vit import BACKBONE
from tests.tuning.tiny import KEY, backbone_params, drawn, noisy, random_params


@pytest.fixture
def frozen():
    return backbone_params()


@pytest.mark.parametrize("weight", ["none", "scale", "scale_channel", "gate", "scalar_0.25"])
def test_each_weighting_multiplies_the_branch(weight):
    params = drawn(lambda: init_adapter(KEY, 6, 3, weight=weight))
    x = jax.random.normal(KEY, (2, 5, 6))
    branch = np.asarray(adapter({k: params[k] for k in ("down", "up")}, x, shortcut=False))
    if weight == "gate":
        scores = branch @ params["scaling"]["kernel"] + params["scaling"]["bias"].reshape(1, 1, 1)
        w = jax.nn.sigmoid(scores).mean(1, keepdims=True)
    else:
        constants = {"none": 1.0, "scalar_0.25": 0.25}
        w = constants[weight] if weight in constants else params["scaling"].reshape(1, 1, -1)
    np.testing.assert_allclose(adapter(params, x, weight=weight), x + w * branch, atol=1e-6)


def test_a_map_is_tokens():
    params = drawn(lambda: init_adapter(KEY, 6, 3, weight="gate"))
    x = jax.random.normal(KEY, (2, 3, 4, 6))
    tokens = adapter(params, x.reshape(2, 12, 6), weight="gate")
    np.testing.assert_allclose(adapter(params, x, weight="gate").reshape(2, 12, 6), tokens, atol=1e-6)


def test_output_has_the_inputs_dtype_and_other_widths_need_no_shortcut():
    x = jnp.ones((1, 2, 6), jnp.bfloat16)
    assert adapter(init_adapter(KEY, 6, 3), x).dtype == jnp.bfloat16
    assert adapter(init_adapter(KEY, 6, 3, 4), x, shortcut=False).shape == (1, 2, 4)


def test_initial_statistics():
    params = jax.jit(init_adapter, static_argnums=(1, 2))(KEY, 300, 200)
    bound = (6 / 500) ** 0.5
    for side, fan in (("down", (300, 200)), ("up", (200, 300))):
        kernel = params[side]["kernel"]
        assert kernel.shape == fan and float(jnp.abs(kernel).max()) <= bound
        assert float(kernel.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
        assert 0.8e-6 < float(params[side]["bias"].std()) < 1.2e-6
    group = jax.jit(init_group_adapter, static_argnums=1)(KEY, 1600)
    assert group["down"]["kernel"].shape == (400, 800)
    assert float(jnp.abs(group["down"]["kernel"]).max()) == pytest.approx(1 / 20, rel=0.01)
    assert float(group["down"]["bias"].std()) == pytest.approx(1.0, rel=0.1)  # N(0, 1), as published
    assert not init_adapter(KEY, 4, 2, zero_last=True)["up"]["bias"].any()
    assert not init_group_adapter(KEY, 4, zero_last=True)["up"]["kernel"].any()


@pytest.mark.parametrize(
    "place, port, norm", [("mha", "attn_out", "norm1"), ("ffn", "mlp_out", "norm2"), ("block", "out", None)]
)
@pytest.mark.parametrize("reads", ["inputs", "output"])
def test_tuner_adds_beside_its_operation(frozen, place, port, norm, reads):
    tuner = res_adapter(3, place=place, reads=reads)
    params = random_params(tuner)
    images = jax.random.normal(KEY, (2, 8, 8, 3))
    out, into = f"block0/{port}", f"block0/{norm}" if norm else "tokens"

    @jax.jit
    def read(frozen, params):
        writers = tuner.writes(params, Context(frozen, {}, None))
        return BACKBONE.read(frozen, images, (out, into)), BACKBONE.read(frozen, images, (out,), writers=writers)

    plain, tuned = read(frozen, params)
    u = plain[out if reads == "output" else into]
    np.testing.assert_allclose(tuned[out], plain[out] + adapter(params[out], u, shortcut=False), atol=1e-5)
    assert list(params) == [f"block{i}/{port}" for i in range(2)]


def test_options_show(frozen):
    images = jax.random.normal(KEY, (1, 8, 8, 3))

    def features(tuner, start=noisy):
        params = start(tuner.init(KEY, BACKBONE))
        context = Context(frozen, {}, None)
        return jax.jit(lambda p: BACKBONE.apply(frozen, images, writers=tuner.writes(p, context)))(params)

    plain = features(res_adapter(3))
    assert float(jnp.abs(features(res_adapter(3, shortcut=True)) - plain).max()) > 1e-3
    assert float(jnp.abs(features(res_adapter(3, weight="scalar_0.5")) - plain).max()) > 1e-3
    zero = features(res_adapter(3, zero_init=True), start=lambda params: params)
    np.testing.assert_allclose(zero, BACKBONE.apply(frozen, images), atol=1e-6)
    widths = [p["down"]["kernel"].shape[1] for p in res_adapter([3, 5]).init(KEY, BACKBONE).values()]
    assert widths == [3, 5]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"hidden": 0}, "hidden: found 0"),
        ({"place": "mah"}, "did you mean 'mha'"),
        ({"reads": "input"}, "did you mean 'inputs'"),
        ({"weight": "scalar_x"}, "weight: found 'scalar_x'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        res_adapter(**{"hidden": 3, **options})


def test_as_many_widths_as_blocks():
    with pytest.raises(ValueError, match="found 3 widths, expected 2"):
        res_adapter([1, 2, 3]).init(KEY, BACKBONE)


def test_groups_have_the_head_index_fastest():
    params = drawn(lambda: init_group_adapter(KEY, 8))
    x = jax.random.normal(KEY, (1, 2, 2, 8))
    changed = group_adapter(params, x.at[..., 1].add(1.0)) != group_adapter(params, x)
    assert set(np.flatnonzero(np.asarray(changed).any((0, 1, 2)))) == {1, 5}  # channel 1 is in group 1 of 4
    with pytest.raises(ValueError, match="found 4 groups for 6 channels"):
        init_group_adapter(KEY, 6)


def test_upsampling_starts_at_zero_and_takes_the_floor():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    assert upsample(init_upsample(1, 5), x).shape == (1, 4, 6, 5)
    assert not upsample(init_upsample(1, 5), x).any()
    assert nearest(x, (3, 4))[0, :, :, 0].tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5]]
