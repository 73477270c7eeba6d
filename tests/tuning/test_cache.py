"""Cached features: the same training as computed ones, and no stale file goes unnoticed."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.tuning.cache import HEADER, cached_reads, open_cache
from jaxmodels.tuning.classifier import classifier, features
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.plain import linear
from jaxmodels.tuning.res_bypass import res_tuning_bypass
from jaxmodels.tuning.tuner import chain
from tests.tiny_vit import BACKBONE
from tests.tuning.tiny import KEY, backbone_params, random_params

TUNER = res_tuning_bypass(3)  # of a ViT it only needs the class token
GATED = res_tuning_bypass(3, weight="gate")  # a mean over all tokens


class Examples:
    """Five images; counts how often one is read."""

    def __init__(self, seed=0):
        self.images = np.random.default_rng(seed).normal(size=(5, 8, 8, 3)).astype(np.float32)
        self.reads = 0

    def __len__(self):
        return 5

    def __getitem__(self, index):
        self.reads += 1
        return {"image": self.images[index], "label": np.int32(index % 3)}


@pytest.fixture
def frozen():
    return backbone_params()


@pytest.mark.parametrize(("tuner", "tokens"), [(TUNER, 1), (GATED, 5), (chain(GATED), 5), (chain(TUNER), 1)])
def test_only_tokens_that_reach_the_features_are_kept(frozen, tuner, tokens):
    cache = cached_reads(BACKBONE, tuner, frozen, Examples())
    assert {x.shape for x in cache[:]["features"].values()} == {(5, tokens, BACKBONE.width)}


def test_the_other_tokens_never_reach_the_features(frozen):
    everywhere = BACKBONE._replace(pooled_tokens=None)
    params = {"backbone": frozen, "tuner": random_params(TUNER)}
    batch = {"image": Examples().images}
    narrow, wide = (features(b, TUNER, params, {}, batch, None) for b in (BACKBONE, everywhere))
    np.testing.assert_allclose(narrow, wide, atol=1e-6)


@pytest.mark.parametrize("tuner", [TUNER, GATED])
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_training_on_cached_features_is_training_on_images(frozen, tmp_path, where, tuner):
    examples, place = Examples(), "memory" if where == "memory" else tmp_path / "cache"
    cache = cached_reads(BACKBONE, tuner, frozen, examples, dtype="float32", where=place, batch_size=2)
    method = classifier(BACKBONE, tuner, num_classes=3)
    params = {"tuner": random_params(tuner), "head": {"kernel": jnp.ones((BACKBONE.width, 3)), "bias": jnp.zeros(3)}}

    @jax.jit
    def step(params, batch):
        def loss(p):
            return method.loss({"params": {**p, "backbone": frozen}, "state": {}}, batch, KEY)[0]

        return jax.tree.map(lambda x, g: x - 0.1 * g, params, jax.grad(loss)(params))

    computed = cached = params
    for chosen in ([0, 3], [4, 1]):
        batch = jax.tree.map(lambda *x: np.stack(x), *(examples[i] for i in chosen))
        computed = step(computed, batch)
        cached = step(cached, jax.tree.map(lambda *x: np.stack(x), *(cache[i] for i in chosen)))
    for a, b in zip(jax.tree.leaves(computed), jax.tree.leaves(cached), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert len(cache) == 5 and set(cache[0]) == {"features", "label"}
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, cached)
    assert max(jax.tree.leaves(moved)) > 1e-3


def test_features_and_slices(frozen):
    examples = Examples()
    cache = cached_reads(BACKBONE, TUNER, frozen, examples, dtype="float32", batch_size=3)
    expected = BACKBONE.read(frozen, jnp.asarray(examples.images), TUNER.reads(BACKBONE))
    for path, array in cache[:]["features"].items():
        np.testing.assert_allclose(array, expected[path][:, :1], atol=1e-5)
    np.testing.assert_array_equal(cache[np.array([4, 0])]["label"], [1, 0])
    with pytest.raises(IndexError):
        cache[5]


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_bfloat16_survives_its_storage(frozen, tmp_path, where):
    examples, place = Examples(), "memory" if where == "memory" else tmp_path / "cache"
    cache = cached_reads(BACKBONE, TUNER, frozen, examples, where=place)
    expected = BACKBONE.read(frozen, jnp.asarray(examples.images), ("block1/out",))["block1/out"][:, :1]
    found = cache[:]["features"]["block1/out"]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=2**-8)


def test_one_program_and_one_look_at_each_image(frozen, monkeypatch):
    traces, read = [], Backbone.read
    monkeypatch.setattr(Backbone, "read", lambda *a, **k: traces.append(1) or read(*a, **k))
    examples = Examples()
    cached_reads(BACKBONE, TUNER, frozen, examples, batch_size=2)  # 2 + 2 + 1
    assert len(traces) == 1 and examples.reads == 5


def test_a_fresh_folder_is_opened_and_pickles_by_name(frozen, tmp_path, monkeypatch):
    folder = tmp_path / "deep" / "cache"
    first = cached_reads(BACKBONE, TUNER, frozen, Examples(), where=folder)
    assert [path.name for path in folder.parent.iterdir()] == ["cache"]  # nothing half-written is left
    monkeypatch.setattr(Backbone, "read", None)  # computing would fail
    for again in (
        cached_reads(BACKBONE, TUNER, frozen, Examples(), where=folder),
        open_cache(folder),
        pickle.loads(pickle.dumps(first)),  # noqa: S301
    ):
        np.testing.assert_array_equal(again[3]["features"]["tokens"], first[3]["features"]["tokens"])
        assert again[3]["label"] == 0
    assert len(pickle.dumps(first)) < 400


def test_stale_folders_are_refused_then_replaced(frozen, tmp_path):
    folder = tmp_path / "cache"
    cached_reads(BACKBONE, TUNER, frozen, Examples(), where=folder)
    other = jax.tree.map(lambda x: x + 1e-3, frozen)
    for key, arguments, options in (
        ("backbone_hash", (TUNER, other, Examples()), {}),
        ("ports", (linear(), frozen, Examples()), {}),
        ("dtype", (TUNER, frozen, Examples()), {"dtype": "float32"}),
        ("number", (TUNER, frozen, [Examples()[i] for i in range(4)]), {}),
        ("examples_hash", (TUNER, frozen, Examples(1)), {}),
    ):
        with pytest.raises(ValueError, match=f"stale cache, {key} is"):
            cached_reads(BACKBONE, *arguments, where=folder, **options)
    new = cached_reads(BACKBONE, TUNER, other, Examples(), where=folder, recompute=True)
    expected = BACKBONE.read(other, jnp.asarray(Examples().images), ("block1/out",))["block1/out"][:, :1]
    np.testing.assert_allclose(new[:]["features"]["block1/out"].astype(np.float32), expected, rtol=2**-8)


def test_a_failure_leaves_the_old_cache_and_no_half_one(frozen, tmp_path):
    folder = tmp_path / "cache"
    cached_reads(BACKBONE, TUNER, frozen, Examples(), where=folder)
    before = json.loads((folder / HEADER).read_text())

    class Broken(Examples):
        def __getitem__(self, index):
            if self.reads > 6:  # five for the header, then the second image
                raise OSError("disk")
            return super().__getitem__(index)

    with pytest.raises(OSError, match="disk"):
        cached_reads(BACKBONE, TUNER, frozen, Broken(2), where=folder, recompute=True)
    assert json.loads((folder / HEADER).read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_folder_of_something_else_is_never_replaced(frozen, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=f"found no readable {HEADER}"):
        cached_reads(BACKBONE, TUNER, frozen, Examples(), where=tmp_path, recompute=True)
    assert (tmp_path / "photo.jpg").exists()


@pytest.mark.parametrize(
    "tuner, options, message",
    [
        (lora(2), {}, "'lora' runs inside the backbone"),
        (chain(lora(2), TUNER), {}, "'chain' changes the backbone as it trains"),
        (TUNER._replace(groups=lambda backbone: (("norm/.*", "tuner"),)), {}, "changes the backbone"),
        (TUNER, {"dtype": "float16"}, "dtype: found 'float16'"),
        (TUNER, {"batch_size": 0}, "batch_size: found 0"),
    ],
)
def test_wrong_requests_are_named(frozen, tuner, options, message):
    with pytest.raises(ValueError, match=message):
        cached_reads(BACKBONE, tuner, frozen, Examples(), **options)


def test_nothing_to_cache_is_an_error(frozen):
    with pytest.raises(ValueError, match="examples: found none"):
        cached_reads(BACKBONE, TUNER, frozen, [])
