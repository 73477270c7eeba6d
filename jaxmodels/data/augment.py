"""Random crops, flips and colour jitter of the fine-grained image sets; every draw comes from an explicit generator.

Two published pipelines: that of timm as SSF and SNELL call it (RandomResizedCrop, flip, colour jitter) and that of VPT
(resize, random crop, flip); both test on a centre crop.
"""

import math

import numpy as np
from PIL import Image, ImageEnhance

from jaxmodels.data.images import resize_pil

_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored left to right with probability one half; (H, W, 3)."""
    return np.ascontiguousarray(image[:, ::-1]) if rng.random() < 0.5 else image


def random_resized_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """A random rectangle of the image, resized to a square (Inception's crop; bicubic by Pillow).

    Area and aspect ratio are drawn uniformly from `scale` (of the whole area) and log-uniformly from `ratio`; a box
    that does not fit is drawn again, and after ten failures the largest centred box of an allowed ratio is taken.

    Args:
        image: uint8 (H, W, 3).
        rng: source of every draw.
        size: height and width of the result.
        scale: range of the crop's share of the area.
        ratio: range of width / height.

    Returns:
        uint8 (size, size, 3).
    """
    top, left, height, width = _random_box(image.shape[0], image.shape[1], rng, scale, ratio)
    return resize_pil(image[top : top + height, left : left + width], size, size, "bicubic")


def _random_box(rows: int, columns: int, rng, scale, ratio) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = rows * columns * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < height <= rows and 0 < width <= columns:
            return int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1)), height, width
    aspect = min(max(columns / rows, ratio[0]), ratio[1])
    height, width = min(rows, round(columns / aspect)), min(columns, round(rows * aspect))
    return (rows - height) // 2, (columns - width) // 2, height, width


def colour_jitter(image: np.ndarray, rng: np.random.Generator, strength: float = 0.4) -> np.ndarray:
    """Brightness, contrast and saturation, each times a factor from U(1 - strength, 1 + strength), in random order.

    Args:
        image: uint8 (H, W, 3).
        rng: source of every draw.
        strength: 0 to 1; 0 changes nothing.

    Returns:
        uint8 (H, W, 3).
    """
    factors = rng.uniform(1 - strength, 1 + strength, len(_ENHANCERS))
    picture = Image.fromarray(image)
    for which in rng.permutation(len(_ENHANCERS)):
        picture = _ENHANCERS[which](picture).enhance(float(factors[which]))
    return np.asarray(picture)


def resize_short_side(image: np.ndarray, short: int) -> np.ndarray:
    """The image with its short side `short` pixels long, aspect ratio kept (bilinear by Pillow)."""
    height, width = image.shape[:2]
    if height <= width:
        return resize_pil(image, short, int(short * width / height), "bilinear")
    return resize_pil(image, int(short * height / width), short, "bilinear")


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Short side to floor(size / 0.875), then the centre square of `size` pixels; uint8 (size, size, 3)."""
    resized = resize_short_side(image, int(size / 0.875))
    top, left = (round((side - size) / 2) for side in resized.shape[:2])
    return resized[top : top + size, left : left + size]


def timm_train(image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """SSF's and SNELL's training view on fine-grained sets: random resized crop, flip, colour jitter 0.4."""
    return colour_jitter(flip(random_resized_crop(image, rng, size=size), rng), rng)


def vpt_train(image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """VPT's training view: short side floor(size / 0.875) (256 for 224), random crop of `size`, flip."""
    resized = resize_short_side(image, int(size / 0.875))
    top, left = (int(rng.integers(side - size + 1)) for side in resized.shape[:2])
    return flip(np.ascontiguousarray(resized[top : top + size, left : left + size]), rng)
