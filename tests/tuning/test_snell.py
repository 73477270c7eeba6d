import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmodels.backbones.convnext import Size as ConvNeXtSize
from jaxmodels.backbones.convnext import convnext
from jaxmodels.backbones.swin import Size as SwinSize
from jaxmodels.backbones.swin import swin
from jaxmodels.backbones.vit import Size, vit
from jaxmodels.rules import count, leaf_names, merge, split
from jaxmodels.tuning import dropout, kernelized
from jaxmodels.tuning.classifier import classifier
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.parallel_adapter import parallel_adapter
from jaxmodels.tuning.snell import klora, mixk, snell
from jaxmodels.tuning.tuner import Tuner, chain
from tests.tiny_vit import SIZE, once

OFF = {"dropout": 0.0, "drop_path": 0.0}
TINY = vit(SIZE._replace(depth=1), image_size=8)
HIERARCHICAL = {
    "swin": swin(SwinSize(8, (1, 1), (2, 2), 2, 2), image_size=8),
    "convnext": convnext(ConvNeXtSize((1, 1), (8, 12)), image_size=8),
}


@once
def batch():
    images = jax.random.normal(jax.random.key(9), (4, 8, 8, 3))
    return {"image": images, "label": jnp.array([0, 1, 2, 1])}


def build(tuner, backbone=TINY):
    """A method with factors so large that the update matters."""
    method = classifier(backbone, tuner, num_classes=3)
    variables = method.init(jax.random.key(0), batch())
    variables["params"]["tuner"] = jax.tree.map(lambda x: 4.0 * x, variables["params"]["tuner"])
    return method, variables


def gradient(method, variables, key=None):
    trained, frozen = split(variables["params"], method.groups)

    def loss(trained):
        return method.loss({"params": merge(trained, frozen), "state": variables["state"]}, batch(), key)[0]

    return jax.jit(jax.value_and_grad(loss))(trained)


def assert_close(a, b, tolerance=1e-4):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        scale = max(float(np.abs(y).max()), 1e-6)
        np.testing.assert_allclose(x, y, atol=tolerance * scale)


def test_factors_are_uniform_with_the_official_bound_and_count():
    params = snell(8).init(jax.random.key(0), TINY)
    layer = params["block0/mlp/fc1"]
    assert layer["in_q"].shape == (2, 16, 4) and layer["out_q"].shape == (2, 64, 4)
    assert 0.9 < float(jnp.abs(layer["in_q"]).max()) * (16 * 4) ** 0.5 <= 1.0
    assert 0.9 < float(jnp.abs(layer["out_q"]).max()) * (64 * 4) ** 0.5 <= 1.0
    assert count(params) == 8 * sum(i + o for i, o in [(16, 16)] * 4 + [(16, 64), (64, 16)])


def test_full_size_has_the_published_number_of_parameters():
    params = jax.eval_shape(lambda key: snell(8).init(key, vit("b16")), jax.random.key(0))
    assert count(params) == 165_888 * 8


@pytest.mark.parametrize("tuner", [snell(4, sparsity=0.6), klora(4), mixk(4), snell(4, kernel="rbf", sparsify="eq5")])
def test_merged_weights_give_the_same_logits(tuner):
    method, variables = build(tuner)
    logits = method.predict(variables, batch())
    params = variables["params"]
    merged = tuner.merge(params["tuner"], params["backbone"], variables["state"])
    plain = {"params": {**params, "backbone": merged, "tuner": {}}, "state": {}}
    without = classifier(TINY, Tuner({"method": "nothing"}), num_classes=3)
    np.testing.assert_allclose(without.predict(plain, batch()), logits, atol=1e-5)
    frozen = {"params": {**plain["params"], "backbone": params["backbone"]}, "state": {}}
    unmerged = without.predict(frozen, batch())
    assert np.abs(unmerged - logits).max() > 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": 0.6},
        {"sparsity": 0.0},
        {"sparsity": 0.6, "kernel": "mixture"},
        {"sparsity": 0.6, "sparsify": "eq5"},
    ],
)
def test_recomputation_changes_neither_loss_nor_gradient(options):
    results = [gradient(*build(snell(4, recompute=r, **options)), jax.random.key(3)) for r in (True, False)]
    assert_close(*results)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(results[0][1]["tuner"])) > 1e-6


def test_one_fused_product_changes_neither_loss_nor_gradient():
    assert_close(*(gradient(*build(snell(4, fuse=fuse, **OFF))) for fuse in (True, False)))


def test_a_fused_product_leaves_the_writers_before_it_alone():
    results = []
    for fuse in (True, False):
        method, variables = build(chain(lora(2), snell(4, fuse=fuse, **OFF)))
        variables["params"]["tuner"] = jax.tree.map(lambda x: x + 0.1, variables["params"]["tuner"])
        results.append(gradient(method, variables))
    assert_close(*results)
    assert float(jnp.abs(results[0][1]["tuner"]["lora"]["block0/attn/q_proj"]["a"]).max()) > 0


