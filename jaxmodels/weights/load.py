"""One door to published weights: a file, a folder or a name on the hub -> a backbone's parameters."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.backbones.convnext import ConvNeXt
from jaxmodels.backbones.swin import Swin
from jaxmodels.backbones.vit import ViT
from jaxmodels.weights import hub
from jaxmodels.weights.pyramid import load_convnext, load_swin
from jaxmodels.weights.vit_checkpoint import load_vit, load_vit_head

# Kind of backbone -> reader of its checkpoints.
READERS: dict[type, Callable[..., Any]] = {ViT: load_vit, Swin: load_swin, ConvNeXt: load_convnext}
HEAD_READERS: dict[type, Callable[..., Any]] = {ViT: load_vit_head}


def load(
    source: str | os.PathLike[str],
    backbone: Backbone,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Any:
    """Published parameters for a backbone; never a random one.

    Args:
        source: a file or folder, a name of `hub.PUBLISHED` such as 'vit_b16_in21k', or a hub repository 'owner/name'.
        backbone: such as `vit('b16')`.
        cache_dir: where downloads are kept; Hugging Face's own cache unless given.
        **options: of the backbone's reader, such as `resize` of `load_vit`.

    Returns:
        The backbone's parameter tree.

    Raises:
        ValueError: nothing is found there, or it does not fit the backbone.
    """
    return _reader(READERS, backbone)(locate(source, cache_dir=cache_dir), backbone, **options)


def load_head(
    source: str | os.PathLike[str], backbone: Backbone, *, cache_dir: str | os.PathLike[str] | None = None
) -> Any:
    """The head that was published with the weights: parameters of `linear_head()` for the classes it was trained on.

    Args:
        source: as in `load`.
        backbone: such as `vit('b16')`.
        cache_dir: as in `load`.

    Raises:
        ValueError: as `load`, or the checkpoint has no head.
    """
    return _reader(HEAD_READERS, backbone)(locate(source, cache_dir=cache_dir), backbone)


def locate(source: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The local path of a source; a name that is no path is fetched from the hub."""
    path = Path(source)
    looks_local = path.is_absolute() or path.suffix in (".npz", ".safetensors", ".json", ".pth", ".pt", ".bin")
    if path.exists() or looks_local or str(source).startswith("."):
        return path
    return hub.fetch(str(source), cache_dir=cache_dir)


def _reader(readers: dict[type, Callable[..., Any]], backbone: Backbone) -> Callable[..., Any]:
    kind = type(backbone.module)
    if kind not in readers:
        known = ", ".join(k.__name__ for k in readers)
        raise ValueError(f"{backbone.name}: no checkpoints of {kind.__name__} are read, expected one of {known}")
    return readers[kind]
