import numpy as np

from jaxmodels.data.pretraining import HEADS, pretraining_batch
from jaxmodels.data.synthetic import TASKS


def test_a_batch_is_a_function_of_seed_and_step():
    first, again = pretraining_batch(3, 5, 16), pretraining_batch(3, 5, 16)
    assert (first["image"] == again["image"]).all()
    for seed, step in ((3, 6), (4, 5), (5, 3)):
        assert (pretraining_batch(seed, step, 16)["image"] != first["image"]).any(axis=(1, 2, 3)).all()


def test_shapes_ranges_and_statistics():
    batch = pretraining_batch(0, 0, 64)
    assert batch["image"].shape == (64, 32, 32, 3) and batch["image"].dtype == np.float32
    assert -1 <= batch["image"].min() < -0.9 and 0.9 < batch["image"].max() <= 1
    assert pretraining_batch(0, 0, 64, statistics="imagenet")["image"].max() > 2
    assert {head: label.dtype for head, label in batch["labels"].items()} == {head: np.int32 for head in HEADS}


def test_every_class_of_every_head_occurs_equally_often():
    batches = [pretraining_batch(1, step, 256)["labels"] for step in range(8)]
    for head, classes in HEADS.items():
        counts = np.bincount(np.concatenate([labels[head] for labels in batches]), minlength=classes)
        assert len(counts) == classes and counts.min() > 0.6 * 2048 / classes


def test_the_stripes_tell_their_direction():
    batch = pretraining_batch(2, 0, 512)
    grey = batch["image"].mean(-1)
    dy, dx = np.gradient(grey, axis=(1, 2))
    # Orientation of the structure tensor, modulo pi; y points down.
    angle = 0.5 * np.arctan2(-2 * (dx * dy).sum((1, 2)), (dx**2 - dy**2).sum((1, 2))) % np.pi
    truth = (batch["labels"]["stripes"] + 0.5) * np.pi / 8
    error = np.abs((angle - truth + np.pi / 2) % np.pi - np.pi / 2)
    assert np.median(error) < np.pi / 8


def test_pictures_are_not_those_of_the_embedded_tasks():
    image = pretraining_batch(0, 0, 256)["image"]
    drawn = {np.rint((x * 0.5 + 0.5) * 255).astype(np.uint8).tobytes() for x in image}
    for task in TASKS.values():
        assert not drawn & {x.tobytes() for x in task.arrays("val")["image"]}
