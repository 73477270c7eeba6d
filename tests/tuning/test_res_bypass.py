"""Res-Tuning-Bypass: what it computes, and that the backbone is never differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import rules
from jaxmodels.backbones.vit import vit
from jaxmodels.tuning.bypass_chain import ChainKinds, init_chain, run_chain
from jaxmodels.tuning.classifier import bypass_reads, classifier
from jaxmodels.tuning.res_adapter import adapter
from jaxmodels.tuning.res_bypass import res_tuning_bypass
from jaxmodels.weights import names
from jaxmodels.weights.res_tuning import bypass_rows
from tests.tiny_vit import BACKBONE
from tests.tuning.tiny import KEY, backbone_params, images, random_params

LABELS = jnp.array([0, 2])


PAIR = images(3)[:2]


@pytest.fixture
def frozen():
    return backbone_params()


def identity_tail(x):
    return x[:, 0]


def reads_of(frozen, tuner, backbone=BACKBONE):
    return jax.jit(lambda params: backbone.read(params, PAIR, tuner.reads(backbone)))(frozen)


def test_published_parameter_counts():
    def count(tuner):
        return rules.count(jax.eval_shape(lambda key: tuner.init(key, vit("b16")), KEY))

    assert count(res_tuning_bypass(merge="sum")) == 387_312
    assert count(res_tuning_bypass()) == 387_312 + 12
    assert count(res_tuning_bypass(32, merge="sum")) == 24 * (2 * 768 * 32 + 768 + 32)


@pytest.mark.parametrize("merge", ["lambda", "sum"])
def test_the_equation(frozen, merge):
    tuner = res_tuning_bypass(3, merge=merge)
    params = random_params(tuner)
    reads = reads_of(frozen, tuner)
    x = reads["tokens"]
    for i in range(2):
        block = params[f"block{i}/out"]
        lam = jax.nn.sigmoid(block["lam"]) if merge == "lambda" else None
        sides = adapter(block["lateral"], reads[f"block{i}/out"]), adapter(block["vertical"], x)
        x = sides[0] + sides[1] if lam is None else lam * sides[0] + (1 - lam) * sides[1]
    np.testing.assert_allclose(tuner.bypass(params, reads, identity_tail), x[:, 0], atol=1e-5)


def test_lambda_starts_at_one_half():
    params = res_tuning_bypass(3).init(KEY, BACKBONE)
    assert [float(jax.nn.sigmoid(p["lam"])) for p in params.values()] == [0.5, 0.5]


def test_kinds_without_parameters(frozen):
    both = res_tuning_bypass(merge="sum", lateral="identity", vertical="identity")
    reads = reads_of(frozen, both)
    total = reads["tokens"] + reads["block0/out"] + reads["block1/out"]
    assert rules.count(both.init(KEY, BACKBONE)) == 0
    np.testing.assert_allclose(both.bypass({}, reads, identity_tail), total[:, 0], atol=1e-5)
    last = res_tuning_bypass(merge="sum", lateral="identity", vertical="zero")
    np.testing.assert_allclose(last.bypass({}, reads, identity_tail), reads["block1/out"][:, 0])
    root = res_tuning_bypass(merge="sum", lateral="zero", vertical="identity")
    np.testing.assert_allclose(root.bypass({}, reads, identity_tail), reads["tokens"][:, 0])


def test_options_show(frozen):
    reads = reads_of(frozen, res_tuning_bypass(3))
    plain = res_tuning_bypass(3)

    def run(tuner, params):
        return tuner.bypass(params, reads, identity_tail)

    for options in ({"weight": "scalar_0.5"}, {"merge": "sum"}, {"lateral": "identity"}, {"vertical": "zero"}):
        difference = run(res_tuning_bypass(3, **options), random_params(plain)) - run(plain, random_params(plain))
        assert float(jnp.abs(difference).max()) > 1e-4, options
    widths = [p["lateral"]["down"]["kernel"].shape[1] for p in random_params(res_tuning_bypass([2, 4])).values()]
    assert widths == [2, 4]
    assert "scaling" in random_params(res_tuning_bypass(3, weight="gate"))["block0/out"]["lateral"]
    grouped = random_params(res_tuning_bypass(lateral="group_adapter"))["block0/out"]["lateral"]
    assert grouped["down"]["bias"].shape == (BACKBONE.width // 2,)


def test_only_the_last_block_starts_as_the_identity():
    params = jax.jit(lambda key: res_tuning_bypass(3, zero_init_last=True).init(key, BACKBONE))(KEY)
    zero = {path: [not p[s]["up"]["kernel"].any() for s in ("lateral", "vertical")] for path, p in params.items()}
    assert zero == {"block0/out": [False, False], "block1/out": [True, True]}


def test_twelve_blocks_keep_their_order_through_jit():
    generator = np.random.default_rng(0)
    paths = ["tokens", *(f"block{i}/out" for i in range(12))]
    reads = {path: generator.normal(size=(1, 2, 4)).astype(np.float32) for path in paths}
    params = {path: {"lam": np.float32(generator.normal())} for path in paths[1:]}
    x = reads["tokens"]
    for path in paths[1:]:
        lam = 1 / (1 + np.exp(-params[path]["lam"]))
        x = lam * reads[path] + (1 - lam) * x
    tuner = res_tuning_bypass(lateral="identity", vertical="identity")
    found = jax.jit(lambda p, r: tuner.bypass(p, r, identity_tail))(params, reads)
    np.testing.assert_allclose(found, x[:, 0], atol=1e-6)


def problem(frozen, tuner):
    method = classifier(BACKBONE, tuner, num_classes=3)
    head = {"kernel": jax.random.normal(KEY, (BACKBONE.width, 3)), "bias": jnp.zeros(3)}
    params = {"backbone": frozen, "tuner": random_params(tuner), "head": head}

    def loss(params, batch):
        return method.loss({"params": params, "state": {}}, batch, KEY)[0]

    return params, loss


def test_no_gradient_reaches_the_backbone_below_the_final_norm(frozen):
    params, loss = problem(frozen, res_tuning_bypass(3))
    grads = jax.jit(jax.grad(loss))(params, {"image": PAIR, "label": LABELS})
    reached = {
        rules.path_name(path).split("/")[0]
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads["backbone"])
        if float(jnp.abs(leaf).max()) > 0.0
    }
    assert reached == {"norm"}
    assert all(float(jnp.abs(leaf).max()) > 0.0 for leaf in jax.tree.leaves(grads["tuner"]))


def test_training_costs_the_forward_pass_of_the_backbone_and_no_backward(frozen):
    tuner = res_tuning_bypass(3)
    params, loss = problem(frozen, tuner)

    def trained(part, batch):
        return loss({**params, **part}, batch)

    def products(function, *arguments):
        return str(jax.make_jaxpr(function)(*arguments)).count("dot_general[")

    part = {"tuner": params["tuner"], "head": params["head"]}
    reads = reads_of(frozen, tuner)
    whole = products(jax.grad(trained), part, {"image": PAIR, "label": LABELS})
    beside = products(jax.grad(trained), part, {"features": reads, "label": LABELS})
    forward = products(lambda images: bypass_reads(BACKBONE, tuner, params, {}, images, None), PAIR)
    assert forward > 0 and whole == beside + forward


def test_published_names_round_trip():
    tuner = res_tuning_bypass(3, merge="sum", weight="scale")
    params = random_params(tuner)
    rows = bypass_rows(params)
    written = names.write(params, rows)
    assert written["restuning_default.bypass_blocks.1.lateral_tuner.tuner.ln1.weight"].shape == (3, BACKBONE.width)
    again = names.read(written, rows, params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, again))
    with pytest.raises(ValueError, match="no counterpart of 'block0/out/lam'"):
        bypass_rows(res_tuning_bypass(3).init(KEY, BACKBONE))


def test_zero_initialised_pyramid_is_its_last_stem():
    kinds = ChainKinds("group_adapter", "group_adapter", "sum")
    generator = np.random.default_rng(0)
    stems = [generator.normal(size=(1, n, n, c)).astype(np.float32) for n, c in ((2, 16), (4, 16), (8, 8))]

    @jax.jit
    def run(key, stems):
        blocks = init_chain(key, (16, 16, 8), kinds, upsample_to=(16, 8, None), zero_init_last=True)
        return run_chain(blocks, stems[0], stems, kinds)

    assert bool((run(KEY, stems) == stems[-1]).all())


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: res_tuning_bypass(0), "hidden: found 0"),
        (lambda: res_tuning_bypass(merge="mean"), "merge: found 'mean'"),
        (lambda: res_tuning_bypass(lateral="adaptor"), "did you mean 'adapter'"),
        (lambda: res_tuning_bypass(lateral="zero", vertical="zero"), "carry nothing"),
        (lambda: res_tuning_bypass(lateral="zero", vertical="identity", weight="gate"), "neither lateral nor vertical"),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_stem_of_another_shape_is_named():
    with pytest.raises(ValueError, match="bypass block 0: .*expected its stem's"):
        run_chain([{}], jnp.ones((1, 2, 3)), [jnp.ones((1, 4, 3))], ChainKinds("identity", "identity", "sum"))