def test_a_rematerialised_backbone_gives_the_same_gradients():
    plain = gradient(*build(snell(4)), jax.random.key(3))
    again = gradient(*build(snell(4), vit(SIZE._replace(depth=1), image_size=8, remat=True)), jax.random.key(3))
    assert_close(again, plain)


def test_recomputation_keeps_no_merged_matrix():
    backbone = vit(Size(64, 4, 2, 8), image_size=16)
    batch = {"image": jnp.zeros((1, 16, 16, 3)), "label": jnp.zeros(1, jnp.int32)}

    def temporary(tuner):
        method = classifier(backbone, tuner, num_classes=3)
        variables = jax.eval_shape(method.init, jax.random.key(0), batch)
        state = jax.tree.map(jnp.float32, tuner.init_state(backbone))
        trained, frozen = split(variables["params"], method.groups)
        step = jax.jit(jax.grad(lambda t, f, s, b: method.loss({"params": merge(t, f), "state": s}, b, None)[0]))
        return step.lower(trained, frozen, state, batch).compile().memory_analysis().temp_size_in_bytes

    merged = 4 * sum(i * o for i, o in [(64, 64)] * 4 + [(64, 256), (256, 64)]) * 4
    stored, recomputed = (temporary(snell(4, recompute=r, **OFF)) for r in (False, True))
    assert stored - recomputed > 0.6 * merged


def test_a_changed_level_does_not_recompile_and_matters():
    method, variables = build(snell(4, sparsity=0.2))
    traces = []

    @jax.jit
    def predict(variables):
        traces.append(0)
        return method.predict(variables, batch())

    before = predict(variables)
    levels = {path: np.float32(0.99) for path in variables["state"]}
    after = predict({**variables, "state": levels})
    assert len(traces) == 1 and np.abs(before - after).max() > 1e-5


def test_levels_may_differ_per_layer_and_zero_means_klora():
    levels = {"q": 0.0, "k": 0.5, "v": 0.5, "proj": 0.5, "fc1": 0.25, "fc2": 0.5, "block0/attn/v_proj": 0.75}
    tuner = snell(4, sparsity=levels)
    state = tuner.init_state(TINY)
    assert {p.split("/")[-1]: float(s) for p, s in state.items()} == {
        "k_proj": 0.5,
        "v_proj": 0.75,
        "proj": 0.5,
        "fc1": 0.25,
        "fc2": 0.5,
    }
    params = tuner.init(jax.random.key(0), TINY)
    kernel = TINY.init(jax.random.key(1))
    merged = tuner.merge(params, kernel, state)["block0"]["attn"]
    ours = kernel["block0"]["attn"]
    shift = {
        name: float(jnp.abs(merged[name]["kernel"] - ours[name]["kernel"]).mean()) for name in ("q_proj", "k_proj")
    }
    assert shift["q_proj"] > 20 * shift["k_proj"] > 0


def test_q_k_and_v_share_one_dropped_copy_and_proj_has_none(monkeypatch):
    seen = []
    original = kernelized._product
    monkeypatch.setattr(
        kernelized,
        "_product",
        lambda layers, x, p, level, seed, kernel: (
            seen.append(None if seed is None else tuple(np.asarray(seed).tolist())),
            original(layers, x, p, level, seed, kernel),
        )[1],
    )
    method, variables = build(snell(4, recompute=False))
    method.loss(variables, batch(), jax.random.key(1))
    q, k, v, proj, fc1, fc2 = seen
    assert q == k == v and proj is None and len({q, fc1, fc2, None}) == 4


def test_dropout_and_drop_path_act_only_with_a_key_and_only_when_asked_for():
    for off, options in ((False, {"drop_path": 0.0}), (False, {"dropout": 0.0}), (True, OFF)):
        method, variables = build(snell(4, **options))
        losses = [float(method.loss(variables, batch(), k)[0]) for k in (None, jax.random.key(1), jax.random.key(2))]
        assert (len(set(losses)) == 1) == off


def test_drop_path_drops_whole_examples_at_its_rate():
    mask = np.asarray(dropout.drop_path(dropout.seed_of(jax.random.key(0)), jnp.ones((20_000, 2, 2)), 0.1))
    assert set(np.unique(mask.reshape(len(mask), -1).std(1))) == {0.0}
    assert abs(mask.mean() - 1.0) < 0.01 and np.isclose(mask.max(), 1 / 0.9)


def test_dropout_drops_independent_elements_at_its_rate():
    masks = [np.asarray(dropout.keep(dropout.seed_of(jax.random.key(i)), (512, 512), 0.1)) for i in range(3)]
    for mask in masks:
        assert abs(mask.mean() - 0.9) < 0.002
        centred = mask - mask.mean()
        for shift in ((0, 1), (1, 0), (1, 1), (0, 8), (8, 0)):
            assert abs((centred * np.roll(centred, shift, (0, 1))).mean()) < 0.001
    assert abs(np.corrcoef(masks[0].ravel(), masks[1].ravel())[0, 1]) < 0.01


