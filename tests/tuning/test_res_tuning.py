"""Prefix, prompt and their combinations on a backbone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import rules
from jaxmodels.backbones.vit import Block, vit
from jaxmodels.tuning.res_adapter import res_adapter
from jaxmodels.tuning.res_prefix import res_prefix
from jaxmodels.tuning.res_prompt import res_prompt
from jaxmodels.tuning.res_tuning import KINDS, res_tuning
from jaxmodels.tuning.tuner import Context, chain
from jaxmodels.tuning.unbound import attend_shared
from tests.tiny_vit import BACKBONE, SIZE
from tests.tuning.tiny import KEY, backbone_params, images, noisy, random_params

PAIR = images(3)[:2]


@pytest.fixture
def frozen():
    return backbone_params()


def features(frozen, tuner, params, backbone=BACKBONE):
    def apply(frozen, params):
        return backbone.apply(frozen, PAIR, writers=tuner.writes(params, Context(frozen, {}, None)))

    return jax.jit(apply)(frozen, params)


def test_prompt_at_the_attention_is_vpt_deep(frozen):
    tuner = res_prompt(3, place="mha", normalise=True)
    params = random_params(tuner)

    @jax.jit
    def deep(frozen):
        x = BACKBONE.read(frozen, PAIR, ("tokens",))["tokens"]
        for i in range(SIZE.depth):
            prompts = params[f"block{i}/attn/core"]["prompt"].reshape(1, 3, SIZE.width)
            both = jnp.concatenate([x, jnp.broadcast_to(prompts, (2, 3, SIZE.width))], 1)
            x = Block(SIZE.heads).apply({"params": frozen[f"block{i}"]}, both)[:, : x.shape[1]]
        return BACKBONE.tail(frozen, x)

    expected = deep(frozen)
    np.testing.assert_allclose(features(frozen, tuner, params), expected, atol=1e-5)
    plain = features(frozen, res_prompt(3, place="mha"), params)
    assert float(jnp.abs(plain - expected).max()) > 1e-3
    wide = features(frozen, res_prompt(3, place="mha", normalise=True, epsilon=0.5), params)
    assert float(jnp.abs(wide - expected).max()) > 1e-4


def test_two_prefixes_are_one_longer_prefix(frozen):
    both = chain(res_prefix(2), res_prefix(3))
    params = random_params(both)
    context = Context(frozen, both.init_state(BACKBONE), None)
    separate = BACKBONE.apply(frozen, PAIR, writers=both.writes(params, context))
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *params.values())
    np.testing.assert_allclose(separate, features(frozen, res_prefix(5), joined), atol=1e-5)


def test_constant_weight(frozen):
    params = random_params(res_prefix(2))
    nothing = features(frozen, res_prefix(2, lam=0.0), params)
    np.testing.assert_allclose(nothing, BACKBONE.apply(frozen, PAIR), atol=1e-6)
    queries = BACKBONE.read(frozen, PAIR, ("block0/attn/q_proj",))["block0/attn/q_proj"].reshape(2, 5, 2, -1)
    only = res_prefix(2, lam=1.0).writes(params, Context(frozen, {}, None))
    out = BACKBONE.read(frozen, PAIR, ("block0/attn_out",), writers=only)["block0/attn_out"]
    prefix, proj = params["block0/attn/core"], frozen["block0"]["attn"]["proj"]
    branch, _ = attend_shared(queries, prefix["key"], prefix["value"])
    expected = branch.reshape(2, 5, SIZE.width) @ proj["kernel"] + proj["bias"][None, None]
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("build", [res_prefix, res_prompt])
@pytest.mark.parametrize("place", ["ffn", "block"])
def test_beside_other_operations_the_branch_is_added_without_projection(frozen, build, place):
    params = random_params(build(3, place=place))
    out, into = {"ffn": ("block0/mlp_out", "block0/norm2"), "block": ("block0/out", "tokens")}[place]
    plain = BACKBONE.read(frozen, PAIR, (out, into))
    leaves = params[out]
    keys, values = (leaves["prompt"],) * 2 if "prompt" in leaves else (leaves["key"], leaves["value"])
    branch, _ = attend_shared(plain[into].reshape(2, 5, 2, -1), keys, values)
    for lam, weight in ((None, 1.0), (0.5, 0.5), ("learned", 0.5)):
        tuner = build(3, place=place, lam=lam)
        own = params if lam != "learned" else {path: {**p, "lam": jnp.zeros(())} for path, p in params.items()}
        tuned = BACKBONE.read(frozen, PAIR, (out,), writers=tuner.writes(own, Context(frozen, {}, None)))[out]
        np.testing.assert_allclose(tuned, plain[out] + weight * branch.reshape(2, 5, SIZE.width), atol=1e-5)


def test_learned_weight_starts_where_equal_scores_put_it_and_trains(frozen):
    tuner = res_prefix(2, lam="learned")
    params = tuner.init(KEY, BACKBONE)
    start = jax.nn.sigmoid(params["block0/attn/core"]["lam"])
    assert float(start) == pytest.approx(2 / (2 + 5))
    grads = jax.grad(lambda p: (features(frozen, tuner, p) * jnp.arange(float(SIZE.width))[None]).sum())(noisy(params))
    assert all(float(jnp.abs(p["lam"])) > 1e-6 for p in grads.values())


def test_initial_bound_is_that_of_a_1_n_d_tensor():
    leaf = res_prefix(10).init(KEY, vit("s16"))["block0/attn/core"]["key"]
    assert leaf.shape == (10, 6, 64)
    bound = (6 / (10 * 384 + 384)) ** 0.5
    assert float(jnp.abs(leaf).max()) == pytest.approx(bound, rel=0.01) and float(jnp.abs(leaf).max()) <= bound


def test_published_parameter_counts():
    def count(tuner):
        return rules.count(jax.eval_shape(lambda key: tuner.init(key, vit("b16")), KEY))

    assert count(res_prefix(10)) == 184_320
    assert count(res_adapter(10)) == 193_656
    assert count(res_prompt(10)) == 92_160
    assert count(res_tuning()) == 470_136


@pytest.mark.parametrize("mha, ffn, block", [c for c in itertools.product(KINDS, repeat=3) if set(c) != {"none"}])
def test_every_combination_writes_where_it_should(mha, ffn, block):
    tuner = res_tuning(3, length=2, mha=mha, ffn=ffn, block=block)
    width = SIZE.width
    counts = {"prefix": 2 * 2 * width, "prompt": 2 * width, "adapter": 2 * 3 * width + 3 + width, "none": 0}

    def run(key, params):
        tree = tuner.init(key, BACKBONE)
        context = Context(params, tuner.init_state(BACKBONE), None)
        return tree, BACKBONE.apply(params, PAIR, writers=tuner.writes(tree, context))

    tree, out = jax.eval_shape(run, KEY, BACKBONE.shapes().params)
    assert rules.count(tree) == 2 * sum(counts[kind] for kind in (mha, ffn, block))
    assert out.shape == (2, SIZE.width)
    ports = {path.split("/", 1)[1] for part in tree.values() for path in part}
    expected = {"attn_out" if mha == "adapter" else "attn/core": mha, "mlp_out": ffn, "out": block}
    assert ports == {port for port, kind in expected.items() if kind != "none"}


def test_none_and_the_word_none_are_the_same():
    assert res_tuning(mha=None).config == res_tuning(mha="none").config


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 4},
        {"length": 4},
        {"lam": 0.3},
        {"reads": "output"},
        {"weight": "scalar_3"},
        {"normalise": True, "mha": "prompt"},
    ],
)
def test_each_option_shows(frozen, options):
    base = {"rank": 3, "length": 2, "mha": options.get("mha", "prefix")}

    def run(**chosen):
        tuner = res_tuning(**chosen)
        params = tuner.init(KEY, BACKBONE)
        return BACKBONE.apply(
            frozen, PAIR, writers=tuner.writes(params, Context(frozen, tuner.init_state(BACKBONE), None))
        )

    assert float(jnp.abs(run(**base) - run(**base | options)).max()) > 1e-4


def test_rematerialised_gradients_are_the_same(frozen):
    tuner = res_tuning(3, length=2)
    params = random_params(tuner)

    def grads(backbone):
        def loss(p):
            writers = tuner.writes(p, Context(frozen, tuner.init_state(BACKBONE), None))
            return jnp.square(backbone.apply(frozen, PAIR, writers=writers)).sum()

        return jax.jit(jax.grad(loss))(params)

    plain, again = grads(BACKBONE), grads(vit(SIZE, image_size=8, remat=True))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        assert float(jnp.abs(a).max()) > 0.0
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: res_prefix(0), "length: found 0"),
        (lambda: res_prompt(-1), "length: found -1"),
        (lambda: res_prefix(2, place="head"), "place: found 'head'"),
        (lambda: res_prefix(2, place="ffn", lam="exact"), "'exact' mixes with the frozen attention"),
        (lambda: res_prefix(2, lam="exakt"), "did you mean 'exact'"),
        (lambda: res_prompt(2, normalise=True), "normalise: needs place='mha'"),
        (lambda: res_tuning(mha="prefixes"), "did you mean 'prefix'"),
        (lambda: res_tuning(mha=None, ffn=None, block=None), "all none"),
        (lambda: res_tuning(mha="adapter", lam=0.5), "no prefix or prompt at the attention"),
        (lambda: res_tuning(ffn="none", weight="gate"), "no adapter"),
        (lambda: res_tuning(normalise=True), "no prompt at the attention"),
    ],
)
def test_wrong_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_backbone_without_attention_is_named():
    convolutional = BACKBONE._replace(name="convnext_t", blocks=("stage0/block0",))
    with pytest.raises(ValueError, match="convnext_t has no port 'stage0/block0/attn/core'"):
        res_prefix(2).init(KEY, convolutional)
