"""What holds for every tuner, on one table: a new tuner is one line in CASES.

Parameters are randomised first: a zero B hides a dead A.
"""

import json
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmodels import ports, rules
from jaxmodels.backbones.vit import vit
from jaxmodels.tuning.adapter import adapter, adaptformer
from jaxmodels.tuning.classifier import classifier
from jaxmodels.tuning.fact import fact
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.plain import bitfit, full, linear, partial
from jaxmodels.tuning.res_adapter import res_adapter
from jaxmodels.tuning.res_bypass import res_tuning_bypass
from jaxmodels.tuning.res_prefix import res_prefix
from jaxmodels.tuning.res_tuning import res_tuning
from jaxmodels.tuning.snell import snell
from jaxmodels.tuning.snella import snella
from jaxmodels.tuning.ssf import ssf
from jaxmodels.tuning.tuner import Context, chain
from jaxmodels.tuning.vpt import vpt
from tests.quick import quick
from tests.tiny_vit import BACKBONE, SIZE, once
from tests.tuning.tiny import CLASSES, backbone_params, images, random_params, random_tree, tuned

CASES = {
    "linear": linear,
    "full": full,
    "partial": partial,
    "bitfit": bitfit,
    "lora": lambda: lora(3, alpha=6.0, targets=("q", "v", "fc1")),
    "lora_shared": lambda: lora(3, targets=("q", "k", "v", "proj"), shared_qkv_a=True, dropout=0.2),
    "houlsby": lambda: adapter(3, kind="houlsby"),
    "pfeiffer": lambda: adapter(3, kind="pfeiffer", activation="quick_gelu", init="kaiming_zero_up"),
    "adaptformer": lambda: adaptformer(3),
    "vpt_shallow": lambda: vpt(2, deep=False),
    "vpt_deep": lambda: vpt(2, deep=True),
    "ssf": ssf,
    "fact_tt": lambda: fact(3, kind="tt", scale=0.5, dropout=0.0),
    "fact_tk": lambda: fact(3, kind="tk", scale=0.5, dropout=0.0),
    "res_tuning": lambda: res_tuning(3, length=2),
    "res_tuning_other": lambda: res_tuning(3, length=2, mha="prompt", ffn="prefix", block="adapter", lam="learned"),
    "res_adapter_gate": lambda: res_adapter(3, place="mha", reads="output", weight="gate", shortcut=True),
    "res_tuning_bypass": lambda: res_tuning_bypass(4),
    "lora+ssf": lambda: chain(lora(3, targets=("q", "fc2")), ssf()),
    "ssf+lora+bitfit": lambda: chain(ssf(), lora(3), bitfit()),
    "vpt+houlsby+adaptformer": lambda: chain(vpt(2), adapter(3, kind="houlsby"), adaptformer(3)),
    "lora+linear": lambda: chain(lora(3), linear()),
    "prefix+adapter": lambda: chain(res_prefix(2, place="mha"), res_adapter(3, place="ffn")),
    "snell": lambda: snell(4, sparsity=0.4),
    "snell_fused": lambda: snell(4, sparsity=0.0, dropout=0.0, drop_path=0.0, fuse=True),
    "snell+vpt": lambda: chain(snell(4, sparsity=0.4, targets=("q", "fc1")), vpt(2)),
    "snella": lambda: snella(4, steps_per_epoch=2, sparsity=0.4),
}
MERGED = [name for name, build in CASES.items() if build().merge]
KEY = jax.random.key(7)
each_tuner = pytest.mark.parametrize("name", CASES)


@once
def batch():
    return {"image": images(8), "label": jnp.arange(8) % CLASSES}


def method_of(name, backbone=BACKBONE):
    return classifier(backbone, CASES[name](), num_classes=CLASSES)


@once
def variables_of(name, seed=0):
    tuner = CASES[name]()
    params = {
        "backbone": backbone_params(),
        "tuner": random_params(tuner, seed),
        "head": random_tree({"kernel": jnp.zeros((BACKBONE.width, CLASSES)), "bias": jnp.zeros(CLASSES)}, seed),
    }
    return {"params": params, "state": tuner.init_state(BACKBONE)}


def evaluate(method):
    """(variables, batch) -> (loss, logits, gradients of what trains)."""

    def run(variables, batch):
        trained, frozen = rules.split(variables["params"], method.groups)

        def loss(trained):
            return method.loss({**variables, "params": rules.merge(trained, frozen)}, batch, KEY)[0]

        value, grads = jax.value_and_grad(loss)(trained)
        return value, method.predict(variables, batch), grads

    return run


@once
def program(name):
    return quick(evaluate(method_of(name)))


@once
def reference(name, seed=0):
    return program(name)(variables_of(name, seed), batch())


