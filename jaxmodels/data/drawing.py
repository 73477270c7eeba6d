"""Painting many small pictures at once with NumPy: shapes, gratings, noise and colours, each with its own parameters.

Everything works on planes (N, S, S) of float32 with one parameter per picture, so a data set of thousands of images
is a few hundred array operations.
"""

from typing import Any

import numpy as np

_ANGLES = 256  # resolution of a shape's outline


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres x (1, 1, S) and y (1, S, 1) in (0, 1); y points down."""
    centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]


def column(values: Any) -> np.ndarray:
    """One parameter per picture, (N,) -> float32 (N, 1, 1)."""
    return np.asarray(values, np.float32)[:, None, None]


def polygon(corners: int) -> np.ndarray:
    """Outline of a regular polygon: radius at 256 angles, 1 at the corners.

    >>> polygon(4).max().round(3), polygon(4).min().round(3)
    (np.float32(1.0), np.float32(0.707))
    """
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False) % (2 * np.pi / corners) - np.pi / corners
    return (np.cos(np.pi / corners) / np.cos(angle)).astype(np.float32)


def star(points: int, inner: float) -> np.ndarray:
    """Outline of a star: radius 1 at the points, `inner` between them, straight edges."""
    half = np.pi / points
    angle = np.abs(np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False) % (2 * half) - half)  # 0 between, half at points
    a, b = np.array([inner, 0.0]), np.array([np.cos(half), np.sin(half)])
    edge = b - a
    return ((a[0] * edge[1] - a[1] * edge[0]) / (np.cos(angle) * edge[1] - np.sin(angle) * edge[0])).astype(np.float32)


def waves(amplitudes: dict[int, float], mean: float = 0.7) -> np.ndarray:
    """A soft outline: mean radius plus cosines, {lobes: amplitude}."""
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    lobes = [a * np.cos(k * angle) for k, a in amplitudes.items()]
    return np.sum([np.full(_ANGLES, mean), *lobes], axis=0).astype(np.float32)


def cross(arm: float) -> np.ndarray:
    """Outline of a plus sign whose arms are 2 * arm thick."""
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    c, s = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    bars = [
        np.minimum(a / np.maximum(x, 1e-6), b / np.maximum(y, 1e-6))
        for a, b in ((1, arm), (arm, 1))
        for x, y in [(c, s)]
    ]
    return np.maximum(*bars).astype(np.float32)


def arrow() -> np.ndarray:
    """Outline of an arrow head that points to angle 0 (right); no turn short of a whole one maps it to itself."""
    angle = np.abs((np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False) + np.pi) % (2 * np.pi) - np.pi)
    tip, barb, notch = np.array([1.0, 0.0]), np.array([-0.8, 0.62]), np.array([-0.25, 0.0])
    radius = np.full(_ANGLES, np.inf)
    for a, b in ((tip, barb), (barb, notch)):
        edge = b - a
        with np.errstate(divide="ignore"):
            hit = (a[0] * edge[1] - a[1] * edge[0]) / (np.cos(angle) * edge[1] - np.sin(angle) * edge[0])
        low, high = sorted((np.arctan2(a[1], a[0]), np.arctan2(b[1], b[0])))
        radius = np.where((angle >= low - 1e-9) & (angle <= high + 1e-9), np.minimum(radius, hit), radius)
    return radius.astype(np.float32)


def shape_mask(
    size: int, outlines: np.ndarray, kind: Any, x: Any, y: Any, radius: Any, turn: Any = None, stretch: Any = None
) -> np.ndarray:
    """Coverage of one shape per picture, antialiased.

    Args:
        size: S, pixels.
        outlines: (K, 256) radius over angle, from `polygon`, `star`, `waves`, ...
        kind: (N,) index into `outlines`.
        x: (N,) centre, 0 left to 1 right.
        y: (N,) centre, 0 top to 1 bottom.
        radius: (N,) size, in picture widths.
        turn: (N,) radians, counter-clockwise; 0 unless given.
        stretch: (N,) height over width; 1 unless given.

    Returns:
        float32 (N, S, S) in [0, 1].
    """
    columns, rows = grid(size)
    dx, dy = columns - column(x), column(y) - rows
    if turn is not None:
        c, s = column(np.cos(turn)), column(np.sin(turn))
        dx, dy = c * dx + s * dy, c * dy - s * dx
    if stretch is not None:
        dy = dy / column(stretch)
    step = np.float32(_ANGLES / (2 * np.pi))
    angle = (np.arctan2(dy, dx) * step).astype(np.int32) % _ANGLES
    flat = angle + (np.asarray(kind, np.int32) * _ANGLES)[:, None, None]
    edge = outlines.ravel().take(flat) * column(radius)
    return np.clip((edge - np.sqrt(dx * dx + dy * dy)) * np.float32(size) + np.float32(0.5), 0, 1)


def grating(size: int, angle: Any, cycles: Any, phase: Any) -> np.ndarray:
    """A sine wave per picture, (N, S, S) in [-1, 1]; varies along `angle` (radians, counter-clockwise from right)."""
    x, y = grid(size)
    along = column(np.cos(angle)) * x - column(np.sin(angle)) * y
    return np.sin(np.float32(2 * np.pi) * column(cycles) * along + column(phase))


def smooth_noise(rng: np.random.Generator, count: int, size: int, cells: int) -> np.ndarray:
    """Clouds: standard normal values on a coarse lattice of cells x cells, interpolated linearly; (N, S, S)."""
    lattice = rng.standard_normal((count, cells + 1, cells + 1), dtype=np.float32)
    at = (np.arange(size) + 0.5) / size * cells
    low = np.minimum(at.astype(np.int64), cells - 1)
    weights = np.zeros((size, cells + 1), np.float32)
    weights[np.arange(size), low] = 1 - (at - low)
    weights[np.arange(size), low + 1] = at - low
    return weights @ lattice @ weights.T


def hsv(hue: Any, saturation: Any, value: Any) -> np.ndarray:
    """Colours (N, 3) in [0, 1] from hue (turns, any real), saturation and value, each (N,).

    >>> hsv(np.zeros(1), np.ones(1), np.ones(1)).tolist()
    [[1.0, 0.0, 0.0]]
    """
    wheel = np.abs((np.asarray(hue)[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    pure = np.clip(wheel, 0, 1)
    value, saturation = np.asarray(value)[:, None], np.asarray(saturation)[:, None]
    return (value * (1 - saturation * (1 - pure))).astype(np.float32)


def two_colours(rng: np.random.Generator, count: int, contrast: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    """Two random colours (N, 3) per picture whose mean brightness differs by at least `contrast`, either way round."""
    dark = hsv(rng.random(count), rng.uniform(0.2, 0.9, count), rng.uniform(0.1, 0.5, count))
    light = hsv(rng.random(count), rng.uniform(0.1, 0.7, count), rng.uniform(0.6, 1.0, count))
    gap = light.mean(-1, keepdims=True) - dark.mean(-1, keepdims=True)
    dark = np.clip(dark - np.maximum(contrast - gap, 0), 0, 1)
    swap = rng.random(count)[:, None] < 0.5
    return np.where(swap, dark, light), np.where(swap, light, dark)


def blend(canvas: np.ndarray, colour: np.ndarray, mask: np.ndarray) -> None:
    """Paints `colour` (N, 3) or (N, S, S, 3) over `canvas` (N, S, S, 3) in place, by coverage `mask` (N, S, S)."""
    paint = colour[:, None, None, :] if colour.ndim == 2 else colour
    canvas += mask[..., None] * (paint - canvas)


def between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A canvas (N, S, S, 3) that goes from `first` (share 0) to `second` (share 1); colours (N, 3), share (N, S, S)."""
    return first[:, None, None, :] + share[..., None] * (second - first)[:, None, None, :]


def finish(rng: np.random.Generator, canvas: np.ndarray, noise: float) -> np.ndarray:
    """Adds pixel noise of standard deviation up to `noise` (another one per picture) and rounds to uint8."""
    level = rng.uniform(0.2, 1.0, (len(canvas), 1, 1, 1)).astype(np.float32) * np.float32(noise)
    canvas = canvas + level * rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
