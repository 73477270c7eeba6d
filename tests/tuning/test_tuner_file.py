"""Tuner files: what comes back, and every way in which a file does not belong to a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxmodels.backbones.vit import vit
from jaxmodels.tuning.classifier import classifier
from jaxmodels.tuning.heads import mlp_head
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.tuner import Tuner
from jaxmodels.tuning.tuner_file import backbone_hash, load_tuner, read_header, save_tuner
from jaxmodels.weights.files import read_arrays, read_metadata, write_safetensors
from tests.tiny_vit import SIZE, random_like

CLASSES = 3


def biases(rate: float = 0.5) -> Tuner:
    """Trains the backbone's biases, and keeps a state with leaves of every kind."""
    state = {"active": jnp.array([True, False]), "step": jnp.array(3), "level": jnp.array(rate)}
    return Tuner(
        {"method": "biases", "rate": rate, "sites": ("q", "k")},
        groups=lambda backbone: ((".*/bias", "tuner"),),
        init_state=lambda backbone: state,
    )


def trained(tuner, backbone, head=None, seed=0):
    """Variables in which nothing is as initialised."""
    variables = jax.eval_shape(
        lambda key: classifier(backbone, tuner, num_classes=CLASSES, head=head).init(key, None), jax.random.key(0)
    )
    state = jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), tuner.init_state(backbone))
    return {"params": random_like(variables["params"], seed), "state": state}


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tuner.safetensors"


@pytest.mark.parametrize("tuner", [lora(2, targets=("q", "fc1")), biases()], ids=lambda tuner: tuner.config["method"])
@pytest.mark.parametrize("head", [None, mlp_head(2)], ids=["linear", "mlp"])
def test_everything_trained_comes_back(path, backbone, tuner, head):
    variables = trained(tuner, backbone, head)
    save_tuner(path, tuner, backbone, variables, num_classes=CLASSES, head=head)
    other = random_like(variables["params"]["backbone"], seed=9)
    frozen = jax.tree_util.tree_map_with_path(  # the published weights: what the tuner trains is something else there
        lambda keys, a, b: b if tuner.groups(backbone) and keys[-1].key == "bias" else a,
        variables["params"]["backbone"],
        other,
    )
    same(load_tuner(path, tuner, backbone, frozen, head=head), variables)


def test_the_file_holds_only_what_was_trained(path, backbone):
    tuner = lora(2, targets=("q",))
    save_tuner(path, tuner, backbone, trained(tuner, backbone), num_classes=CLASSES)
    sites = {f"tuner/block{i}/attn/q_proj/{leaf}" for i in range(SIZE.depth) for leaf in "ab"}
    assert set(load_file(path)) == sites | {"head/kernel", "head/bias"}
    save_tuner(path, biases(), backbone, trained(biases(), backbone), num_classes=CLASSES)
    names = set(load_file(path))
    assert "backbone/block0/attn/q_proj/bias" in names and "state/active" in names
    assert not any(name.startswith("backbone/") and not name.endswith("/bias") for name in names)


def test_the_header_describes_the_task(path, backbone):
    tuner = lora(2)
    variables = trained(tuner, backbone)
    task = {"classes": ["a", "b", "c"], "mean": [0.5, 0.5, 0.5]}
    save_tuner(path, tuner, backbone, variables, num_classes=CLASSES, task=task)
    header = read_header(path)
    assert header["tuner"] == tuner.config and header["head"] == {"head": "linear"}
    assert header["task"] == task and header["num_classes"] == CLASSES
    assert header["backbone"] == backbone.name
    assert header["backbone_hash"] == backbone_hash(variables["params"]["backbone"])


def test_the_hash_sees_names_shapes_dtypes_and_values():
    tree = {"a": jnp.arange(4.0), "b": {"c": jnp.ones(2)}}
    others = [
        {"a": jnp.arange(4.0), "b": {"d": jnp.ones(2)}},
        {"a": jnp.arange(4.0).reshape(2, 2), "b": {"c": jnp.ones(2)}},
        {"a": jnp.arange(4.0).astype(jnp.bfloat16), "b": {"c": jnp.ones(2)}},
        {"a": jnp.arange(4.0).at[3].set(3.0000002), "b": {"c": jnp.ones(2)}},
    ]
    assert backbone_hash({"b": tree["b"], "a": np.asarray(tree["a"]), "gap": None}) == backbone_hash(tree)
    assert len({backbone_hash(other) for other in [tree, *others]}) == 5


@pytest.fixture
def saved(path, backbone):
    tuner = lora(2)
    variables = trained(tuner, backbone)
    save_tuner(path, tuner, backbone, variables, num_classes=CLASSES)
    return variables["params"]["backbone"]


def test_other_weights_are_refused(path, backbone, saved):
    changed = {**saved, "cls_token": saved["cls_token"] + 1e-6}
    with pytest.raises(ValueError, match="tuner.safetensors: was trained on other weights of vit_.*: found hash"):
        load_tuner(path, lora(2), backbone, changed)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), saved)
    with pytest.raises(ValueError, match=r"found hash \w+ \(bfloat16\), expected \w+ \(float32\)"):
        load_tuner(path, lora(2), backbone, half)


