"""Hugging Face peft's LoRA adapters of a ViT: a folder of adapter_config.json and adapter_model.safetensors.

What peft computes is what `lora` computes: W + s B A, s = lora_alpha / r (lora_alpha / sqrt(r) with use_rslora), with
A (r, in) and B (out, r), the transposes of ours. An option that would change this and that `lora` does not have is an
error which names it; nothing is read in part. Transformers names the layers in two ways: since release 5
'layers.0.attention.q_proj', before 'encoder.layer.0.attention.attention.query'. Both are read, either is written.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.flax import load_file, save_file

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.rules import nearest
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.sites import LINEARS, linears
from jaxmodels.tuning.tuner import Tuner

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

# naming -> (path of a block, {our short name: path of the layer within the block})
NAMES = {
    "transformers5": (
        "layers.{}",
        {
            "q": "attention.q_proj",
            "k": "attention.k_proj",
            "v": "attention.v_proj",
            "proj": "attention.o_proj",
            "fc1": "mlp.fc1",
            "fc2": "mlp.fc2",
        },
    ),
    "transformers4": (
        "encoder.layer.{}",
        {
            "q": "attention.attention.query",
            "k": "attention.attention.key",
            "v": "attention.attention.value",
            "proj": "attention.output.dense",
            "fc1": "intermediate.dense",
            "fc2": "output.dense",
        },
    ),
}
MODELS = {"ViTForImageClassification": "vit.", "ViTModel": ""}  # class -> prefix of its backbone's parameters

READ = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "modules_to_save", "bias", "init_lora_weights"}
# Which layers are adapted is told by the arrays; the rest describes the file, or how training began.
IGNORED = {
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
}
STARTS = (True, False, "gaussian", "orthogonal")  # initialisations that leave the base weights as they were


class PeftAdapter(NamedTuple):
    """What a folder holds: the tuner, its parameters, and the head ({'kernel', 'bias'}) or None."""

    tuner: Tuner
    params: Any
    head: Any


def save_peft(
    folder: str | os.PathLike[str],
    params: Mapping[str, Any],
    config: Mapping[str, Any],
    backbone: Backbone,
    *,
    head: Mapping[str, Any] | None = None,
    model: str = "ViTForImageClassification",
    naming: str = "transformers5",
    base_model: str | None = None,
) -> None:
    """Writes a LoRA tuner as an adapter folder for `peft.PeftModel.from_pretrained`.

    Args:
        folder: a new or empty folder; it appears complete or not at all.
        params: the tuner's parameters. An A that q, k and v share is written for each of them.
        config: the tuner's config, `tuner.config`.
        backbone: the ViT that was tuned.
        head: a linear head {'kernel' (D, C), 'bias' (C,)}, written as the module 'classifier' that peft saved whole.
        model: the Transformers class it is for, 'ViTForImageClassification' or 'ViTModel' (which has no head).
        naming: 'transformers5', or 'transformers4' for releases before 5.
        base_model: hub name or folder of the base model, for peft's Auto classes.

    Raises:
        ValueError: a tuner that is not LoRA, an unknown model or naming, a head for 'ViTModel', or a folder in use.
    """
    folder = Path(folder)
    if config.get("method") != "lora":
        raise ValueError(f"{folder}: found a tuner '{config.get('method')}', expected 'lora'")
    for option, value, known in (("model", model, MODELS), ("naming", naming, NAMES)):
        if value not in known:
            raise ValueError(f"{option}: found '{value}', expected one of {', '.join(known)}{nearest(value, known)}")
    if head is not None and model == "ViTModel":
        raise ValueError("model: 'ViTModel' has no classifier; write the head for 'ViTForImageClassification'")
    arrays, modules = {}, []
    for path in linears(backbone, config["targets"]):
        modules.append(MODELS[model] + _published(path, backbone, naming))
        a = params[path if "a" in params[path] else path.rsplit("/", 1)[0] + "/qkv"]["a"]
        arrays[f"{PREFIX}{modules[-1]}.lora_A.weight"] = a.T
        arrays[f"{PREFIX}{modules[-1]}.lora_B.weight"] = params[path]["b"].T
    if head is not None:
        arrays[f"{PREFIX}classifier.weight"] = head["kernel"].T
        arrays[f"{PREFIX}classifier.bias"] = head["bias"]
    alpha = float(config["alpha"])
    written = {
        "auto_mapping": {"base_model_class": model, "parent_library": "transformers.models.vit.modeling_vit"},
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": config["dropout"],
        "modules_to_save": None if head is None else ["classifier"],
        "peft_type": "LORA",
        "r": config["rank"],
        "target_modules": modules,  # whole paths: '.output.dense' alone would be proj and fc2
        "use_dora": False,
        "use_rslora": False,
    }
    _write(folder, arrays, written)


def load_peft(folder: str | os.PathLike[str], backbone: Backbone) -> PeftAdapter:
    """Reads an adapter folder onto a ViT.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors.
        backbone: the ViT it is for. Transformers' ViTs have epsilon=1e-12.

    Returns:
        The tuner, its parameters in float32, and the head where the folder holds a classifier.

    Raises:
        ValueError: a missing or damaged file, an option that `lora` does not have, layers that are adapted in some
            blocks only, or arrays that are missing, left over or of another shape.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    arrays = _read_arrays(folder / WEIGHTS)
    rank = config["r"]
    alpha = config["lora_alpha"] * (rank**0.5 if config.get("use_rslora") else 1.0)
    sites, head = _sort(arrays, backbone, folder / WEIGHTS)
    if bool(head) != bool(config.get("modules_to_save")):
        raise ValueError(
            f"{folder}: {CONFIG} has modules_to_save={config.get('modules_to_save')}, "
            f"{WEIGHTS} has {'a' if head else 'no'} classifier"
        )
    targets = [target for target, path in LINEARS.items() if any(site.endswith("/" + path) for site in sites)]
    params = {}
    for path, site in linears(backbone, targets).items():
        shapes = {"a": (site.inputs, rank), "b": (rank, site.outputs)}
        params[path] = {name: _taken(sites, path, name, shape, folder / WEIGHTS) for name, shape in shapes.items()}
    tuner = lora(rank, alpha=alpha, targets=targets, dropout=float(config.get("lora_dropout") or 0.0))
    return PeftAdapter(tuner, params, head or None)


