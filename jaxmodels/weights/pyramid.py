"""Reading and writing checkpoints of the backbones with stages, Swin and ConvNeXt."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.weights import convnext, names, swin
from jaxmodels.weights.files import read_arrays, write_safetensors
from jaxmodels.weights.names import Row

WRAPPERS = ("module.", "model.")  # of training code, around every name


def load_swin(path: str | os.PathLike[str], backbone: Backbone) -> Any:
    """Parameters of a Swin Transformer from a .safetensors file with the original's or timm's names, in float32.

    The head and constant buffers (relative positions, masks) are not read.

    Raises:
        ValueError: a damaged file, or parameters that are missing, left over or of another size.
    """
    arrays = _arrays(path)
    late = "layers.1.downsample.reduction.weight" in arrays and "layers.0.downsample.reduction.weight" not in arrays
    rows = swin.timm(backbone.module.size.depths, late=late)
    return _read(path, arrays, rows, backbone, (r"head\..*", *swin.BUFFERS))


def load_convnext(path: str | os.PathLike[str], backbone: Backbone) -> Any:
    """Parameters of a ConvNeXt from a .safetensors file with the original's or timm's names, in float32.

    The classifier is not read.

    Raises:
        ValueError: a damaged file, or parameters that are missing, left over or of another size.
    """
    arrays = _arrays(path)
    depths = backbone.module.size.depths
    if "downsample_layers.0.0.weight" in arrays:
        return _read(path, arrays, convnext.original(depths), backbone, (r"head\..*",))
    rows = convnext.timm(depths, named="stem.proj.weight" in arrays)
    return _read(path, arrays, rows, backbone, (r"head\.fc\..*",))


def save_pyramid(path: str | os.PathLike[str], params: Any, backbone: Backbone) -> None:
    """Writes a Swin or ConvNeXt as .safetensors under timm's names, atomically; the readers above read it back."""
    module = backbone.module
    kind = swin if hasattr(module.size, "window") else convnext
    write_safetensors(path, names.write(params, kind.timm(module.size.depths)))


def _arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    arrays = dict(read_arrays(path))
    for wrapper in WRAPPERS:
        if arrays and all(name.startswith(wrapper) for name in arrays):
            arrays = {name.removeprefix(wrapper): array for name, array in arrays.items()}
    return arrays


def _read(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    rows: tuple[Row, ...],
    backbone: Backbone,
    drop: tuple[str, ...],
) -> Any:
    params = names.read(arrays, rows, backbone.shapes().params, drop=drop, source=str(path))
    return jax.tree.map(jnp.asarray, params)
