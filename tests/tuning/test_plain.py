"""The tuners that only name what of the backbone trains."""

import jax
import pytest

from jaxmodels import rules
from jaxmodels.backbones.vit import Size, vit
from jaxmodels.tuning.classifier import classifier
from jaxmodels.tuning.plain import bitfit, full, linear, partial
from tests.tiny_vit import BACKBONE
from tests.tuning.tiny import CLASSES, backbone_params, images


def trained_names(tuner, backbone=BACKBONE):
    """Names of the backbone's leaves that train."""
    method = classifier(backbone, tuner, num_classes=CLASSES)
    params = jax.eval_shape(method.init, jax.random.key(0))["params"]
    trained, _ = rules.split(params, method.groups)
    return set(rules.leaf_names(trained["backbone"]))


def names(backbone=BACKBONE):
    return set(rules.leaf_names(backbone.shapes().params))


def test_the_linear_probe_trains_the_head_alone():
    assert trained_names(linear()) == set()


def test_full_trains_everything():
    assert trained_names(full()) == names()


@pytest.mark.parametrize("blocks", [1, 2])
def test_partial_trains_the_last_blocks_and_the_norm(blocks):
    last = tuple(f"{path}/" for path in BACKBONE.blocks[-blocks:])
    assert trained_names(partial(blocks)) == {name for name in names() if name.startswith((*last, "norm/"))}


def test_partial_does_not_take_block_11_for_block_1():
    deep = vit(Size(4, 12, 2, 4), image_size=4)
    found = {name.split("/")[0] for name in trained_names(partial(1), deep)}
    assert found == {"block11", "norm"}


def test_bitfit_trains_every_bias():
    found = trained_names(bitfit())
    assert found == {name for name in names() if name.endswith("/bias")}
    assert {"embed/bias", "norm/bias", "block0/norm1/bias", "block1/attn/q_proj/bias"} <= found


def test_the_linear_probe_reads_the_pooled_feature_and_runs_no_backbone_on_cached_ones():
    method = classifier(BACKBONE, linear(), num_classes=CLASSES)
    params = {"backbone": backbone_params(), "tuner": {}, "head": method.init(jax.random.key(0))["params"]["head"]}
    cached = {"features": BACKBONE.read(backbone_params(), images(), linear().reads(BACKBONE))}
    expected = method.predict({"params": params, "state": {}}, {"image": images()})
    without = {"params": {**params, "backbone": {}}, "state": {}}
    assert (method.predict(without, cached) == expected).all()


def test_partial_needs_a_block():
    with pytest.raises(ValueError, match="blocks: found 0, expected at least 1"):
        partial(0)


def test_partial_needs_no_more_blocks_than_there_are():
    with pytest.raises(ValueError, match="blocks: found 3, expected at most 2, all of vit_16x2x2x4"):
        classifier(BACKBONE, partial(3), num_classes=CLASSES)
