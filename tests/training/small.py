"""A method, batches and an optimizer small enough that a test compiles them in a second."""

import numpy as np

from jaxmodels.backbones.vit import Size, vit
from jaxmodels.training.optimizer import adamw
from jaxmodels.tuning.classifier import classifier
from jaxmodels.tuning.lora import lora

CLASSES = 5


class RandomBatches:
    """batches[step]: random images of eight examples, a pure function of the step."""

    def __init__(self, size: int = 8):
        self.size = size

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(step)
        images = random.normal(size=(self.size, 8, 8, 3)).astype(np.float32)
        return {"image": images, "label": random.integers(0, CLASSES, self.size)}


def small_method(tuner=None):
    return classifier(vit(Size(16, 2, 2, 4), image_size=8), tuner or lora(2, dropout=0.1), num_classes=CLASSES)


def small_run():
    method = small_method()
    return method, RandomBatches(), adamw(method.groups, 1e-2)
