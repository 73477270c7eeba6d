"""How the embedded tasks are drawn: each function makes `count` pictures (32x32, uint8) and their labels at once."""

import numpy as np

from jaxmodels.data.drawing import (
    arrow,
    between,
    blend,
    column,
    cross,
    finish,
    grating,
    grid,
    hsv,
    polygon,
    shape_mask,
    smooth_noise,
    star,
    two_colours,
    waves,
)

S = 32
Drawn = tuple[np.ndarray, np.ndarray]  # images uint8 (N, 32, 32, 3), labels (N,)

_DISK = waves({}, 1.0)
# None of these outlines occurs in the pre-training mixture.
_EMBLEMS = np.stack(
    [
        _DISK,
        waves({2: 0.3}),
        cross(0.3),
        arrow(),
        waves({3: 0.3}),
        waves({8: 0.18}, 0.8),
        star(8, 0.45),
        waves({5: 0.28}),
    ]
)
_OBJECTS = np.stack([_DISK, polygon(4), polygon(3), cross(0.35)])


def _backdrop(rng: np.random.Generator, n: int, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Clouds between two similar colours."""
    share = 0.5 + 0.3 * smooth_noise(rng, n, S, 4)
    return between(dark, light, np.clip(share, 0, 1))


def _scene_colours(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(object, background, background's second shade)."""
    front, back = two_colours(rng, n)
    return front, back, np.clip(back + rng.uniform(-0.18, 0.18, (n, 3)).astype(np.float32), 0, 1)


def emblems(rng: np.random.Generator, n: int) -> Drawn:
    """One of eight shapes, any place, size, turn and colour, over clouds and a faint grating."""
    label = rng.integers(0, len(_EMBLEMS), n)
    front, back, shade = _scene_colours(rng, n)
    canvas = _backdrop(rng, n, back, shade)
    canvas += 0.08 * grating(S, rng.uniform(0, np.pi, n), rng.uniform(2, 7, n), rng.uniform(0, 6.3, n))[..., None]
    x, y = rng.uniform(0.35, 0.65, (2, n))
    mask = shape_mask(S, _EMBLEMS, label, x, y, rng.uniform(0.26, 0.36, n), rng.uniform(-0.6, 0.6, n))
    blend(canvas, front, mask)
    return finish(rng, canvas, 0.08), label


def textures(rng: np.random.Generator, n: int) -> Drawn:
    """Ten families: four directions of stripes, checks, grid lines, dots, rings, clouds, bent stripes."""
    label = rng.integers(0, 10, n)
    cycles, phase, second = rng.uniform(3, 7, n), rng.uniform(0, 6.3, n), rng.uniform(0, 6.3, n)
    jitter = rng.uniform(-0.22, 0.22, n)
    angle = np.where(label < 4, label * np.pi / 4, 0) + jitter
    along, across = grating(S, angle, cycles, phase), grating(S, angle + np.pi / 2, cycles, second)
    x, y = grid(S)
    distance = np.hypot(x - column(rng.uniform(0.2, 0.8, n)), y - column(rng.uniform(0.2, 0.8, n)))
    rings = np.sin(2 * np.pi * column(cycles) * distance + column(phase))
    clouds = np.clip(1.2 * smooth_noise(rng, n, S, 6), -1, 1)
    bend = column(rng.uniform(2.0, 3.5, n)) * smooth_noise(rng, n, S, 3)
    wood = np.sin(2 * np.pi * column(cycles) * (x * column(np.cos(second)) + y * column(np.sin(second))) + bend)
    families = [along] * 4 + [along * across, np.maximum(along, across), np.minimum(along, across), rings, clouds, wood]
    families[5], families[6] = 2 * np.clip(families[5], 0.4, 1) - 1, 2 * np.clip(families[6] + 0.6, 0, 1) - 1
    pattern = np.choose(np.broadcast_to(label[:, None, None], along.shape), families)
    pattern = np.tanh(column(rng.uniform(0.8, 3.0, n)) * pattern)
    canvas = between(*two_colours(rng, n, 0.2), 0.5 + 0.5 * pattern)
    return finish(rng, canvas, 0.15), label


def tissue(rng: np.random.Generator, n: int) -> Drawn:
    """Stained cells: usual (0), crowded (1), large irregular nuclei (2), usual with a tear in the tissue (3)."""
    label = rng.integers(0, 4, n)
    pink = hsv(rng.uniform(0.82, 0.97, n), rng.uniform(0.15, 0.4, n), rng.uniform(0.75, 0.95, n))
    violet = hsv(rng.uniform(0.68, 0.84, n), rng.uniform(0.4, 0.8, n), rng.uniform(0.25, 0.55, n))
    canvas = between(pink, np.clip(pink + 0.12, 0, 1), 0.5 + 0.4 * smooth_noise(rng, n, S, 5))
    number = np.where(label == 1, rng.integers(15, 23, n), rng.integers(6, 12, n))
    size = np.where(label == 2, rng.uniform(0.10, 0.14, n), rng.uniform(0.055, 0.085, n))
    spread = np.where(label == 2, 0.35, 0.12)
    outlines = np.stack([waves({2: 0.15}, 0.9), waves({2: 0.2, 3: 0.15}, 0.8), waves({3: 0.2}, 0.85)])
    for k in range(int(number.max())):
        radius = size * rng.uniform(1 - spread, 1 + spread) * (k < number)
        x, y = rng.uniform(0.02, 0.98, (2, n))
        mask = shape_mask(S, outlines, rng.integers(0, 3, n), x, y, radius, rng.uniform(0, 6.3, n))
        shade = np.clip(violet * rng.uniform(0.8, 1.25, (n, 1)), 0, 1).astype(np.float32)
        blend(canvas, shade, mask * column(radius > 0) * 0.9)
    tear = np.abs(grating(S, rng.uniform(0, np.pi, n), rng.uniform(0.4, 0.6, n), rng.uniform(-0.6, 0.6, n)))
    ragged = tear + 0.12 * smooth_noise(rng, n, S, 8) < column(rng.uniform(0.25, 0.4, n))
    white = np.full((n, 3), 0.95, np.float32)
    blend(canvas, white, ragged * column(label == 3))
    return finish(rng, canvas, 0.07), label


def land_use(rng: np.random.Generator, n: int) -> Drawn:
    """From above: forest, water, fields, houses, road, river, halls; colours overlap between classes."""
    label = rng.integers(0, 7, n)
    x, y = grid(S)
    green = hsv(rng.uniform(0.15, 0.5, n), rng.uniform(0.15, 0.6, n), rng.uniform(0.3, 0.7, n))
    blue = hsv(rng.uniform(0.3, 0.66, n), rng.uniform(0.15, 0.7, n), rng.uniform(0.25, 0.65, n))
    grey = hsv(rng.random(n), rng.uniform(0, 0.25, n), rng.uniform(0.5, 0.95, n))
    water = column(label == 1)[..., None] * 1.0
    rough = np.where(label == 0, 0.45, np.where(label == 1, 0.05, 0.15))
    relief = column(rough) * smooth_noise(rng, n, S, 16) + 0.12 * smooth_noise(rng, n, S, 3)
    canvas = (green[:, None, None] * (1 - water) + blue[:, None, None] * water) * (1 + relief[..., None])
    swell = 0.06 * grating(S, rng.uniform(0, np.pi, n), rng.uniform(4, 9, n), rng.uniform(0, 6.3, n))
    canvas = canvas + (column(label == 1) * swell)[..., None]
    turn = rng.uniform(0, np.pi, n)
    u = column(np.cos(turn)) * x + column(np.sin(turn)) * y + column(rng.random(n))
    v = column(np.cos(turn)) * y - column(np.sin(turn)) * x + column(rng.random(n))
    # Fields: a patchwork of rectangles of their own shade, each ploughed one way.
    patch = (np.floor(u * 3) * 7 + np.floor(v * 2) * 13 + column(rng.integers(0, 99, n))) % 5
    furrows = np.sin(2 * np.pi * np.where(patch % 2 > 0.5, u, v) * column(rng.uniform(8, 12, n)))
    soil = between(green, hsv(rng.uniform(0.08, 0.2, n), rng.uniform(0.3, 0.6, n), rng.uniform(0.4, 0.8, n)), patch / 4)
    canvas = np.where((label == 2)[:, None, None, None], soil * (1 + 0.12 * furrows[..., None]), canvas)
    # Houses: small roofs on a lattice; halls: few large ones.
    cells = np.where(label == 6, rng.uniform(1.6, 2.4, n), rng.uniform(4.5, 6.5, n))
    inside = (np.abs(u * column(cells) % 1 - 0.5) < 0.32) & (np.abs(v * column(cells) % 1 - 0.5) < 0.32)
    roof = (np.floor(u * column(cells)) * 3 + np.floor(v * column(cells)) * 5 + column(rng.integers(0, 9, n))) % 4
    roofs = between(
        grey, hsv(rng.uniform(-0.03, 0.08, n), rng.uniform(0.2, 0.6, n), rng.uniform(0.5, 0.8, n)), roof / 3
    )
    blend(canvas, roofs, inside * column((label == 3) | (label == 6)))
    # A straight road, a winding river.
    offset = v - column(rng.uniform(0.9, 1.1, n)) - column(v.mean((1, 2)) - 1)
    road = np.abs(offset) < column(rng.uniform(0.06, 0.11, n))
    winding = offset + column(rng.uniform(0.08, 0.16, n)) * np.sin(2 * np.pi * u * column(rng.uniform(0.8, 1.6, n)))
    river = np.abs(winding) < column(rng.uniform(0.07, 0.12, n))
    blend(canvas, grey, road * column(label == 4))
    blend(canvas, blue, river * column(label == 5))
    light = rng.uniform(0.65, 1.0, (n, 1, 1, 1)) * rng.uniform(0.75, 1.35, (n, 1, 1, 3))  # of any hour and haze
    return finish(rng, canvas * light.astype(np.float32), 0.06), label


def shape_count(rng: np.random.Generator, n: int) -> Drawn:
    """One to eight objects of any kind, size and colour that do not touch: each has a cell of a 4x4 lattice."""
    label = rng.integers(0, 8, n)
    _, back, shade = _scene_colours(rng, n)
    canvas = _backdrop(rng, n, back, shade)
    cells = np.argsort(rng.random((n, 16)), axis=1)[:, :8]
    for k in range(8):
        x, y = (np.stack([cells[:, k] % 4, cells[:, k] // 4]) + rng.uniform(0.4, 0.6, (2, n))) / 4
        mask = shape_mask(
            S, _OBJECTS, rng.integers(0, 4, n), x, y, rng.uniform(0.075, 0.115, n), rng.uniform(0, 6.3, n)
        )
        blend(canvas, _against(rng, back), mask * column(k <= label))
    return finish(rng, canvas, 0.05), label


def _against(rng: np.random.Generator, back: np.ndarray) -> np.ndarray:
    """A random colour (N, 3) that is clearly brighter or darker than the background."""
    n = len(back)
    bright = back.mean(-1) < 0.5
    value = np.where(bright, rng.uniform(0.85, 1.0, n), rng.uniform(0.05, 0.3, n))
    return hsv(rng.random(n), rng.uniform(0.0, 0.6, n), value)


def _dots(rng: np.random.Generator, canvas: np.ndarray, back: np.ndarray, number: int) -> None:
    """Small distractors anywhere."""
    n = len(canvas)
    for _ in range(number):
        x, y = rng.random((2, n))
        blend(
            canvas, _against(rng, back), shape_mask(S, _DISK[None], np.zeros(n, int), x, y, rng.uniform(0.02, 0.05, n))
        )


def shape_location(rng: np.random.Generator, n: int) -> Drawn:
    """A shape's horizontal place in eighths of its range; kind, height, size, turn and colours are random."""
    label = rng.integers(0, 8, n)
    front, back, shade = _scene_colours(rng, n)
    canvas = _backdrop(rng, n, back, shade)
    _dots(rng, canvas, back, 4)
    x = 0.14 + 0.72 * (label + rng.uniform(0.08, 0.92, n)) / 8
    radius, turn = rng.uniform(0.11, 0.19, n), rng.uniform(0, 6.3, n)
    blend(canvas, front, shape_mask(S, _OBJECTS, rng.integers(0, 4, n), x, rng.uniform(0.2, 0.8, n), radius, turn))
    return finish(rng, canvas, 0.06), label


def shape_orientation(rng: np.random.Generator, n: int) -> Drawn:
    """Which of eight directions an arrow head points to, within 17 degrees; class 0 is right, counting on leftwards."""
    label = rng.integers(0, 8, n)
    front, back, shade = _scene_colours(rng, n)
    canvas = _backdrop(rng, n, back, shade)
    _dots(rng, canvas, back, 4)
    x, y = rng.uniform(0.35, 0.65, (2, n))
    turn = label * np.pi / 4 + rng.uniform(-0.3, 0.3, n)
    mask = shape_mask(
        S, arrow()[None], np.zeros(n, int), x, y, rng.uniform(0.2, 0.32, n), turn, rng.uniform(0.75, 1.25, n)
    )
    blend(canvas, front, mask)
    return finish(rng, canvas, 0.06), label


def distance(rng: np.random.Generator, n: int) -> Drawn:
    """A road scene: three to five boxes on a plane; the label is the nearest one's distance in six bins (0 = nearest).

    A box at depth z is about 1 / z high and its foot stands 1 / z below the horizon: size and place both tell z.
    """
    label = rng.integers(0, 6, n)
    edges = np.geomspace(1.3, 5.2, 7)
    near = edges[label] + (edges[label + 1] - edges[label]) * rng.uniform(0.1, 0.9, n)
    others = near * (1 + rng.uniform(0.15, 1.5, (4, n)))
    depths = np.sort(np.vstack([near[None], others]), axis=0)[::-1]  # painted from far to near
    horizon = rng.uniform(0.22, 0.36, n)
    x, y = grid(S)
    sky = hsv(rng.uniform(0.5, 0.68, n), rng.uniform(0.1, 0.5, n), rng.uniform(0.6, 0.95, n))
    ground = hsv(rng.uniform(0.05, 0.4, n), rng.uniform(0.05, 0.35, n), rng.uniform(0.25, 0.6, n))
    ground_mask = np.broadcast_to(y > column(horizon), (n, S, S)).astype(np.float32)
    canvas = between(sky, ground, ground_mask) * (1 + 0.06 * smooth_noise(rng, n, S, 8)[..., None])
    present = 3 + rng.integers(0, 3, n)
    for k, depth in enumerate(depths):
        scale, centre = 0.8 / depth, rng.uniform(0.05, 0.95, n)
        bottom = horizon + 0.8 / depth
        height, width = scale * rng.uniform(0.8, 1.15, n), scale * rng.uniform(0.3, 0.5, n)
        box = (np.abs(x - column(centre)) < column(width)) & (y < column(bottom)) & (y > column(bottom - height))
        colour = hsv(rng.random(n), rng.uniform(0.3, 1.0, n), rng.uniform(0.3, 1.0, n))
        blend(canvas, colour, box * column(k >= len(depths) - present))
        window = (np.abs(x - column(centre)) < 0.6 * column(width)) & (y < column(bottom - 0.5 * height))
        blend(canvas, np.clip(colour * 0.45, 0, 1), box * window * column(k >= len(depths) - present))
    return finish(rng, canvas.astype(np.float32), 0.05), label
