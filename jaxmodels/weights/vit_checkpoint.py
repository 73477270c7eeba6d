"""Reading and writing Vision Transformer checkpoints, in every layout of `jaxmodels.weights.vit`."""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.atomic import write_text
from jaxmodels.backbones.backbone import Backbone
from jaxmodels.backbones.vit import SIZES, ViT
from jaxmodels.weights import names
from jaxmodels.weights.files import Arrays, read_arrays, write_npz, write_safetensors
from jaxmodels.weights.names import Row, expand
from jaxmodels.weights.pos_embed import resize_pos_embed
from jaxmodels.weights.vit import LAYOUTS, WRITTEN, Layout


class Checkpoint(NamedTuple):
    """A file's arrays without their prefix, and the layout that names them."""

    arrays: Arrays
    layout: Layout


def load_vit(path: str | os.PathLike[str], backbone: Backbone, *, resize: str = "timm") -> Any:
    """Parameters of a ViT from a published checkpoint.

    The published head is not read (see `load_vit_head`), nor is the tanh layer of ImageNet-21k files unless the
    backbone was built with pre_logits=True. timm's and single Hugging Face files do not tell the number of attention
    heads: it is the backbone's.

    Args:
        path: .safetensors (single or sharded), Google's .npz, or a folder as Transformers saves it.
        backbone: `vit(...)` of the checkpoint's size; its image size decides the grid of positions.
        resize: how the position embedding moves to another grid: 'timm', 'hf' or 'google', see `resize_pos_embed`.

    Returns:
        The backbone's parameter tree in float32.

    Raises:
        ValueError: a damaged file, an unknown layout, another size, or parameters that are missing or left over.
    """
    module = _module(backbone)
    arrays, layout = open_vit(path)
    _check_size(path, arrays, layout, backbone)
    positions = arrays[layout.positions]
    if not layout.class_has_position:
        positions = np.concatenate([np.zeros_like(positions[:, :1]), positions], axis=1)
    try:
        positions = resize_pos_embed(positions, backbone.image_size // module.size.patch, rule=resize)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    unread = () if module.pre_logits else tuple(re.escape(row.theirs) for row in layout.pre_logits)
    params = names.read(
        {**arrays, layout.positions: positions},
        _rows(layout, module),
        backbone.shapes().params,
        axes={"heads": module.size.heads},
        drop=(*layout.drop, *unread),
        source=str(path),
    )
    return jax.tree.map(jnp.asarray, params)


def load_vit_head(path: str | os.PathLike[str], backbone: Backbone) -> dict[str, jax.Array]:
    """The published classifier of a checkpoint, for its own classes: parameters of `linear_head()`.

    Args:
        path: as in `load_vit`.
        backbone: `vit(...)` of the checkpoint's size.

    Returns:
        {'kernel' (D, C), 'bias' (C,)} in float32.

    Raises:
        ValueError: the checkpoint has no head, or one of another width.
    """
    arrays, layout = open_vit(path)
    head: dict[str, jax.Array] = {}
    for row in layout.head:
        if row.theirs not in arrays:
            raise ValueError(f"{path}: has no '{row.theirs}', it was published without a head")
        head |= {name: jnp.asarray(leaf) for name, leaf in names.to_ours(arrays[row.theirs], row, {}).items()}
    if head["kernel"].shape[0] != backbone.width:
        raise ValueError(f"{path}: its head reads {head['kernel'].shape[0]} features, expected {backbone.width}")
    return head


def save_vit(
    path: str | os.PathLike[str], params: Any, backbone: Backbone, *, layout: str = "timm", head: Any = None
) -> None:
    """Writes a ViT under published names, atomically; `load_vit` reads the same parameters back.

    Args:
        path: .safetensors for 'timm' and 'hf', .npz for 'google'. With 'hf' a path without suffix becomes a folder
            with config.json, which Transformers' `from_pretrained` opens.
        params: the backbone's parameters, a merged tuner's too.
        backbone: `vit(...)`.
        layout: 'timm', 'hf' (names of the files on the hub) or 'google' (the original code's).
        head: {'kernel' (D, C), 'bias' (C,)} or None.

    Raises:
        ValueError: an unknown layout, a suffix that does not fit, or what the layout cannot express.
    """
    path, module = Path(path), _module(backbone)
    _check_writable(path, layout, module, head)
    table = WRITTEN[layout]
    prefix = "vit." if layout == "hf" and head is not None else ""
    backbone_arrays = names.write(params, _rows(table, module), axes={"heads": module.size.heads})
    arrays = {prefix + name: array for name, array in backbone_arrays.items()}
    if head is not None:
        arrays |= names.write(head, table.head)
    if layout == "google":
        write_npz(path, arrays)
        return
    if not path.suffix:
        write_text(path / "config.json", json.dumps(_config(backbone, head), indent=2))
        path = path / "model.safetensors"
    write_safetensors(path, arrays, metadata={"format": "pt"})


def open_vit(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint and finds its layout by the parameter that only this layout has.

    Raises:
        ValueError: no ViT checkpoint that is known here.
    """
    published = read_arrays(path)
    for name in published:
        if re.split(r"[./]", name)[-1] in ("dist_token", "distillation_token"):
            raise ValueError(f"{path}: '{name}' is DeiT's second prefix token; expected a ViT with one class token")
    for layout in LAYOUTS:
        for prefix in layout.prefixes:
            if prefix + layout.signature.format(0) in published:
                return Checkpoint({name.removeprefix(prefix): array for name, array in published.items()}, layout)
    expected = ", ".join(f"'{layout.signature.format(0)}' ({layout.name})" for layout in LAYOUTS)
    found = ", ".join(f"'{name}'" for name in list(published)[:3]) or "nothing"
    raise ValueError(f"{path}: no known layout of a ViT; found {found}, expected one of {expected}")


def _rows(layout: Layout, module: ViT) -> list[Row]:
    return expand((*layout.rows, *(layout.pre_logits if module.pre_logits else ())), module.size.depth)


def _check_size(path: str | os.PathLike[str], arrays: Arrays, layout: Layout, backbone: Backbone) -> None:
    """A checkpoint of another size is told as such, not as the first parameter that does not fit."""
    rows = {row.ours[0]: row for row in layout.rows}
    patches = rows["embed/kernel"]
    for name in (patches.theirs, layout.positions):
        if name not in arrays:
            raise ValueError(f"{path}: has no '{name}', expected a ViT in the layout '{layout.name}'")
    kernel = names.to_ours(arrays[patches.theirs], patches, {})["embed/kernel"]
    numbered = re.compile(re.escape(layout.signature).replace(r"\{\}", r"\d+"))
    depth = sum(numbered.fullmatch(name) is not None for name in arrays)
    if "{}" not in layout.signature:
        depth = arrays[layout.signature].shape[0]
    found, size = (kernel.shape[-1], depth, kernel.shape[0]), _module(backbone).size
    if found != (size.width, size.depth, size.patch):
        fitting = [name for name, s in SIZES.items() if (s.width, s.depth, s.patch) == found]
        raise ValueError(
            f"{path}: found width {found[0]}, depth {found[1]}, patch {found[2]}, expected {size.width}, {size.depth}, "
            f"{size.patch} ({backbone.name})" + (f"; it fits vit('{fitting[0]}')" if fitting else "")
        )
    heads = _heads_in_config(Path(path))
    if heads not in (None, size.heads):
        raise ValueError(
            f"{path}: its config.json says {heads} attention heads, expected {size.heads} ({backbone.name})"
        )


def _heads_in_config(path: Path) -> int | None:
    config = path / "config.json"
    if not config.is_file():
        return None
    try:
        return json.loads(config.read_text()).get("num_attention_heads")
    except (ValueError, AttributeError):
        raise ValueError(f"{config}: expected a JSON object") from None


def _check_writable(path: Path, layout: str, module: ViT, head: Any) -> None:
    if layout not in WRITTEN:
        raise ValueError(f"layout: found '{layout}', expected one of {', '.join(WRITTEN)}")
    suffix = ".npz" if layout == "google" else ".safetensors"
    if path.suffix != suffix and not (layout == "hf" and not path.suffix):
        raise ValueError(f"{path}: found '{path.suffix}', expected {suffix} for the layout '{layout}'")
    if layout == "hf" and head is not None and module.pre_logits:
        raise ValueError(
            "layout: Hugging Face's classifier has no tanh layer (pre_logits); expected 'timm' or 'google'"
        )


def _config(backbone: Backbone, head: Any) -> dict[str, Any]:
    module = _module(backbone)
    size = module.size
    config = {
        "architectures": ["ViTModel" if head is None else "ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": module.epsilon,
        "qkv_bias": True,
        "image_size": backbone.image_size,
        "patch_size": size.patch,
        "num_channels": 3,
    }
    if head is not None:
        labels = [f"LABEL_{i}" for i in range(np.shape(head["bias"])[0])]
        config |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    return config


def _module(backbone: Backbone) -> ViT:
    if not isinstance(backbone.module, ViT):
        raise ValueError(f"{backbone.name}: expected a ViT, found {type(backbone.module).__name__}")
    return backbone.module
