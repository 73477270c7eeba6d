"""SSF: its sites, its start near the frozen model, and what one pair does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.backbones.vit import vit
from jaxmodels.tuning.ssf import ssf
from jaxmodels.tuning.tuner import Context
from tests.tiny_vit import BACKBONE
from tests.tuning.tiny import backbone_params, frozen, images, largest, tuned

KEY = jax.random.key(0)


def test_74_sites_on_a_vit_with_q_k_and_v_as_one():
    params = jax.eval_shape(lambda: ssf().init(KEY, vit("b16")))
    assert len({path.replace("k_proj", "q_proj").replace("v_proj", "q_proj") for path in params}) == 74
    assert params["embed"]["scale"].shape == (768,) and params["block11/mlp/fc1"]["shift"].shape == (3072,)
    assert "norm" in params and "block0/norm1" in params and "block0/norm2" in params


def test_deviation_sets_the_start():
    for deviation in (0.02, 0.5):
        params = ssf(deviation=deviation).init(KEY, BACKBONE)
        scales = jnp.concatenate([site["scale"] for site in params.values()])
        shifts = jnp.concatenate([site["shift"] for site in params.values()])
        assert abs(float(scales.mean()) - 1) < deviation / 5 and abs(float(shifts.mean())) < deviation / 5
        assert abs(float(scales.std()) / deviation - 1) < 0.1 and abs(float(shifts.std()) / deviation - 1) < 0.1


def test_without_deviation_it_is_the_frozen_model():
    np.testing.assert_allclose(tuned(ssf(), ssf(deviation=0.0).init(KEY, BACKBONE)), frozen(), rtol=1e-6)


@pytest.mark.parametrize("path", list(ssf().init(KEY, BACKBONE)))
def test_each_site_scales_and_shifts_its_operation(path):
    params = ssf(deviation=0.0).init(KEY, BACKBONE)
    width = params[path]["scale"].shape[0]
    params[path] = {"scale": jnp.linspace(0.5, 2.0, width), "shift": jnp.linspace(-1.0, 1.0, width)}
    writers = ssf().writes(params, Context(backbone_params(), {}, None))
    plain = BACKBONE.read(backbone_params(), images(), (path,))[path]
    found = BACKBONE.read(backbone_params(), images(), (path,), writers=writers)[path]
    expected = np.asarray(plain) * np.asarray(params[path]["scale"]) + np.asarray(params[path]["shift"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert largest(tuned(ssf(), params) - frozen()) > 1e-4


def test_a_negative_deviation_is_named():
    with pytest.raises(ValueError, match="deviation: found -1.0, expected at least 0"):
        ssf(deviation=-1.0)
