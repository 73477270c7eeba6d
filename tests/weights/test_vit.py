"""ViT checkpoints: both directions against Transformers, every layout against every other, and what is refused."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.backbones.vit import vit
from jaxmodels.tuning.heads import linear_head
from jaxmodels.weights.files import read_arrays, write_npz, write_safetensors
from jaxmodels.weights.pos_embed import resize_pos_embed
from jaxmodels.weights.vit import WRITTEN
from jaxmodels.weights.vit_checkpoint import load_vit, load_vit_head, open_vit, save_vit
from tests.tiny_vit import SIZE, random_like

IMAGES = np.random.default_rng(7).standard_normal((2, 8, 8, 3), np.float32)
FILES = {"timm": "x.safetensors", "hf": "x.safetensors", "google": "x.npz"}


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def published(tmp_path, params, backbone, layout="timm", head=None):
    save_vit(tmp_path / FILES[layout], params, backbone, layout=layout, head=head)
    return read_arrays(tmp_path / FILES[layout])


# Round trips


@pytest.mark.parametrize("layout", WRITTEN)
@pytest.mark.parametrize("pre_logits", [False, True])
def test_every_layout_brings_the_same_parameters_back(tmp_path, layout, pre_logits, head):
    backbone = vit(SIZE, image_size=8, pre_logits=pre_logits)
    params = random_like(backbone.shapes().params)
    with_head = None if layout == "hf" and pre_logits else head
    arrays = published(tmp_path, params, backbone, layout, with_head)
    assert WRITTEN[layout].positions in {name.removeprefix("vit.") for name in arrays}
    same(load_vit(tmp_path / FILES[layout], backbone), params)
    if with_head is not None:
        same(load_vit_head(tmp_path / FILES[layout], backbone), head)


@pytest.mark.parametrize("layout", WRITTEN)
def test_the_tanh_layer_is_dropped_unless_asked_for(tmp_path, layout, backbone, params):
    with_layer = vit(SIZE, image_size=8, pre_logits=True)
    extended = random_like(with_layer.shapes().params)
    published(tmp_path, extended, with_layer, layout)
    same(load_vit(tmp_path / FILES[layout], backbone), {k: v for k, v in extended.items() if k != "representation"})
    published(tmp_path, params, backbone, layout)
    missing = WRITTEN[layout].pre_logits[0].theirs
    with pytest.raises(ValueError, match=f"has no '{missing}'"):
        load_vit(tmp_path / FILES[layout], with_layer)


def test_timm_fuses_query_key_value_in_this_order(tmp_path, backbone, params):
    fused = published(tmp_path, params, backbone)["blocks.1.attn.qkv.weight"]
    for i, name in enumerate("qkv"):
        kernel = params["block1"]["attn"][f"{name}_proj"]["kernel"]
        np.testing.assert_array_equal(fused[i * SIZE.width : (i + 1) * SIZE.width], kernel.T)


def test_google_shapes_attention_by_heads(tmp_path, backbone, params):
    arrays = published(tmp_path, params, backbone, "google")
    block = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1"
    head_width = SIZE.width // SIZE.heads
    assert arrays[f"{block}/query/kernel"].shape == (SIZE.width, SIZE.heads, head_width)
    assert arrays[f"{block}/out/kernel"].shape == (SIZE.heads, head_width, SIZE.width)


# Prefixes and what stands beside a backbone


@pytest.mark.parametrize(
    ("layout", "prefix", "beside"),
    [
        ("timm", "module.", ()),  # MoCo v3
        ("timm", "", ("decoder_embed.weight", "decoder_blocks.0.norm1.weight", "mask_token")),  # MAE
        ("hf", "vit.", ("classifier.weight", "classifier.bias")),
        ("hf", "", ("embeddings.mask_token",)),
        ("google", "opt/target/", ("opt/state/step", "opt/state/param_states/cls/v")),
        ("google", "params/", ("opt/0/count",)),
        ("google", "params/img/", ("params/txt/head/kernel", "params/t")),
    ],
)
def test_prefixes_go_and_what_is_no_backbone_is_dropped(tmp_path, backbone, params, layout, prefix, beside):
    arrays = {prefix + name: array for name, array in published(tmp_path, params, backbone, layout).items()}
    arrays |= {name: np.ones(1, np.float32) for name in beside}
    (write_npz if layout == "google" else write_safetensors)(tmp_path / FILES[layout], arrays)
    same(load_vit(tmp_path / FILES[layout], backbone), params)


def test_moco_heads_are_dropped_but_readable(tmp_path, backbone, params, head):
    arrays = {f"module.{k}": v for k, v in published(tmp_path, params, backbone, head=head).items()}
    write_safetensors(tmp_path / "x.safetensors", arrays)
    same(load_vit(tmp_path / "x.safetensors", backbone), params)
    same(load_vit_head(tmp_path / "x.safetensors", backbone), head)


def test_half_precision_files_give_float32(tmp_path, backbone, params):
    arrays = {k: v.astype(np.float16) for k, v in published(tmp_path, params, backbone).items()}
    write_safetensors(tmp_path / "x.safetensors", arrays)
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.float16).astype(jnp.float32), params)
    same(load_vit(tmp_path / "x.safetensors", backbone), expected)


# Positions


@pytest.mark.parametrize("rule", ["timm", "hf", "google"])
def test_positions_move_to_the_grid_of_the_image(tmp_path, backbone, params, rule):
    published(tmp_path, params, backbone)
    larger = vit(SIZE, image_size=12)
    loaded = load_vit(tmp_path / "x.safetensors", larger, resize=rule)
    expected = resize_pos_embed(np.asarray(params["pos_embed"]), 3, rule=rule)
    np.testing.assert_array_equal(loaded["pos_embed"], expected)
    same({**loaded, "pos_embed": params["pos_embed"]}, params)


def test_a_wrong_rule_is_an_error(tmp_path, backbone, params):
    published(tmp_path, params, backbone)
    with pytest.raises(ValueError, match="x.safetensors: resize: found 'nearest'"):
        load_vit(tmp_path / "x.safetensors", backbone, resize="nearest")


# What is refused, in one line


@pytest.mark.parametrize("name", ["dist_token", "module.dist_token", "deit.embeddings.distillation_token"])
def test_two_prefix_tokens_are_refused(tmp_path, backbone, params, name):
    arrays = published(tmp_path, params, backbone) | {name: np.ones((1, 1, SIZE.width), np.float32)}
    write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(ValueError, match=f"'{name}' is DeiT's second prefix token"):
        load_vit(tmp_path / "x.safetensors", backbone)


def test_another_size_is_told_as_such(tmp_path, backbone, params):
    published(tmp_path, params, backbone)
    deeper = vit(SIZE._replace(depth=3), image_size=8)
    message = "found width 16, depth 2, patch 4, expected 16, 3, 4"
    with pytest.raises(ValueError, match=message):
        load_vit(tmp_path / "x.safetensors", deeper)
    mini = vit("mini")
    published(tmp_path, jax.tree.map(lambda s: np.zeros(s.shape, np.float32), mini.shapes().params), mini, "google")
    with pytest.raises(ValueError, match=r"expected 16, 2, 4 .*; it fits vit\('mini'\)"):
        load_vit(tmp_path / "x.npz", backbone)


def test_google_files_tell_the_heads(tmp_path, backbone, params):
    published(tmp_path, params, backbone, "google")
    with pytest.raises(ValueError, match=r"query/kernel' has the shape \(16, 2, 8\), expected \(.*, heads=4\)"):
        load_vit(tmp_path / "x.npz", vit(SIZE._replace(heads=4), image_size=8))


def test_hugging_face_folders_tell_the_heads(tmp_path, backbone, params):
    save_vit(tmp_path / "folder", params, backbone, layout="hf")
    same(load_vit(tmp_path / "folder", backbone), params)
    with pytest.raises(ValueError, match="config.json says 2 attention heads, expected 4"):
        load_vit(tmp_path / "folder", vit(SIZE._replace(heads=4), image_size=8))


def test_an_unknown_layout_says_what_was_expected(tmp_path, backbone):
    write_safetensors(tmp_path / "x.safetensors", {"layer4.conv1.weight": np.ones(1)})
    with pytest.raises(ValueError) as caught:
        load_vit(tmp_path / "x.safetensors", backbone)
    for part in ("x.safetensors", "'layer4.conv1.weight'", "'blocks.0.attn.qkv.weight' (timm)", "(google)", "(hf)"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["cls_token", "pos_embed", "patch_embed.proj.weight", "norm.bias"])
def test_a_missing_parameter_names_itself(tmp_path, backbone, params, name):
    arrays = published(tmp_path, params, backbone)
    del arrays[name]
    write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(ValueError, match=f"has no '{name}'"):
        load_vit(tmp_path / "x.safetensors", backbone)


def test_an_additional_parameter_names_itself(tmp_path, backbone, params):
    arrays = published(tmp_path, params, backbone) | {"blocks.0.ls1.gamma": np.ones(16, np.float32)}
    write_safetensors(tmp_path / "x.safetensors", arrays)
    with pytest.raises(ValueError, match=r"nothing reads 'blocks.0.ls1.gamma'"):
        load_vit(tmp_path / "x.safetensors", backbone)


def test_a_file_without_head_says_so(tmp_path, backbone, params, head):
    published(tmp_path, params, backbone)
    with pytest.raises(ValueError, match="has no 'head.weight', it was published without a head"):
        load_vit_head(tmp_path / "x.safetensors", backbone)
    published(tmp_path, params, backbone, head={"kernel": jnp.ones((5, 3)), "bias": head["bias"]})
    with pytest.raises(ValueError, match="its head reads 5 features, expected 16"):
        load_vit_head(tmp_path / "x.safetensors", backbone)


def test_saving_refuses_what_a_layout_cannot_hold(tmp_path, backbone, params, head):
    with pytest.raises(ValueError, match="layout: found 'keras', expected one of timm, hf, google"):
        save_vit(tmp_path / "x.npz", params, backbone, layout="keras")
    for layout, name in (("timm", "x.npz"), ("google", "x.safetensors"), ("timm", "x"), ("google", "x")):
        with pytest.raises(ValueError, match="for the layout"):
            save_vit(tmp_path / name, params, backbone, layout=layout)
    with_layer = vit(SIZE, image_size=8, pre_logits=True)
    with pytest.raises(ValueError, match="no tanh layer"):
        save_vit(tmp_path / "x", random_like(with_layer.shapes().params), with_layer, layout="hf", head=head)


# Transformers, in both directions


@pytest.fixture(scope="module")
def peers():
    torch = pytest.importorskip("torch", reason="needs the extra [peers]: torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers", reason="needs the extra [peers]: transformers")
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def hf_config(transformers, **changes):
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    return transformers.ViTConfig(**sizes, image_size=8, patch_size=4, initializer_range=0.5, **changes)


def randomised(torch, model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def torch_images(torch):
    return torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("names", ["files", "memory"])
def test_their_classifier_gives_our_logits(tmp_path, peers, names):
    torch, transformers = peers
    model = randomised(torch, transformers.ViTForImageClassification(hf_config(transformers, num_labels=3)))
    if names == "files":
        model.save_pretrained(tmp_path / "x")
        path = tmp_path / "x"
    else:
        path = tmp_path / "x.safetensors"
        write_safetensors(path, {name: tensor.numpy() for name, tensor in model.state_dict().items()})
    ours = vit(SIZE, image_size=8, epsilon=model.config.layer_norm_eps)
    features = ours.apply(load_vit(path, ours), jnp.asarray(IMAGES))
    logits = linear_head().apply(load_vit_head(path, ours), features)
    with torch.no_grad():
        expected = model(torch_images(torch)).logits.numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_their_pooler_is_our_tanh_layer(tmp_path, peers):
    torch, transformers = peers
    model = randomised(torch, transformers.ViTModel(hf_config(transformers)))
    model.save_pretrained(tmp_path / "x")
    ours = vit(SIZE, image_size=8, epsilon=1e-12, pre_logits=True)
    with torch.no_grad():
        expected = model(torch_images(torch)).pooler_output.numpy()
    features = ours.apply(load_vit(tmp_path / "x", ours), jnp.asarray(IMAGES))
    np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["ViTForImageClassification", "ViTModel"])
def test_transformers_opens_what_we_save(tmp_path, peers, head, kind):
    torch, transformers = peers
    classifier = kind == "ViTForImageClassification"
    ours = vit(SIZE, image_size=8, epsilon=1e-5, pre_logits=not classifier)
    params = jax.tree.map(lambda leaf: 0.3 * leaf, random_like(ours.shapes().params))
    save_vit(tmp_path / "x", params, ours, layout="hf", head=head if classifier else None)
    model, report = getattr(transformers, kind).from_pretrained(tmp_path / "x", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    with torch.no_grad():
        out = model.eval()(torch_images(torch))
    found = ours.apply(params, jnp.asarray(IMAGES))
    if classifier:
        found, expected = linear_head().apply(head, found), out.logits
    else:
        expected = out.pooler_output
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    assert json.loads((tmp_path / "x" / "config.json").read_text())["architectures"] == [kind]


def test_a_checkpoint_names_its_layout(tmp_path, backbone, params):
    for layout in WRITTEN:
        published(tmp_path, params, backbone, layout)
        assert open_vit(tmp_path / FILES[layout]).layout.name == layout
