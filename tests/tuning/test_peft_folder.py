"""LoRA adapters exchanged with peft: what they compute with a tiny ViT of Transformers, and every refusal."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.flax import load_file, save_file

from jaxmodels.backbones.vit import Size, vit
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.peft_folder import CONFIG, NAMES, WEIGHTS, load_peft, save_peft
from jaxmodels.tuning.plain import linear
from jaxmodels.tuning.sites import LINEARS
from jaxmodels.tuning.tuner import Context
from jaxmodels.weights import names
from jaxmodels.weights.names import Row
from tests.tuning.tiny import random_params, random_tree

BACKBONE = vit(Size(16, 2, 2, 4), image_size=8, epsilon=1e-12)
ALL = tuple(LINEARS)


def random_lora(**options):
    tuner = lora(3, **options)
    return tuner, random_params(tuner, backbone=BACKBONE)


def random_head():
    return random_tree({"kernel": jnp.zeros((16, 5)), "bias": jnp.zeros(5)}, 8)


def written(folder, *, head=None, naming="transformers5", **options):
    tuner, params = random_lora(**options)
    save_peft(folder, params, tuner.config, BACKBONE, head=head, naming=naming)
    return tuner, params


def edit(folder, **changes):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_arrays(folder, change):
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("naming", NAMES)
@pytest.mark.parametrize("targets", [("q", "v"), ("proj", "fc1"), ALL])
def test_saved_equals_loaded(tmp_path, naming, targets):
    tuner, params = written(tmp_path / "a", naming=naming, targets=targets, alpha=6.0, dropout=0.1, head=random_head())
    found = load_peft(tmp_path / "a", BACKBONE)
    assert found.tuner.config == {**tuner.config, "targets": [t for t in LINEARS if t in targets]}
    assert_equal(found.params, params)
    assert_equal(found.head, random_head())


def test_without_a_head_none_is_loaded(tmp_path):
    written(tmp_path / "a")
    assert load_peft(tmp_path / "a", BACKBONE).head is None


def test_a_shared_a_becomes_one_for_each_and_computes_the_same(tmp_path):
    tuner, params = written(tmp_path / "a", shared_qkv_a=True, targets=("q", "k", "v", "proj"))
    found = load_peft(tmp_path / "a", BACKBONE)
    backbone_params = random_tree(BACKBONE.shapes().params, 1)
    expected = tuner.merge(params, backbone_params, {})
    jax.tree.map(np.testing.assert_array_equal, found.tuner.merge(found.params, backbone_params, {}), expected)


def test_rslora_divides_by_the_root_of_the_rank(tmp_path):
    written(tmp_path / "a", alpha=6.0)
    edit(tmp_path / "a", use_rslora=True)
    assert load_peft(tmp_path / "a", BACKBONE).tuner.config["alpha"] / 3 == pytest.approx(6.0 / 3**0.5)


def test_half_precision_is_read_as_float32(tmp_path):
    _, params = written(tmp_path / "a")
    edit_arrays(tmp_path / "a", lambda arrays: {key: array.astype(jnp.bfloat16) for key, array in arrays.items()})
    found = load_peft(tmp_path / "a", BACKBONE).params
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2), found, params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "found use_dora=True, which lora does not have"),
        ({"rank_pattern": {"q_proj": 4}}, "found rank_pattern="),
        ({"alpha_pattern": {"q_proj": 4}}, "found alpha_pattern="),
        ({"lora_bias": True}, "found lora_bias=True"),
        ({"fan_in_fan_out": True}, "found fan_in_fan_out=True"),
        ({"layers_to_transform": [0]}, r"found layers_to_transform=\[0\]"),
        ({"option_of_the_future": 3}, "found option_of_the_future=3"),
        ({"bias": "lora_only"}, "found bias='lora_only', expected 'none'"),
        ({"modules_to_save": ["classifier", "pooler"]}, "found modules_to_save with 'pooler', expected 'classifier'"),
        ({"modules_to_save": ["classifier"]}, r"has modules_to_save=\['classifier'\], .* has no classifier"),
        ({"init_lora_weights": "pissa"}, "found init_lora_weights='pissa', expected one of"),
        ({"peft_type": "IA3"}, "found peft_type 'IA3', expected 'LORA'"),
        ({"r": 0}, "found r=0, expected a positive"),
        ({"r": 2.5}, "found r=2.5, expected a positive"),
        ({"lora_alpha": None}, "found lora_alpha=None, expected a positive"),
        ({"lora_dropout": 1.0}, "dropout: found 1.0"),
        ({"r": 4}, r"lora_A for 'block0/attn/q_proj' has the shape \(3, 16\), expected \(4, 16\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_that_would_change_the_result_is_refused_by_name(tmp_path, changes, message):
    written(tmp_path / "a")
    edit(tmp_path / "a", **changes)
    with pytest.raises(ValueError, match=message):
        load_peft(tmp_path / "a", BACKBONE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda key: key.replace("q_proj", "q_prj"), "nothing reads '.*q_prj.lora_A.weight'; did you mean '.*q_proj"),
        (
            lambda key: key.replace("layers.1.attention.q_proj", "layers.7.attention.q_proj"),
            "nothing reads '.*layers.7",
        ),
        (
            lambda key: None if "layers.1" in key else key,
            "has no lora_A for 'block1/attn/q_proj'; expected one in every",
        ),
        (lambda key: None if key.endswith("0.attention.v_proj.lora_B.weight") else key, "has no lora_B for 'block0/at"),
        (lambda key: None if "lora" in key else key, "adapts no layer of vit_16x2x2x4"),
        (lambda key: None if key.endswith("classifier.bias") else key, "expected classifier.weight .* and .bias"),
    ],
    ids=["misspelt", "block", "half", "no_b", "none", "classifier"],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, change, message):
    written(tmp_path / "a", head=random_head())
    edit_arrays(tmp_path / "a", lambda arrays: {change(k): array for k, array in arrays.items() if change(k)})
    with pytest.raises(ValueError, match=message):
        load_peft(tmp_path / "a", BACKBONE)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(
        ValueError, match="adapter_config.json: expected an adapter's configuration, found no such file"
    ):
        load_peft(tmp_path / "none", BACKBONE)
    written(tmp_path / "a")
    (tmp_path / "a" / WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="adapter_model.safetensors: is damaged"):
        load_peft(tmp_path / "a", BACKBONE)
    (tmp_path / "a" / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="adapter_model.safetensors: expected an adapter's arrays, found no such file"):
        load_peft(tmp_path / "a", BACKBONE)
    (tmp_path / "a" / CONFIG).write_text("{")
    with pytest.raises(ValueError, match="adapter_config.json: expected JSON"):
        load_peft(tmp_path / "a", BACKBONE)


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty, expected a new folder"):
        written(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("jaxmodels.tuning.peft_folder.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        written(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "VitModel"}, "model: found 'VitModel', expected one of .*; did you mean 'ViTModel'"),
        ({"naming": "transformers"}, "naming: found 'transformers', expected one of transformers5, transformers4"),
        ({"model": "ViTModel", "head": random_head()}, "model: 'ViTModel' has no classifier"),
    ],
)
def test_wrong_options_of_saving_are_named(tmp_path, options, message):
    tuner, params = random_lora()
    with pytest.raises(ValueError, match=message):
        save_peft(tmp_path / "a", params, tuner.config, BACKBONE, **options)


def test_only_lora_is_written(tmp_path):
    with pytest.raises(ValueError, match="found a tuner 'linear', expected 'lora'"):
        save_peft(tmp_path / "a", {}, linear().config, BACKBONE)


# With peft itself


@pytest.fixture(scope="module")
def libraries():
    """(torch, transformers, peft)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(pytest.importorskip(name) for name in ("torch", "transformers", "peft"))


