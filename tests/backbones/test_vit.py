"""The Vision Transformer: sizes, ports, recomputation, stochastic depth, precision and wrong inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import ports
from jaxmodels.backbones.vit import SIZES, Size, vit
from jaxmodels.rules import count

TINY = Size(width=16, depth=3, heads=2, patch=4)


def build(**options):
    return vit(TINY, image_size=8, **options)


@pytest.fixture(scope="module")
def params():
    """Random everywhere, at a scale at which every parameter shows."""
    generator = np.random.default_rng(0)
    template = build().shapes().params
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * generator.standard_normal(leaf.shape, np.float32)), template)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(1).standard_normal((2, 8, 8, 3), np.float32))


@pytest.mark.parametrize(
    ("size", "expected"),
    [("ti16", 5_524_416), ("s16", 21_665_664), ("b16", 85_798_656), ("l16", 303_301_632), ("h14", 630_764_800)],
)
def test_published_sizes_have_the_published_number_of_parameters(size, expected):
    assert count(vit(size).shapes().params) == expected


def test_every_size_says_its_width_and_its_grid():
    for name, size in SIZES.items():
        backbone = vit(name)
        side = 32 if name == "mini" else 224
        assert (backbone.name, backbone.image_size, backbone.width) == (f"vit_{name}", side, size.width)
        shapes = jax.eval_shape(backbone.init, jax.random.key(0))
        assert shapes["pos_embed"].shape == (1, 1 + (side // size.patch) ** 2, size.width)
        assert len(backbone.blocks) == size.depth


def test_every_documented_port_is_there():
    known = build().shapes().ports
    block = ("norm1", "attn/q_proj", "attn/k_proj", "attn/v_proj", "attn/core", "attn/proj", "attn_out", "norm2")
    block += ("mlp/fc1", "mlp/act", "mlp/fc2", "mlp_out", "out")
    paths = ["embed", "tokens", *(f"block{i}/{name}" for i in range(TINY.depth) for name in block), "norm", "pooled"]
    in_order = [path for path in known if path in paths]
    assert in_order == paths


def test_every_parameter_has_a_gradient(params, images):
    grads = jax.jit(jax.grad(lambda p: jnp.sin(build(pre_logits=False).apply(p, images)).sum()))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path)
        limit = 1e-6 if "k_proj" in name and "bias" in name else 0.0  # the softmax does not see a bias of all keys
        assert (np.abs(leaf).max() > limit) == (limit == 0.0), name


def test_block_outputs_add_up_and_tail_gives_the_features(params, images):
    backbone = build()
    paths = ("tokens", "block0/attn_out", "block0/mlp_out", "block0/out", "block2/out", "pooled")
    reads = backbone.read(params, images, paths)
    total = reads["tokens"] + reads["block0/attn_out"] + reads["block0/mlp_out"]
    np.testing.assert_allclose(total, reads["block0/out"], atol=1e-5)
    np.testing.assert_allclose(backbone.tail(params, reads["block2/out"]), reads["pooled"], atol=1e-6)
    np.testing.assert_allclose(backbone.apply(params, images), reads["pooled"], atol=1e-6)


def test_the_class_token_and_the_patches_stand_in_order(params, images):
    reads = build().read(params, images, ("embed", "tokens"))
    positions = params["pos_embed"]
    cls = jnp.broadcast_to(params["cls_token"], (2, 1, TINY.width)) + positions[:, :1]
    np.testing.assert_allclose(reads["tokens"][:, :1], cls, atol=1e-6)
    patches = reads["embed"].reshape(2, 4, TINY.width) + positions[:, 1:]
    np.testing.assert_allclose(reads["tokens"][:, 1:], patches, atol=1e-6)
    corner = jnp.einsum("bhwc,hwcd->bd", images[:, :4, 4:], params["embed"]["kernel"]) + params["embed"]["bias"][None]
    np.testing.assert_allclose(reads["embed"][:, 0, 1], corner, atol=1e-5)


def test_recomputation_changes_neither_features_nor_gradients(params, images):
    def loss(backbone):
        writers = {"block1/mlp_out": lambda call, x, **seen: call(x, **seen) * 0.5}
        return lambda p: jnp.sin(backbone.apply(p, images, writers=writers, key=jax.random.key(3))).sum()

    losses = [loss(build(remat=on, drop_path=0.4)) for on in (False, True)]
    plain, remat = (jax.jit(jax.value_and_grad(function))(params) for function in losses)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(remat), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)
    recomputes = ["remat" in str(jax.make_jaxpr(function)(params)) for function in losses]
    assert recomputes == [False, True]


def test_stochastic_depth_rises_linearly_and_needs_a_key(params, images):
    backbone = build(drop_path=0.5)
    np.testing.assert_array_equal(backbone.apply(params, images), build().apply(params, images))
    many = jnp.broadcast_to(images[:1], (400, 8, 8, 3))
    paths = [f"block{i}/{drop}" for i in range(TINY.depth) for drop in ("drop1", "drop2")]
    reads = jax.jit(lambda p, x: backbone.read(p, x, tuple(paths), key=jax.random.key(0)))(params, many)
    dropped = np.array([(np.abs(reads[path]).max(axis=(1, 2)) == 0).mean() for path in paths])
    expected = np.repeat(np.linspace(0.0, 0.5, TINY.depth), 2)
    sigma = np.sqrt(expected * (1 - expected) / 400)
    assert (np.abs(dropped - expected) <= 5 * sigma).all(), dropped
    again, other = (backbone.apply(params, images, key=jax.random.key(k)) for k in (0, 1))
    np.testing.assert_array_equal(again, backbone.apply(params, images, key=jax.random.key(0)))
    assert np.abs(again - other).max() > 1e-3


def test_the_two_branches_of_a_block_are_dropped_independently(params, images):
    backbone = build(drop_path=0.5)
    many = jnp.broadcast_to(images[:1], (200, 8, 8, 3))
    reads = backbone.read(params, many, ("block2/drop1", "block2/drop2"), key=jax.random.key(0))
    first, second = (np.abs(reads[f"block2/{name}"]).max(axis=(1, 2)) == 0 for name in ("drop1", "drop2"))
    assert 0.3 < (first == second).mean() < 0.7


def test_compute_dtype_leaves_parameters_alone(params, images):
    half = build(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.shapes().params)} == {jnp.dtype(jnp.float32)}
    found, exact = half.apply(params, images), build().apply(params, images)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float32), exact, atol=0.15)
    assert np.abs(np.asarray(found, np.float32) - exact).max() > 0
    out, lse = half.shapes().ports["block0/attn/core"][1]
    assert out.dtype == jnp.bfloat16 and lse.dtype == jnp.float32


def test_pre_logits_is_a_tanh_layer_after_the_norm(params, images):
    layer = {"kernel": jnp.eye(TINY.width)[::-1] * 0.7, "bias": jnp.full(TINY.width, 0.1)}
    with_layer = build(pre_logits=True)
    expected = np.tanh(np.asarray(build().apply(params, images)) @ np.asarray(layer["kernel"]) + 0.1)
    np.testing.assert_allclose(with_layer.apply({**params, "representation": layer}, images), expected, atol=1e-6)


def test_epsilon_reaches_every_norm(params, images):
    flat = jnp.zeros_like(images)
    still = jax.tree.map(jnp.zeros_like, params)
    still["cls_token"] = jnp.ones_like(still["cls_token"]).at[..., 0].add(1e-3)
    still["norm"] = params["norm"]
    for i in range(TINY.depth):  # branches stay zero, so that every norm sees the class token's small spread
        still[f"block{i}"] |= {name: params[f"block{i}"][name] for name in ("norm1", "norm2")}
    norms = ("block0/norm1", "block2/norm2", "norm")
    reads = [build(epsilon=epsilon).read(still, flat, norms) for epsilon in (1e-6, 1e-2)]
    for name in reads[0]:
        assert np.abs(reads[0][name] - reads[1][name]).max() > 1e-3, name


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 8, 8), r"multiples of 4, found \(2, 3, 8, 8\); move channels last"),
        ((2, 8, 6, 3), r"images: expected \(B, H, W, 3\) with H and W multiples of 4, found \(2, 8, 6, 3\)"),
    ],
)
def test_wrong_images_are_told_in_one_line(params, shape, message):
    with pytest.raises(ValueError, match=message) as caught:
        build().apply(params, jnp.zeros(shape))
    assert "\n" not in str(caught.value)


def test_unknown_sizes_and_ports_are_told(params, images):
    with pytest.raises(ValueError, match="size: found 'b17', expected one of mini, ti16, s16, b16, l16, h14"):
        vit("b17")
    with pytest.raises(ValueError, match="has no port 'block0/attn_ou'; did you mean 'block0/attn_out'?"):
        build().read(params, images, ("block0/attn_ou",))


def test_writing_at_a_port_is_seen_downstream(params, images):
    backbone = build()
    writers = {"block1/out": lambda call, x, **seen: seen["inputs"]}  # a block that does nothing
    skipped = backbone.read(params, images, ("block0/out", "block1/out"), writers=writers)
    np.testing.assert_array_equal(skipped["block1/out"], skipped["block0/out"])
    twice = ports.compose(writers, {"block1/out": lambda call, x, **seen: 2 * call(x, **seen)})
    doubled = backbone.read(params, images, ("block1/out",), writers=twice)
    np.testing.assert_array_equal(doubled["block1/out"], 2 * skipped["block0/out"])
