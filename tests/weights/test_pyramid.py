import jax
import numpy as np
import pytest

import jaxmodels as jm
from jaxmodels.backbones import convnext as convnexts
from jaxmodels.backbones import swin as swins
from jaxmodels.weights import convnext, names, swin
from jaxmodels.weights.files import write_safetensors
from jaxmodels.weights.pyramid import save_pyramid
from tests.tiny_vit import random_like

SWIN = jm.swin(swins.Size(8, (1, 2), (2, 2), 2, 2), image_size=8)
CONVNEXT = jm.convnext(convnexts.Size((1, 2), (8, 12)), image_size=16)
LAYOUTS = {
    "swin": (SWIN, swin.timm((1, 2))),
    "swin, late merging": (SWIN, swin.timm((1, 2), late=True)),
    "convnext": (CONVNEXT, convnext.timm((1, 2))),
    "convnext, named": (CONVNEXT, convnext.timm((1, 2), named=True)),
    "convnext, original": (CONVNEXT, convnext.original((1, 2))),
}


def same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised(layout, wrapper, tmp_path):
    backbone, rows = LAYOUTS[layout]
    params = random_like(backbone.shapes().params)
    arrays = names.write(params, rows)
    timm_convnext = layout in ("convnext", "convnext, named")
    arrays["head.fc.weight" if timm_convnext else "head.weight"] = np.zeros((3, 5), np.float32)
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {wrapper + name: array for name, array in arrays.items()})
    same(jm.load_weights(path, backbone), params)


@pytest.mark.parametrize("backbone", [SWIN, CONVNEXT], ids=["swin", "convnext"])
def test_what_is_saved_is_read_back(backbone, tmp_path):
    params = random_like(backbone.shapes().params)
    save_pyramid(tmp_path / "x.safetensors", params, backbone)
    same(jm.load_weights(tmp_path / "x.safetensors", backbone), params)


def test_published_buffers_are_constants_and_not_read(tmp_path):
    params = random_like(SWIN.shapes().params)
    arrays = names.write(params, swin.timm((1, 2)))
    arrays["layers.0.blocks.0.attn.relative_position_index"] = np.zeros((4, 4), np.float32)
    arrays["layers.1.blocks.1.attn_mask"] = np.zeros((4, 4, 4), np.float32)
    write_safetensors(tmp_path / "x.safetensors", arrays)
    same(jm.load_weights(tmp_path / "x.safetensors", SWIN), params)


def test_another_size_is_refused_by_name(tmp_path):
    save_pyramid(tmp_path / "x.safetensors", random_like(SWIN.shapes().params), SWIN)
    deeper = jm.swin(swins.Size(8, (2, 2), (2, 2), 2, 2), image_size=8)
    with pytest.raises(ValueError, match=r"x.safetensors: has no 'layers.0.blocks.1"):
        jm.load_weights(tmp_path / "x.safetensors", deeper)
    wider = jm.swin(swins.Size(16, (1, 2), (2, 2), 2, 2), image_size=8)
    with pytest.raises(ValueError, match="'patch_embed.proj.weight' gives 'embed/kernel' the shape"):
        jm.load_weights(tmp_path / "x.safetensors", wider)