@each_tuner
def test_jit_equals_eager(name):
    loss, logits, _ = reference(name)
    method, variables = method_of(name), variables_of(name)
    chex.assert_trees_all_close(method.loss(variables, batch(), KEY)[0], loss, rtol=1e-5)
    chex.assert_trees_all_close(method.predict(variables, batch()), logits, rtol=1e-5, atol=1e-6)


@each_tuner
def test_vmap_over_stacked_trees_equals_a_loop(name):
    method = method_of(name)
    both = jax.tree.map(lambda *x: jnp.stack(x), variables_of(name, 0), variables_of(name, 10))

    def run(variables):
        return method.loss(variables, batch(), KEY)[0], method.predict(variables, batch())

    found = quick(jax.vmap(run))(both)
    loop = jax.tree.map(lambda *x: jnp.stack(x), reference(name, 0)[:2], reference(name, 10)[:2])
    chex.assert_trees_all_close(found, loop, rtol=1e-5, atol=1e-6)


@each_tuner
def test_remat_and_a_sharded_batch_equal_plain_on_one_device(name):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(batch(), NamedSharding(mesh, PartitionSpec("data")))
    everywhere = jax.device_put(variables_of(name), NamedSharding(mesh, PartitionSpec()))
    method = method_of(name, vit(SIZE, image_size=8, remat=True))  # both at once: compilation is what takes time here
    found = quick(evaluate(method))(everywhere, spread)
    chex.assert_trees_all_close(found, reference(name), rtol=1e-5, atol=1e-6)


@each_tuner
def test_exactly_what_the_groups_name_has_a_gradient(name):
    groups = rules.label(variables_of(name)["params"], method_of(name).groups)
    training = {n for n, group in zip(rules.leaf_names(groups), jax.tree.leaves(groups), strict=True)}
    training -= {n for n in training if rules.match(n, method_of(name).groups) == rules.FROZEN}
    grads = reference(name)[2]
    assert set(rules.leaf_names(grads)) == training
    for path, gradient in zip(rules.leaf_names(grads), jax.tree.leaves(grads), strict=True):
        size = float(jnp.abs(gradient).max())
        # A constant added to every key shifts all logits of a query alike; the softmax does not see it.
        if re.search(r"attn/k_proj/(bias|shift)$", path):
            assert size < 1e-6, path
        else:
            assert size > 1e-7, path


@each_tuner
def test_a_tuner_without_groups_leaves_the_backbone_alone(name):
    trains_backbone = bool(CASES[name]().groups(BACKBONE))
    assert trains_backbone == bool(jax.tree.leaves(reference(name)[2]["backbone"]))


DROPOUT = {
    "lora": lambda: lora(3, dropout=0.5),
    "houlsby": lambda: adapter(3, kind="houlsby", dropout=0.5),
    "adaptformer": lambda: adaptformer(3, dropout=0.5),
    "vpt": lambda: vpt(2, dropout=0.5),
    "fact": lambda: fact(3, dropout=0.5),
}


@pytest.mark.parametrize("name", DROPOUT)
def test_dropout_does_not_depend_on_the_order_of_a_dict(name):
    tuner = DROPOUT[name]()
    params = random_params(tuner)  # in the order of jit and of files: sorted
    other = dict(reversed(params.items()))
    assert list(other) != list(params)
    np.testing.assert_array_equal(tuned(tuner, other, key=KEY), tuned(tuner, params, key=KEY))


@pytest.mark.parametrize("name", MERGED)
def test_merged_equals_unmerged(name):
    method, tuner, variables = method_of(name), CASES[name](), variables_of(name)
    params, state = variables["params"], variables["state"]
    merged = tuner.merge(params["tuner"], params["backbone"], state)
    chex.assert_trees_all_equal_shapes_and_dtypes(merged, params["backbone"])
    plain = classifier(BACKBONE, full(), num_classes=CLASSES)
    logits = plain.predict({"params": {"backbone": merged, "tuner": {}, "head": params["head"]}, "state": {}}, batch())
    chex.assert_trees_all_close(logits, method.predict(variables, batch()), rtol=1e-5, atol=1e-5)


@each_tuner
def test_the_tuner_changes_the_features(name):
    params = variables_of(name)["params"]
    if not jax.tree.leaves(params["tuner"]):
        return  # it trains the backbone or the head alone
    untouched = classifier(BACKBONE, full(), num_classes=CLASSES)
    logits = untouched.predict({"params": {**params, "tuner": {}}, "state": {}}, batch())
    assert float(jnp.abs(logits - reference(name)[1]).max()) > 1e-4


