"""Small image files for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, level: int, size: tuple[int, int] = (12, 10)) -> Path:
    """A plain grey PNG (or what the suffix says) of width x height `size`; its first pixel tells pictures apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), level, np.uint8)).save(path)
    return path