def test_what_the_tuner_trains_is_no_part_of_the_hash(path, backbone):
    variables = trained(biases(), backbone)
    save_tuner(path, biases(), backbone, variables, num_classes=CLASSES)
    params = variables["params"]["backbone"]
    load_tuner(path, biases(), backbone, {**params, "norm": {**params["norm"], "bias": jnp.zeros(SIZE.width)}})
    with pytest.raises(ValueError, match="other weights"):
        load_tuner(path, biases(), backbone, {**params, "norm": {**params["norm"], "scale": jnp.zeros(SIZE.width)}})


def test_another_backbone_is_refused(path, saved):
    other = vit(SIZE._replace(depth=3), image_size=8)
    with pytest.raises(ValueError, match=r"was trained on the backbone 'vit_16x2x2x4', expected 'vit_16x3x2x4'"):
        load_tuner(path, lora(2), other, random_like(other.shapes().params))


@pytest.mark.parametrize(
    ("tuner", "head", "message"),
    [
        (lora(3), None, "'alpha' found 2.0, expected 3.0; 'rank' found 2, expected 3$"),
        (lora(2, dropout=0.1), None, "tuner configuration differs: 'dropout' found 0.0, expected 0.1$"),
        (
            lora(2, targets=("q",)),
            None,
            r"differs: 'targets' found \['q', 'k', 'v'\], expected \['q'\]$",
        ),
        (biases(), None, "'alpha' found 2.0, expected nothing; .*'method' found lora, expected biases"),
        (lora(2), mlp_head(2), "head configuration differs: 'head' found linear, expected mlp"),
    ],
)
def test_another_configuration_names_the_key(path, backbone, saved, tuner, head, message):
    with pytest.raises(ValueError, match=message):
        load_tuner(path, tuner, backbone, saved, head=head)


def test_nested_configurations_name_the_inner_key(path, backbone):
    def chained(rank):
        return Tuner({"method": "chain", "parts": {"lora": {"method": "lora", "rank": rank}}})

    variables = trained(chained(2), backbone)
    save_tuner(path, chained(2), backbone, variables, num_classes=CLASSES)
    with pytest.raises(ValueError, match="tuner configuration differs: 'parts.lora.rank' found 2, expected 4$"):
        load_tuner(path, chained(4), backbone, variables["params"]["backbone"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("head/bias"), "has no 'head/bias'"),
        (lambda a: a.update({"head/biass": a.pop("head/bias")}), "has no 'head/bias'; did you mean 'head/biass'?"),
        (lambda a: a.update({"tuner/more": a["head/bias"]}), "nothing reads 'tuner/more'"),
        (
            lambda a: a.update({"head/bias": np.ones(4, np.float32)}),
            r"'head/bias' has the shape \(4,\), expected \(3,",
        ),
        (lambda a: a.update({"head/bias": np.ones(3, np.int32)}), "'head/bias' is int32, expected float32"),
    ],
)
def test_a_file_that_fits_in_part_is_refused(path, backbone, saved, change, message):
    arrays, metadata = read_arrays(path), read_metadata(path)
    change(arrays)
    write_safetensors(path, arrays, metadata=metadata)
    with pytest.raises(ValueError, match=f"tuner.safetensors: {message}"):
        load_tuner(path, lora(2), backbone, saved)


def test_other_files_are_no_tuners(path, tmp_path, backbone, saved):
    arrays, metadata = read_arrays(path), read_metadata(path)
    for text in ({}, {"jaxmodels_tuner": "{"}, {"jaxmodels_tuner": "{}"}, {"jaxmodels_tuner": "[]"}):
        write_safetensors(path, arrays, metadata=text)
        with pytest.raises(ValueError, match="is no tuner file, expected the entry 'jaxmodels_tuner'"):
            read_header(path)
    newer = metadata["jaxmodels_tuner"].replace('"format": 1', '"format": 2')
    write_safetensors(path, arrays, metadata={"jaxmodels_tuner": newer})
    with pytest.raises(ValueError, match="tuner format 2, expected 1; it was written by"):
        load_tuner(path, lora(2), backbone, saved)
    with pytest.raises(ValueError, match="absent.safetensors: expected a .safetensors file, found no such file"):
        load_tuner(tmp_path / "absent.safetensors", lora(2), backbone, saved)


def test_saving_refuses_other_suffixes_and_headers_that_are_no_json(tmp_path, path, backbone):
    variables = trained(lora(2), backbone)
    with pytest.raises(ValueError, match="expected a name that ends in .safetensors"):
        save_tuner(tmp_path / "tuner.npz", lora(2), backbone, variables, num_classes=CLASSES)
    for task in ({"accuracy": float("nan")}, {"classes": {1, 2}}):
        with pytest.raises(ValueError, match="the header holds what JSON cannot"):
            save_tuner(path, lora(2), backbone, variables, num_classes=CLASSES, task=task)
    ambiguous = {"params": {**variables["params"], "tuner": {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}}, "state": {}}
    with pytest.raises(ValueError, match="two leaves are named 'tuner/a/b'"):
        save_tuner(path, lora(2), backbone, ambiguous, num_classes=CLASSES)
    assert not path.exists()


def test_a_loaded_tuner_predicts_as_the_saved_one(path, backbone):
    tuner = lora(2)
    variables = trained(tuner, backbone)
    method = classifier(backbone, tuner, num_classes=CLASSES)
    save_tuner(path, tuner, backbone, variables, num_classes=CLASSES)
    loaded = load_tuner(path, tuner, backbone, variables["params"]["backbone"])
    predict = jax.jit(method.predict)
    batch = {"image": jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 8, 3), np.float32))}
    np.testing.assert_array_equal(predict(loaded, batch), predict(variables, batch))
