"""An endless drawn mixture to pre-train the mini backbones on: one picture, seven questions.

Each picture holds a large striped-background shape with smaller ones about it; a backbone must tell shape, hue, count,
place, size, tilt and the stripes' direction. The outlines, colours and layouts are not those of the embedded tasks, so
what transfers is features and not answers. A batch is a pure function of (seed, step).
"""

from typing import Any

import numpy as np

from jaxmodels.data.drawing import between, blend, column, finish, grating, hsv, polygon, shape_mask, smooth_noise, star
from jaxmodels.data.images import normalise

SIZE = 32
HEADS = {
    "shape": 8,
    "hue": 8,
    "count": 6,
    "place": 16,
    "size": 4,
    "tilt": 8,
    "stripes": 8,
}  # label -> number of classes

_OUTLINES = np.stack([polygon(k) for k in (3, 4, 5, 6)] + [star(k, 0.5) for k in (4, 5, 6, 7)])


def pretraining_batch(seed: int, step: int, batch_size: int, *, statistics: str = "inception") -> dict[str, Any]:
    """The batch of one training step.

    Args:
        seed: of the whole run.
        step: of the batch; any order of access gives the same batches.
        batch_size: B.
        statistics: normalisation of the pictures, 'inception' or 'imagenet'.

    Returns:
        {'image': float32 (B, 32, 32, 3), 'labels': {head: int32 (B,)}} with the heads and class counts of `HEADS`.

    >>> batch = pretraining_batch(0, 3, 2)
    >>> batch['image'].shape, sorted(batch['labels'])
    ((2, 32, 32, 3), ['count', 'hue', 'place', 'shape', 'size', 'stripes', 'tilt'])
    """
    rng = np.random.default_rng((seed, step))
    labels = {head: rng.integers(0, classes, batch_size) for head, classes in HEADS.items()}
    image = normalise(_draw(rng, labels, batch_size), statistics)
    return {"image": image, "labels": {head: label.astype(np.int32) for head, label in labels.items()}}


def _draw(rng: np.random.Generator, labels: dict[str, np.ndarray], n: int) -> np.ndarray:
    """uint8 (n, 32, 32, 3)."""

    def bin_of(head: str) -> np.ndarray:
        """A place inside the label's bin, as a share of the whole range."""
        return (labels[head] + rng.uniform(0.1, 0.9, n)) / HEADS[head]

    lightness = rng.uniform(0.15, 0.75, n)
    back = hsv(rng.random(n), rng.uniform(0, 0.5, n), lightness)
    stripe = np.clip(back + rng.uniform(0.1, 0.3, (n, 1)) * rng.choice([-1, 1], (n, 1)), 0, 1).astype(np.float32)
    waves = grating(SIZE, np.pi * bin_of("stripes"), rng.uniform(2, 8, n), rng.uniform(0, 6.3, n))
    canvas = between(back, stripe, 0.5 + 0.5 * waves + 0.15 * smooth_noise(rng, n, SIZE, 4))
    # The large shape: its value keeps away from the background's.
    value = np.where(lightness < 0.45, rng.uniform(0.75, 1.0, n), rng.uniform(0.15, 0.4, n))
    colour = hsv(bin_of("hue"), rng.uniform(0.6, 1.0, n), value)
    cell = np.stack([labels["place"] % 4, labels["place"] // 4])
    x, y = 0.2 + 0.6 * (cell + rng.uniform(0.1, 0.9, (2, n))) / 4
    radius, turn = 0.12 + 0.2 * bin_of("size"), np.pi * bin_of("tilt")
    blend(canvas, colour, shape_mask(SIZE, _OUTLINES, labels["shape"], x, y, radius, turn, rng.uniform(0.6, 0.75, n)))
    # Smaller ones of other hues: count - 1 of them, painted on top.
    for k in range(1, HEADS["count"]):
        here = labels["count"] >= k
        x, y = rng.uniform(0.08, 0.92, (2, n))
        small = shape_mask(SIZE, _OUTLINES, rng.integers(0, 8, n), x, y, rng.uniform(0.05, 0.08, n))
        blend(canvas, hsv(rng.random(n), rng.uniform(0.2, 0.8, n), 1.15 - value), small * column(here))
    return finish(rng, canvas, 0.08)
