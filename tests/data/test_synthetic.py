import functools

import numpy as np
import pytest

from jaxmodels.data.synthetic import COUNTS, TASKS, embedded_task


@functools.cache
def drawn(name, split):
    return TASKS[name].arrays(split)


@pytest.mark.parametrize("name", TASKS)
def test_splits_have_the_promised_shapes_and_classes(name):
    task = TASKS[name]
    for split, count in {**COUNTS, "test": 797 if task.real else 1000}.items():
        arrays = drawn(name, split)
        assert arrays["image"].shape == (count, 32, 32, 3) and arrays["image"].dtype == np.uint8
        assert arrays["label"].shape == (count,) and arrays["label"].dtype == np.int32
        counts = np.bincount(arrays["label"], minlength=task.num_classes)
        assert len(counts) == task.num_classes and counts.min() > 0.4 * count / task.num_classes


@pytest.mark.parametrize("name", TASKS)
def test_pictures_are_the_same_every_time_and_differ_between_splits(name):
    first, again, val = drawn(name, "train"), TASKS[name].arrays("train"), drawn(name, "val")
    assert (first["image"] == again["image"]).all() and (first["label"] == again["label"]).all()
    train = {picture.tobytes() for picture in first["image"]}
    assert len(train) >= 799 and not train & {picture.tobytes() for picture in val["image"]}


@pytest.mark.parametrize("name", [name for name in TASKS if not TASKS[name].real])
def test_no_task_is_given_away_by_mean_colour(name):
    task = TASKS[name]
    train, test = drawn(name, "train"), drawn(name, "test")
    features = [arrays["image"].astype(np.float32).mean((1, 2)) for arrays in (train, test)]
    nearest = np.square(features[1][:, None] - features[0]).sum(-1).argmin(-1)
    accuracy = (train["label"][nearest] == test["label"]).mean()
    assert accuracy < 1 / task.num_classes + 0.25


def centroid(arrays):
    """Horizontal centre of what differs from the border's median colour."""
    image = arrays["image"].astype(float)
    border = np.median(image[:, [0, -1]].reshape(len(image), -1, 3), axis=1)[:, None, None]
    weight = np.clip(np.abs(image - border).sum(-1) - 90, 0, None) + 1e-6
    return (weight.sum(1) * np.arange(32)).sum(-1) / weight.sum((1, 2))


def test_location_labels_order_the_pictures_from_left_to_right():
    arrays = drawn("shape_location", "test")
    places = [np.median(centroid(arrays)[arrays["label"] == label]) for label in range(8)]
    assert places == sorted(places) and places[0] < 11 and places[-1] > 21


def test_more_objects_cover_more_and_nearer_ones_reach_lower():
    arrays = drawn("shape_count", "test")
    image = arrays["image"].astype(float)
    far = np.abs(image - np.median(image, axis=(1, 2), keepdims=True)).sum(-1) > 150
    covered = [far[arrays["label"] == label].mean() for label in range(8)]
    assert covered == sorted(covered) and covered[-1] > 4 * covered[0]

    arrays = drawn("nearest_distance", "test")
    image = arrays["image"].astype(float)
    ground = np.median(image[:, -3:], axis=(1, 2))[:, None, None]
    deepest = (np.abs(image - ground).sum(-1) > 110).sum((1, 2))
    assert (np.diff([deepest[arrays["label"] == label].mean() for label in range(6)]) < 0).all()


def test_orientation_zero_points_right_and_counts_counter_clockwise():
    arrays = drawn("shape_orientation", "test")
    image = arrays["image"].astype(float)
    border = np.median(image, axis=(1, 2))[:, None, None]
    weight = (np.abs(image - border).sum(-1) > 120).astype(float)
    y, x = np.mgrid[:32, :32].astype(float)
    total = weight.sum((1, 2))
    dx = x - ((weight * x).sum((1, 2)) / total)[:, None, None]
    dy = -(y - ((weight * y).sum((1, 2)) / total)[:, None, None])
    # The arrow is heavy behind and thin in front: its third moment along the axis points to the tip.
    for label, (ux, uy) in {0: (1, 0), 2: (0, 1), 4: (-1, 0), 6: (0, -1)}.items():
        here = arrays["label"] == label
        moment = (weight * (ux * dx + uy * dy) ** 3).sum((1, 2))[here]
        assert np.median(moment) > 0, label


def test_groups_and_the_real_one():
    groups = [task.group for task in TASKS.values()]
    assert {group: groups.count(group) for group in groups} == {"natural": 3, "specialized": 2, "structured": 4}
    assert [name for name, task in TASKS.items() if task.real] == ["digits"]


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="--tasks=digit: .*did you mean 'digits'"):
        embedded_task("digit")
    with pytest.raises(ValueError, match="split 'dev': expected one of train, val, test"):
        TASKS["digits"].arrays("dev")
    assert len(TASKS["tissue"].source("val")) == 200