@each_tuner
def test_bf16_activations_stay_bf16_with_fp32_tuners(name):
    backbone, tuner = vit(SIZE, image_size=8, dtype=jnp.dtype("bfloat16")), CASES[name]()
    variables = variables_of(name)
    tuner_params, state = variables["params"]["tuner"], variables["state"]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(tuner_params))

    def apply(params, x):
        return backbone.apply(params, x, writers=tuner.writes(tuner_params, Context(params, state, KEY)))

    found = ports.shapes(apply, backbone_params(), images()).ports
    for path, (_, plain) in backbone.shapes().ports.items():
        expected = {leaf.dtype for leaf in jax.tree.leaves(plain)}
        assert {leaf.dtype for leaf in jax.tree.leaves(found[path][1])} == expected, path


@each_tuner
def test_config_is_json_with_the_method_first(name):
    config = CASES[name]().config
    assert json.loads(json.dumps(config)) == config
    assert next(iter(config)) == "method"


COUNTS = {  # of a ViT-B/16, without its head, as published
    "linear": (linear, 0),
    "full": (full, 85_798_656),
    "partial": (partial, 7_089_408),
    "bitfit": (bitfit, 102_912),
    "lora-8 of NOAH": (lambda: lora(8, shared_qkv_a=True), 294_912),
    "adapter-8 of NOAH": (lambda: adapter(8, activation="quick_gelu"), 156_768),
    "adaptformer-64": (lambda: adaptformer(64), 1_189_632),
    "vpt-shallow": (lambda: vpt(10, deep=False), 7_680),
    "vpt-deep": (lambda: vpt(10), 92_160),
    "ssf": (ssf, 204_288 + 1_536),
    "res-tuning": (res_tuning, 470_136),
    "res-tuning-bypass": (res_tuning_bypass, 387_312 + 12),
    "fact-tt": (lambda: fact(16), 2 * 768 * 16 + 12 * 12 * 16 * 16),
    "fact-tk": (lambda: fact(16, kind="tk"), 2 * 768 * 16 + 16**3 + 16 * 12 * 12),
}


@pytest.mark.parametrize("name", COUNTS)
def test_number_of_trained_parameters(name):
    build, expected = COUNTS[name]
    method = classifier(vit("b16"), build(), num_classes=10)
    params = jax.eval_shape(method.init, jax.random.key(0))["params"]
    trained, _ = rules.split({**params, "head": {}}, method.groups)
    assert rules.count(trained) == expected


def compiled_step(tuner):
    """A lowered train step (loss, gradient, clip by global norm, AdamW) and both halves of its abstract parameters."""
    method = classifier(BACKBONE, tuner, num_classes=CLASSES)
    variables = jax.eval_shape(method.init, jax.random.key(0))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))

    def step(trained, frozen, moments, state, batch):
        def loss(trained):
            return method.loss({"params": rules.merge(trained, frozen), "state": state}, batch, KEY)[0]

        value, grads = jax.value_and_grad(loss)(trained)
        updates, moments = optimizer.update(grads, moments, trained)
        return optax.apply_updates(trained, updates), moments, value

    trained, frozen = rules.split(variables["params"], method.groups)
    lowered = quick(step).lower(trained, frozen, jax.eval_shape(optimizer.init, trained), variables["state"], batch())
    return lowered, trained, frozen


def matrices_computed(lowered):
    """Shapes of every matrix product's result in the program."""
    found = re.findall(r"stablehlo\.dot_general.*-> tensor<([\dx]+)xf32>", lowered.as_text())
    return {tuple(map(int, shape.split("x"))) for shape in found}


def test_a_frozen_backbone_has_no_gradient_no_moment_and_no_update():
    lowered, trained, frozen = compiled_step(lora(3))
    frozen_shapes = {leaf.shape for leaf in jax.tree.leaves(frozen)}
    outputs = jax.tree.leaves(lowered.out_info)
    assert not frozen_shapes & {out.shape for out in outputs}
    assert len(outputs) == 3 * len(jax.tree.leaves(trained)) + 2  # parameters, two moments; the count and the loss
    assert sum(out.size for out in outputs) == 3 * rules.count(trained) + 2
    # Nor is a gradient of a frozen matrix computed on the way and thrown away.
    kernels = {shape for shape in frozen_shapes if len(shape) == 2}
    assert not (kernels | {shape[::-1] for shape in kernels}) & matrices_computed(lowered)
    # The frozen weights are arguments, no constants of the program.
    arguments = {leaf.shape for leaf in jax.tree.leaves(lowered.in_avals)}
    assert frozen_shapes <= arguments
    memory = lowered.compile().memory_analysis()
    assert memory.output_size_in_bytes < 4 * (3 * rules.count(trained) + 2) + 1024


def test_the_same_reading_finds_the_gradients_of_a_trained_backbone():
    lowered, trained, _ = compiled_step(full())
    kernels = {leaf.shape for leaf in jax.tree.leaves(trained["backbone"]) if leaf.ndim == 2}
    assert kernels <= {out.shape for out in jax.tree.leaves(lowered.out_info)}
    assert any({shape, shape[::-1]} & matrices_computed(lowered) for shape in kernels)