def test_the_class_token_and_a_head_norm_train_unless_extras_are_off():
    for backbone, extra in ((TINY, "cls_token"), (HIERARCHICAL["convnext"], "head_norm/scale")):
        for train in (True, False):
            method = classifier(backbone, snell(4, train_extras=train), num_classes=3)
            params = jax.eval_shape(method.init, jax.random.key(0), {})["params"]
            trained = leaf_names(split(params, method.groups)[0])
            assert (f"backbone/{extra}" in trained) == train
            assert sum(name.startswith("backbone/") for name in trained) == train * (1 + (extra != "cls_token"))
    assert snell(4).groups(HIERARCHICAL["swin"]) == ()


@pytest.mark.parametrize("name", HIERARCHICAL)
def test_every_linear_of_other_backbones_is_tuned(name):
    backbone = HIERARCHICAL[name]
    method, variables = build(snell(4, sparsity=0.3), backbone)
    per_block = {"swin": 6, "convnext": 2}[name]
    assert len(variables["params"]["tuner"]) == per_block * len(backbone.blocks)
    _, grads = gradient(method, variables, jax.random.key(5))
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads))
    assert len(build(snell(4, targets=("fc1",)), backbone)[1]["params"]["tuner"]) == len(backbone.blocks)


def test_a_bfloat16_backbone_merges_in_float32():
    backbone = vit(SIZE._replace(depth=1), image_size=8, dtype=jnp.bfloat16)
    method, variables = build(snell(4), backbone)
    variables["params"]["backbone"] = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables["params"]["backbone"])
    value, grads = gradient(method, variables)
    wide, wide_grads = gradient(*build(snell(4)))
    assert abs(float(value - wide)) < 0.02
    fc1 = [g["tuner"]["block0/mlp/fc1"]["in_q"] for g in (grads, wide_grads)]
    assert fc1[0].dtype == jnp.float32 and np.corrcoef(fc1[0].ravel(), fc1[1].ravel())[0, 1] > 0.99


def test_training_lowers_the_loss():
    method, variables = build(snell(4, sparsity=0.5, **OFF))
    trained, frozen = split(variables["params"], method.groups)
    optimizer = optax.adamw(3e-2)

    @jax.jit
    def step(trained, opt, key):
        def loss(trained):
            return method.loss({"params": merge(trained, frozen), "state": variables["state"]}, batch(), key)[0]

        value, grads = jax.value_and_grad(loss)(trained)
        updates, opt = optimizer.update(grads, opt, trained)
        return optax.apply_updates(trained, updates), opt, value

    opt, losses = optimizer.init(trained), []
    for i in range(36):
        trained, opt, value = step(trained, opt, jax.random.key(i))
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]


def test_the_config_rebuilds_the_tuner():
    for tuner in (snell(4, sparsity={"fc1": 0.5}, targets=("fc1",)), mixk(4, dropout=0.0)):
        options = {k: v for k, v in tuner.config.items() if k != "method"}
        assert snell(**options).config == tuner.config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 3}, "rank: found 3, expected a positive multiple of pieces=2"),
        ({"sparsity": 1.5}, "sparsity: found 1.5"),
        ({"dropout": 1.0}, "dropout: found 1.0"),
        ({"drop_path": -0.1}, "drop_path: found -0.1"),
        ({"fuse": True}, "fuse: needs dropout=0 and drop_path=0, found dropout=0.1"),
        ({"kernel": "cubic"}, "kernel: found 'cubic'"),
        ({"sparsify": "soft"}, "sparsify: found 'soft'"),
        ({"selection": "heap"}, "selection: found 'heap'"),
    ],
)
def test_a_wrong_option_is_named_when_the_tuner_is_built(options, message):
    with pytest.raises(ValueError, match=message):
        snell(**{"rank": 4, **options})


def test_a_layer_without_a_level_is_named():
    with pytest.raises(ValueError, match="says nothing about the layer 'block0/attn/q_proj'"):
        snell(4, sparsity={"fc1": 0.5}).init_state(TINY)


def test_the_parallel_adapter_starts_frozen_and_follows_its_equation():
    tuner = parallel_adapter(3, targets=("fc1",))
    params = tuner.init(jax.random.key(0), TINY)
    write = tuner.writes(params, None)["block0/mlp/fc1"]
    x = jax.random.normal(jax.random.key(1), (2, 5, 16))
    assert write(lambda x: jnp.zeros((2, 5, 64)), x).tolist() == np.zeros((2, 5, 64)).tolist()
    layer = jax.tree.map(lambda p: jax.random.normal(jax.random.key(2), p.shape), params["block0/mlp/fc1"])
    found = tuner.writes({"block0/mlp/fc1": layer}, None)["block0/mlp/fc1"](lambda x: jnp.ones((2, 5, 64)), x)
    hidden = np.asarray(x @ layer["down"]["kernel"]) + np.asarray(layer["down"]["bias"])
    hidden = np.asarray(jax.nn.gelu(hidden, approximate=False))
    expected = 1 + hidden @ np.asarray(layer["up"]["kernel"]) + np.asarray(layer["up"]["bias"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="rank: found 0"):
        parallel_adapter(0)
