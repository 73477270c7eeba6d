"""The embedded tasks: VTAB's three groups in miniature, 32x32 RGB, no download.

'digits' is real (scikit-learn's scanned digits). The others are drawn by formulas and say so: they imitate what their
group asks for (naming things; textures seen from above; where, how many, how far) with random colours, backgrounds,
distractors and noise, so that they are learnable but no single pixel gives them away. As in VTAB-1k, each task has 800
training and 200 validation images. Pictures and labels follow from the task and split alone.
"""

import zlib
from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from jaxmodels.data import scenes
from jaxmodels.data.source import LazySource, array_source
from jaxmodels.rules import nearest

SIZE = 32
COUNTS = {"train": 800, "val": 200, "test": 1000}


class EmbeddedTask(NamedTuple):
    """One embedded task.

    Attributes:
        name: on the command line.
        group: VTAB's group that it imitates.
        num_classes: labels run from 0 to this minus one.
        real: False when the pictures are drawn by a formula.
        description: what the label is.
        draw: (generator, count) -> images uint8 (count, 32, 32, 3), labels (count,); None for real data.
    """

    name: str
    group: Literal["natural", "specialized", "structured"]
    num_classes: int
    real: bool
    description: str
    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]] | None

    def arrays(self, split: str) -> dict[str, np.ndarray]:
        """{'image': uint8 (N, 32, 32, 3), 'label': int32 (N,)} of 'train', 'val' or 'test'.

        Raises:
            ValueError: no such split.
        """
        if split not in COUNTS:
            raise ValueError(f"split '{split}': expected one of {', '.join(COUNTS)}")
        if self.draw is None:
            return _digits()[split]
        seed = zlib.crc32(f"{self.name}/{split}".encode())
        image, label = self.draw(np.random.default_rng(seed), COUNTS[split])
        return {"image": image, "label": label.astype(np.int32)}

    def source(self, split: str) -> LazySource:
        """The same as a source of single examples."""
        return array_source(self.arrays(split))


@cache
def _digits() -> dict[str, dict[str, np.ndarray]]:
    """1,797 scans of 8x8 in 17 grey levels, enlarged; 800, 200 and 797 of them in a fixed random order."""
    import sklearn.datasets
    from PIL import Image

    digits = sklearn.datasets.load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    large = [np.asarray(Image.fromarray(x).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for x in grey]
    order = np.random.default_rng(0).permutation(len(grey))
    image, label = np.repeat(np.stack(large)[order, :, :, None], 3, -1), digits.target[order].astype(np.int32)
    cuts = {"train": slice(800), "val": slice(800, 1000), "test": slice(1000, None)}
    return {split: {"image": image[cut], "label": label[cut]} for split, cut in cuts.items()}


TASKS: dict[str, EmbeddedTask] = {
    task.name: task
    for task in (
        EmbeddedTask("digits", "natural", 10, True, "which digit was written (scikit-learn's scans)", None),
        EmbeddedTask("emblems", "natural", 8, False, "which of eight shapes lies on the background", scenes.emblems),
        EmbeddedTask("textures", "natural", 10, False, "which of ten families of patterns", scenes.textures),
        EmbeddedTask("tissue", "specialized", 4, False, "how cells look: usual, crowded, large, torn", scenes.tissue),
        EmbeddedTask("land_use", "specialized", 7, False, "what the ground is used for, from above", scenes.land_use),
        EmbeddedTask("shape_count", "structured", 8, False, "number of objects, 1 to 8", scenes.shape_count),
        EmbeddedTask("shape_location", "structured", 8, False, "horizontal place in eighths", scenes.shape_location),
        EmbeddedTask("shape_orientation", "structured", 8, False, "where the arrow points", scenes.shape_orientation),
        EmbeddedTask("nearest_distance", "structured", 6, False, "distance of the nearest object", scenes.distance),
    )
}


def embedded_task(name: str) -> EmbeddedTask:
    """The task of this name.

    Raises:
        ValueError: no such task; names the nearest.
    """
    if name not in TASKS:
        raise ValueError(f"--tasks={name}: no such embedded task{nearest(name, TASKS)}; there are {', '.join(TASKS)}")
    return TASKS[name]
