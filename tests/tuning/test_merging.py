import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.backbones.vit import vit
from jaxmodels.tuning.adapter import adaptformer
from jaxmodels.tuning.fact import fact
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.merging import merge_tuner
from jaxmodels.tuning.snell import snell
from jaxmodels.tuning.ssf import ssf
from jaxmodels.tuning.tuner import Tuner, chain
from tests.tiny_vit import BACKBONE, SIZE
from tests.tuning.tiny import backbone_params, images, random_params, tuned

WEIGHT_TUNERS = (lambda: lora(2), ssf, lambda: fact(2), lambda: snell(2), lambda: chain(lora(2), ssf()))


def variables_of(tuner):
    params = {"backbone": backbone_params(), "tuner": random_params(tuner)}
    return {"params": params, "state": tuner.init_state(BACKBONE)}


@pytest.mark.parametrize("make", WEIGHT_TUNERS)
def test_the_report_is_the_largest_deviation(make):
    tuner, lines = make(), []
    variables = variables_of(tuner)
    merged = merge_tuner(tuner, BACKBONE, variables, probe=images(), report=lines.append)
    deviation, largest = map(float, re.findall(r"\d\.\de[+-]\d+", lines[0]))
    expected = tuned(tuner, variables["params"]["tuner"])
    found = BACKBONE.apply(merged, images())
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert deviation < 1e-4 < 0.1 < largest
    assert lines[0].startswith(f"merged {tuner.config['method']} into {BACKBONE.name}: ")
    assert f"on {len(images())} probe images" in lines[0]


def test_a_wrong_merge_shows_in_the_report():
    honest, lines = lora(2), []
    tuner = honest._replace(merge=lambda params, backbone, state: backbone)
    merge_tuner(tuner, BACKBONE, variables_of(tuner), report=lines.append)
    assert float(re.findall(r"\d\.\de[+-]\d+", lines[0])[0]) > 1e-3


def test_half_precision_weights_are_merged_in_float32_and_returned_as_they_came(capsys):
    backbone = vit(SIZE, image_size=8, dtype=jnp.bfloat16)
    variables = variables_of(lora(2))
    variables["params"]["backbone"] = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables["params"]["backbone"])
    merged = merge_tuner(lora(2), backbone, variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(merged)} == {jnp.dtype(jnp.bfloat16)}
    deviation = float(re.findall(r"\d\.\de[+-]\d+", capsys.readouterr().out)[0])
    assert deviation < 1e-4  # bfloat16 arithmetic would deviate by 1e-2


def test_an_activation_tuner_cannot_be_merged():
    for tuner in (adaptformer(2), Tuner({"method": "mine"})):
        with pytest.raises(ValueError, match=f"'{tuner.config['method']}' changes activations"):
            merge_tuner(tuner, BACKBONE, variables_of(tuner))
