"""Google's .npz in its spellings: the original code's, big_vision's, and big_vision's with stacked blocks."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.backbones.vit import vit
from jaxmodels.weights.files import read_arrays, write_npz
from jaxmodels.weights.vit_checkpoint import load_vit, load_vit_head, open_vit, save_vit
from tests.tiny_vit import SIZE, random_like

RENAMED = {
    "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
    "LayerNorm_2": "LayerNorm_1",
    "MlpBlock_3": "MlpBlock_0",
}
POSITIONS = "Transformer/posembed_input/pos_embedding"


def original(tmp_path, backbone, params, head=None):
    save_vit(tmp_path / "original.npz", params, backbone, layout="google", head=head)
    return read_arrays(tmp_path / "original.npz")


def big_vision(arrays):
    """The same model as big_vision stores it: other numbers, and the class token's position added into the token."""
    renamed = {}
    for name, array in arrays.items():
        for old, new in RENAMED.items():
            name = name.replace(old, new)
        renamed[name] = array
    positions = renamed.pop(POSITIONS)
    return renamed | {"pos_embedding": positions[:, 1:], "cls": arrays["cls"] + positions[:, :1]}


def stacked(arrays):
    """All blocks of one parameter in one array with a leading axis."""
    groups: dict = {}
    for name in sorted(arrays, key=lambda name: [int(n) for n in re.findall(r"encoderblock_(\d+)", name)]):
        groups.setdefault(re.sub(r"encoderblock_\d+", "encoderblock", name), []).append(arrays[name])
    return {name: np.stack(parts) if "encoderblock" in name else parts[0] for name, parts in groups.items()}


@pytest.mark.parametrize("prefix", ["", "params/", "params/img/", "opt/target/"])
@pytest.mark.parametrize("spelling", ["big_vision", "big_vision_stacked"])
def test_big_vision_files_hold_the_same_model(tmp_path, backbone, params, head, spelling, prefix):
    arrays = big_vision(original(tmp_path, backbone, params, head))
    arrays = stacked(arrays) if spelling.endswith("stacked") else arrays
    write_npz(tmp_path / "x.npz", {prefix + name: array for name, array in arrays.items()})
    assert open_vit(tmp_path / "x.npz").layout.name == spelling
    loaded = load_vit(tmp_path / "x.npz", backbone)
    jax.tree.map(np.testing.assert_array_equal, load_vit_head(tmp_path / "x.npz", backbone), head)
    # The class token and its position are only known as their sum; all else is the same bit for bit.
    np.testing.assert_array_equal(loaded["pos_embed"][:, 0], 0.0)
    np.testing.assert_array_equal(loaded["cls_token"], params["cls_token"] + params["pos_embed"][:, :1])
    np.testing.assert_array_equal(loaded["pos_embed"][:, 1:], params["pos_embed"][:, 1:])
    for name in ("embed", "block0", "block1", "norm"):
        jax.tree.map(np.testing.assert_array_equal, loaded[name], params[name])


def test_its_features_are_the_same(tmp_path, backbone, params):
    write_npz(tmp_path / "x.npz", stacked(big_vision(original(tmp_path, backbone, params))))
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3), np.float32))
    loaded = load_vit(tmp_path / "x.npz", backbone)
    np.testing.assert_allclose(backbone.apply(loaded, images), backbone.apply(params, images), atol=1e-5)


def test_a_stack_of_one_block_is_read(tmp_path):
    backbone = vit(SIZE._replace(depth=1), image_size=8)
    params = random_like(backbone.shapes().params)
    write_npz(tmp_path / "x.npz", stacked(big_vision(original(tmp_path, backbone, params))))
    jax.tree.map(np.testing.assert_array_equal, load_vit(tmp_path / "x.npz", backbone)["block0"], params["block0"])


def test_a_stack_of_another_depth_is_told_as_such(tmp_path, backbone, params):
    write_npz(tmp_path / "x.npz", stacked(big_vision(original(tmp_path, backbone, params))))
    with pytest.raises(ValueError, match="found width 16, depth 2, patch 4, expected 16, 5, 4"):
        load_vit(tmp_path / "x.npz", vit(SIZE._replace(depth=5), image_size=8))


def test_separate_positions_are_resized_without_a_class_entry(tmp_path, backbone, params):
    write_npz(tmp_path / "x.npz", big_vision(original(tmp_path, backbone, params)))
    larger = load_vit(tmp_path / "x.npz", vit(SIZE, image_size=16), resize="google")["pos_embed"]
    assert larger.shape == (1, 17, SIZE.width)
    # Corners stay where they are under the corner-aligned rule.
    np.testing.assert_allclose(larger[0, [1, 4, 13, 16]], params["pos_embed"][0, 1:], atol=1e-6)


def test_a_model_without_class_token_is_refused(tmp_path, backbone, params):
    arrays = big_vision(original(tmp_path, backbone, params))
    del arrays["cls"]
    write_npz(tmp_path / "x.npz", arrays)
    with pytest.raises(ValueError, match="x.npz: has no 'cls'"):
        load_vit(tmp_path / "x.npz", backbone)
