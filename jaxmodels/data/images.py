"""Images from files to arrays: decoding, resizing as published pipelines do it, normalisation.

Resizing is where pipelines silently differ, so the loaders use Pillow itself where the papers did (two passes with
rounding in between), and a NumPy version of TensorFlow's bilinear resize where VPT did.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def decode(image: Path | str | bytes, *, upright: bool = False) -> np.ndarray:
    """An image file (or its bytes) as RGB.

    Grey, palette and transparent images become RGB (alpha is dropped, as the published loaders do); 16-bit grey keeps
    its upper 8 bits.

    Args:
        image: path, or the encoded bytes.
        upright: turn the picture as its EXIF orientation says. The published loaders do not.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: not an image Pillow can read, or cut short; names the file.
    """
    name = "image bytes" if isinstance(image, bytes) else str(image)
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            picture = ImageOps.exif_transpose(opened) if upright else opened
            if picture.mode.startswith("I"):
                return np.repeat((np.asarray(picture, np.int64) >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, -1)
            if picture.mode == "P" and "transparency" in picture.info:
                picture = picture.convert("RGBA")
            return np.array(picture.convert("RGB"))
    except FileNotFoundError:
        raise ValueError(f"{name}: no such image file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow reports a broken PNG chunk as a SyntaxError.
        raise ValueError(f"{name}: expected an image, but Pillow cannot read it ({_one_line(error)})") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def resize_pil(image: np.ndarray, height: int, width: int, method: str) -> np.ndarray:
    """Pillow's antialiased resize; uint8 (H, W, 3) -> uint8 (height, width, 3), aspect ratio ignored."""
    return np.asarray(Image.fromarray(image).resize((width, height), _FILTERS[method]))


def resize_tf_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """TensorFlow's tf.image.resize: bilinear, half-pixel centres, no antialiasing, not rounded.

    Args:
        image: (H, W, C), any number type.
        height: of the result.
        width: of the result.

    Returns:
        float32 (height, width, C) on the scale of the input.
    """
    rows, columns = _linear_weights(image.shape[0], height), _linear_weights(image.shape[1], width)
    return np.einsum("hi,ijc,wj->hwc", rows, image.astype(np.float32), columns, optimize=True)


def _linear_weights(old: int, new: int) -> np.ndarray:
    """(new, old): each output sample's weights on the input samples; the border is repeated."""
    # In float32 and in this order, as TensorFlow does: exact fractions differ by up to 6e-4 grey levels.
    half = np.float32(0.5)
    centre = (np.arange(new, dtype=np.float32) + half) * (np.float32(old) / np.float32(new)) - half
    low = np.floor(centre).astype(np.int64)
    fraction = centre - low
    weights = np.zeros((new, old), np.float32)
    np.add.at(weights, (np.arange(new), low.clip(0, old - 1)), 1 - fraction)
    np.add.at(weights, (np.arange(new), (low + 1).clip(0, old - 1)), fraction)
    return weights


def resize(image: np.ndarray, size: int, method: str) -> np.ndarray:
    """A square image of `size` pixels, aspect ratio ignored ("direct resize").

    Args:
        image: uint8 (H, W, 3).
        size: height and width of the result.
        method: 'bicubic' or 'bilinear' by Pillow (uint8), 'tf_bilinear' as TensorFlow (float32, 0..255).

    Raises:
        ValueError: an unknown method.

    >>> resize(np.zeros((4, 6, 3), np.uint8), 2, 'tf_bilinear').shape
    (2, 2, 3)
    """
    if method == "tf_bilinear":
        return resize_tf_bilinear(image, size, size)
    if method not in _FILTERS:
        raise ValueError(f"resize '{method}': expected one of bicubic, bilinear, tf_bilinear")
    return resize_pil(image, size, size, method)


def normalise(image: np.ndarray, statistics: str) -> np.ndarray:
    """(image / 255 - mean) / std per channel, float32.

    'imagenet' is what the published VTAB-1k numbers use; 'inception' (mean and std 0.5, values in [-1, 1]) is what
    Google's ViT checkpoints were trained with.

    Args:
        image: (..., 3) on the scale 0..255.
        statistics: 'imagenet' or 'inception'.

    Raises:
        ValueError: unknown statistics.

    >>> normalise(np.asarray([[255, 0, 127.5]]), 'inception').tolist()
    [[1.0, -1.0, 0.0]]
    """
    if statistics not in _STATISTICS:
        raise ValueError(f"normalisation '{statistics}': expected one of {', '.join(_STATISTICS)}")
    mean, std = (np.asarray(values, np.float32) for values in _STATISTICS[statistics])
    return (image.astype(np.float32) / np.float32(255) - mean) / std


def denormalise(image: Any, statistics: str) -> np.ndarray:
    """The inverse of `normalise` as uint8, for looking at pictures."""
    mean, std = (np.asarray(values, np.float32) for values in _STATISTICS[statistics])
    return np.rint((np.asarray(image, np.float32) * std + mean) * 255).clip(0, 255).astype(np.uint8)