def official(libraries, kind="ViTForImageClassification"):
    torch, transformers, _ = libraries
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    options = {"image_size": 8, "patch_size": 4, "num_labels": 5, "hidden_dropout_prob": 0.0}
    if kind == "ViTModel":
        return transformers.ViTModel(transformers.ViTConfig(**sizes, **options), add_pooling_layer=False).eval()
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, **options)).eval()


def converted(model):
    """The backbone's parameters of a tiny Transformers ViT, by its release's names."""
    arrays = {key.removeprefix("vit."): value.detach().numpy() for key, value in model.state_dict().items()}
    block, layers = NAMES["transformers5" if "layers.0.attention.q_proj.weight" in arrays else "transformers4"]
    rows = [
        Row("embeddings.cls_token", ("cls_token",)),
        Row("embeddings.position_embeddings", ("pos_embed",)),
        Row("embeddings.patch_embeddings.projection.weight", ("embed/kernel",), "o i h w -> h w i o"),
        Row("embeddings.patch_embeddings.projection.bias", ("embed/bias",)),
    ]
    for short, path in LINEARS.items():
        rows.append(Row(f"{block}.{layers[short]}.weight", (f"block{{}}/{path}/kernel",), "o i -> i o"))
        rows.append(Row(f"{block}.{layers[short]}.bias", (f"block{{}}/{path}/bias",)))
    norms = {f"{block}.layernorm_before": "block{}/norm1", f"{block}.layernorm_after": "block{}/norm2"}
    for theirs, ours in {**norms, "layernorm": "norm"}.items():
        rows += [Row(f"{theirs}.weight", (f"{ours}/scale",)), Row(f"{theirs}.bias", (f"{ours}/bias",))]
    params = names.read(arrays, names.expand(rows, 2), BACKBONE.shapes().params, drop=("classifier.*",))
    return jax.tree.map(jnp.asarray, params)