def _published(path: str, backbone: Backbone, naming: str) -> str:
    """The published name of a linear layer of ours."""
    block = next(block for block in backbone.blocks if path.startswith(f"{block}/"))
    pattern, layers = NAMES[naming]
    target = next(target for target, end in LINEARS.items() if path == f"{block}/{end}")
    return f"{pattern.format(backbone.blocks.index(block))}.{layers[target]}"


def _sort(arrays: Mapping[str, Any], backbone: Backbone, source: Path) -> tuple[dict[str, dict[str, Any]], dict]:
    """Published arrays -> ({our layer path: {'a', 'b'}}, head)."""
    known = {
        f"{_published(path, backbone, naming)}.lora_{matrix.upper()}.weight": (path, matrix)
        for naming in NAMES
        for path in linears(backbone, LINEARS)
        for matrix in "ab"
    }
    sites: dict[str, dict[str, Any]] = {}
    head: dict[str, Any] = {}
    for key, array in arrays.items():
        name = key.removeprefix(PREFIX).removeprefix("vit.")
        if name in ("classifier.weight", "classifier.bias"):
            part = "kernel" if name.endswith("weight") else "bias"
            head[part] = jnp.asarray(array, jnp.float32).T
        elif name in known:
            path, matrix = known[name]
            sites.setdefault(path, {})[matrix] = jnp.asarray(array, jnp.float32).T
        else:
            raise ValueError(f"{source}: nothing reads '{key}'{nearest(name, known)}")
    if not sites:
        raise ValueError(f"{source}: adapts no layer of {backbone.name}")
    if head and (set(head) != {"kernel", "bias"} or head["kernel"].shape != (backbone.width, *head["bias"].shape)):
        found = {name: value.shape[::-1] for name, value in head.items()}
        raise ValueError(f"{source}: expected classifier.weight (C, {backbone.width}) and .bias (C,), found {found}")
    return sites, head


def _taken(sites: Mapping[str, Mapping[str, Any]], path: str, name: str, shape: Sequence[int], source: Path) -> Any:
    array = sites.get(path, {}).get(name)
    if array is None:
        raise ValueError(f"{source}: has no lora_{name.upper()} for '{path}'; expected one in every block")
    if array.shape != tuple(shape):
        found, expected = array.shape[::-1], tuple(shape)[::-1]
        raise ValueError(f"{source}: lora_{name.upper()} for '{path}' has the shape {found}, expected {expected}")
    return array


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: expected an adapter's configuration, found no such file") from None
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON ({error})") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        found = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise ValueError(f"{path}: found peft_type '{found}', expected 'LORA'")
    for key, kinds in (("r", int), ("lora_alpha", int | float)):
        if not isinstance(config.get(key), kinds) or isinstance(config[key], bool) or config[key] <= 0:
            what = "integer" if kinds is int else "number"
            raise ValueError(f"{path}: found {key}={config.get(key)!r}, expected a positive {what}")
    if config.get("bias", "none") != "none":
        raise ValueError(f"{path}: found bias='{config['bias']}', expected 'none'; lora trains no biases")
    if config.get("init_lora_weights", True) not in STARTS:
        raise ValueError(
            f"{path}: found init_lora_weights='{config['init_lora_weights']}', expected one of {STARTS}; "
            "others change the base weights too"
        )
    other = [module for module in config.get("modules_to_save") or () if module != "classifier"]
    if other:
        raise ValueError(f"{path}: found modules_to_save with '{other[0]}', expected 'classifier' alone")
    for key, value in config.items():
        if key not in READ | IGNORED and value:  # every option of peft is off when it is None, False or empty
            raise ValueError(f"{path}: found {key}={value!r}, which lora does not have; expected it unset")
    return config


def _read_arrays(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: expected an adapter's arrays, found no such file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: is damaged or no safetensors file ({error})") from None


def _write(folder: Path, arrays: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Writes both files into a folder beside the final one, which then takes its name."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: exists and is not empty, expected a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        contiguous = {name: jnp.asarray(np.ascontiguousarray(array)) for name, array in arrays.items()}
        save_file(contiguous, draft / WEIGHTS, metadata={"format": "pt"})
        (draft / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        draft.chmod(0o777 & ~_umask())  # mkdtemp's is private
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
