"""Position embeddings on another grid: the three resampling rules that published code uses.

All are separable, so a rule is a matrix (new, old) of weights per axis. They differ visibly (by a tenth of the
embedding's size), and papers inherit one of them from the code they build on.
"""

import math

import numpy as np
from jaxtyping import Float

RULES = ("timm", "hf", "google")


def resize_pos_embed(
    positions: Float[np.ndarray, "1 tokens d"], grid: int, *, rule: str = "timm"
) -> Float[np.ndarray, "1 resized d"]:
    """Resamples the position embedding of a ViT with a class token.

    Args:
        positions: (1, 1 + g*g, D); the class token's entry comes first and stays.
        grid: new patches per side.
        rule: 'timm' (>= 0.9: bicubic, a = -0.5, antialiased), 'hf' (Transformers and older timm: bicubic, a = -0.75,
            not antialiased) or 'google' (original ViT code: linear, corners aligned).

    Returns:
        (1, 1 + grid*grid, D) in the same dtype; the input itself when the grid is the same.

    Raises:
        ValueError: an unknown rule, or a number of entries that is no class token and a square.

    >>> resize_pos_embed(np.arange(5.0).reshape(1, 5, 1), 3, rule='google')[0, 1:, 0].reshape(3, 3)
    array([[1. , 1.5, 2. ],
           [2. , 2.5, 3. ],
           [3. , 3.5, 4. ]])
    """
    if rule not in RULES:
        raise ValueError(f"resize: found '{rule}', expected one of {', '.join(RULES)}")
    old = math.isqrt(max(positions.shape[1] - 1, 0))
    if old < 1 or old * old != positions.shape[1] - 1:
        raise ValueError(f"position embedding: found {positions.shape[1]} entries, expected a class token and a square")
    if old == grid:
        return positions
    weights = {"timm": _antialiased, "hf": _four_taps, "google": _corner_aligned}[rule](old, grid)
    patches = positions[0, 1:].reshape(old, old, -1).astype(np.float64)
    resized = np.einsum("ya,xb,abd->yxd", weights, weights, patches, optimize=True)
    resized = resized.reshape(1, grid * grid, -1).astype(positions.dtype)
    return np.concatenate([positions[:, :1], resized], axis=1)


def _antialiased(old: int, new: int) -> np.ndarray:
    """The cubic kernel, widened when shrinking; taps outside are dropped and the rest renormalised."""
    scale = old / new
    width = max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale
    weights = _cubic((np.arange(old)[None, :] + 0.5 - centers[:, None]) / width, a=-0.5)
    return weights / weights.sum(axis=1, keepdims=True)


def _four_taps(old: int, new: int) -> np.ndarray:
    """Four cubic taps around the source position; those outside read the border."""
    source = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(source).astype(int)
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        index = np.clip(first + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), index), _cubic(first + tap - source, a=-0.75))
    return weights


def _corner_aligned(old: int, new: int) -> np.ndarray:
    """Linear interpolation between the two neighbours; first and last points coincide."""
    source = np.linspace(0.0, old - 1.0, new)
    return np.maximum(0.0, 1.0 - np.abs(source[:, None] - np.arange(old)[None, :]))


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