def image():
    return jnp.asarray(np.random.default_rng(5).standard_normal((3, 8, 8, 3)), jnp.float32)


def features(tuner, params, backbone_params):
    writers = tuner.writes(params, Context(backbone_params, {}, None))
    return BACKBONE.apply(backbone_params, image(), writers=writers)


def theirs(libraries, model):
    """Logits of a classifier, or the class token of a bare ViT."""
    torch = libraries[0]
    with torch.no_grad():
        out = model(pixel_values=torch.tensor(np.asarray(image()).transpose(0, 3, 1, 2)))
    return (out.logits if hasattr(out, "logits") else out.last_hidden_state[:, 0]).numpy()


def module_names(libraries, targets):
    """What peft's target_modules calls our targets, in the installed release of Transformers."""
    modules = [name for name, _ in official(libraries).named_modules()]
    naming = "transformers5" if any(name.endswith("attention.q_proj") for name in modules) else "transformers4"
    return naming, [NAMES[naming][1][target] for target in targets]


@pytest.mark.parametrize(("kind", "targets"), [("ViTForImageClassification", ALL), ("ViTModel", ("q", "fc2"))])
def test_peft_computes_the_same_with_what_we_write(libraries, tmp_path, kind, targets):
    model = official(libraries, kind)
    backbone_params, head = converted(model), random_head() if kind != "ViTModel" else None
    tuner, params = random_lora(targets=targets, alpha=7.5)
    naming, _ = module_names(libraries, targets)
    save_peft(tmp_path / "a", params, tuner.config, BACKBONE, head=head, model=kind, naming=naming)
    plain = theirs(libraries, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = libraries[2].PeftModel.from_pretrained(model, str(tmp_path / "a")).eval()
    expected = features(tuner, params, backbone_params)
    if head:
        expected = expected @ head["kernel"] + head["bias"][None]
    found = theirs(libraries, adapted)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found - plain).max() > 1e-2


@pytest.mark.parametrize("rslora", [False, True])
def test_we_compute_the_same_with_what_peft_writes(libraries, tmp_path, rslora):
    torch, _, peft = libraries
    model = official(libraries)
    backbone_params = converted(model)
    options = {"r": 3, "lora_alpha": 5, "lora_dropout": 0.1, "use_rslora": rslora}
    _, modules = module_names(libraries, ("q", "k", "proj", "fc1"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        config = peft.LoraConfig(target_modules=modules, modules_to_save=["classifier"], **options)
        adapted = peft.get_peft_model(model, config).eval()
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        adapted.save_pretrained(str(tmp_path / "a"))
    found = load_peft(tmp_path / "a", BACKBONE)
    assert found.tuner.config["targets"] == ["q", "k", "proj", "fc1"]
    logits = features(found.tuner, found.params, backbone_params) @ found.head["kernel"] + found.head["bias"][None]
    np.testing.assert_allclose(logits, theirs(libraries, adapted), rtol=1e-4, atol=1e-5)
    merged = BACKBONE.apply(found.tuner.merge(found.params, backbone_params, {}), image())
    logits = merged @ found.head["kernel"] + found.head["bias"][None]
    np.testing.assert_allclose(logits, theirs(libraries, adapted), rtol=1e-4, atol=1e-5)
