"""VTAB-1k: 19 tasks with 1,000 training images each (Zhai et al. 2019, arXiv 1910.04867).

One table states where each task's images, labels and splits come from; the two readers (`vtab_folder`, `vtab_tfds`)
and the reports use nothing else. Order and names are those of the published tables.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, SupportsInt

import numpy as np

from jaxmodels.rules import nearest

GROUPS = ("natural", "specialized", "structured")
SPLITS = ("train800", "val200", "train800val200", "test")


class Cut(NamedTuple):
    """Examples of a TFDS split from `start` (a number, or a fraction of the split) up to `length` of them."""

    split: str
    start: int | tuple[int, int] = 0
    length: int | None = None

    def range(self, sizes: Mapping[str, int]) -> tuple[str, int, int]:
        """(split, start, stop) given the real sizes of the splits.

        >>> Cut('train', (9, 10), 200).range({'train': 3059})
        ('train', 2753, 2953)
        """
        size = sizes[self.split]
        start = self.start if isinstance(self.start, int) else size * self.start[0] // self.start[1]
        return self.split, start, size if self.length is None else min(start + self.length, size)


class VtabTask(NamedTuple):
    """One task of the benchmark.

    Attributes:
        name: as in the published tables.
        group: one of `GROUPS`.
        folder: of the extracted copy.
        num_classes: outputs of the head; not every class occurs in 1,000 images.
        tfds: TFDS name, with '/config' where there is one.
        version: of the TFDS data set; the slices depend on its order of examples.
        train: the TFDS split whose first 800 examples are train800.
        val: where val200 is cut.
        test: where the test split is cut.
        test_size: published size of the test split.
        label: TFDS example -> class.
        image: 'rgb', 'grey' (one channel, repeated) or 'binary' (one channel of 0 and 1, times 255).
    """

    name: str
    group: Literal["natural", "specialized", "structured"]
    folder: str
    num_classes: int
    tfds: str
    version: str
    val: Cut
    test_size: int
    test: Cut = Cut("test")
    train: str = "train"
    label: Callable[[Mapping[str, Any]], int] = lambda example: int(example["label"])
    image: Literal["rgb", "grey", "binary"] = "rgb"

    def cuts(self, split: str, sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
        """The (TFDS split, start, stop) ranges of one of `SPLITS`, in order, for the sizes of the data set at hand.

        Raises:
            ValueError: `split` is none of `SPLITS`.
        """
        if split not in SPLITS:
            raise ValueError(f"split '{split}': expected one of {', '.join(SPLITS)}")
        train, val = Cut(self.train, 0, 800).range(sizes), self.val.range(sizes)
        return {
            "train800": [train],
            "val200": [val],
            "train800val200": [train, val],
            "test": [self.test.range(sizes)],
        }[split]


_CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
_KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)


def clevr_count_label(num_objects: SupportsInt) -> int:
    """Clevr-Count: 3 to 10 objects -> class 0 to 7."""
    return int(num_objects) - 3


def clevr_distance_label(pixel_coords: Any) -> int:
    """Clevr-Dist: the class of the nearest object's depth (strictly above the class's lower bound).

    Args:
        pixel_coords: (objects, 3); the last column is the distance to the camera.

    >>> clevr_distance_label([[10, 20, 8.0]]), clevr_distance_label([[0, 0, 12.0], [0, 0, 8.7]])
    (0, 2)
    """
    return _last_below(_CLEVR_DISTANCES, np.asarray(pixel_coords)[:, 2].min())


def kitti_label(types: Any, depths: Any) -> int:
    """KITTI-Dist: the class of the nearest vehicle's depth; 3 when there is no vehicle.

    Args:
        types: (objects,); 0, 1, 2 are cars, vans and trucks.
        depths: (objects,) z of the objects' location, in metres.

    >>> kitti_label([0, 3], [30.0, 5.0]), kitti_label([3], [5.0])
    (2, 3)
    """
    vehicles = np.asarray(depths)[np.asarray(types) < 3]
    return _last_below(_KITTI_DISTANCES, vehicles.min(initial=1000.0))


def _last_below(thresholds: tuple[float, ...], value: Any) -> int:
    return int((np.asarray(thresholds) < float(value)).sum()) - 1


def dsprites_label(attribute: SupportsInt, values: int) -> int:
    """DSprites: an attribute with `values` levels in 16 equal bins, floor(attribute / (values / 16)).

    >>> [dsprites_label(a, 40) for a in (0, 2, 3, 39)]
    [0, 0, 1, 15]
    """
    return int(attribute) * 16 // values


_VALIDATION = Cut("validation", 0, 200)
_LAST_TENTH = Cut("train", (9, 10), 200)

_CLEVR: dict[str, Any] = {"version": "3.1.0", "val": _LAST_TENTH, "test": Cut("validation"), "test_size": 15_000}
_DSPRITES: dict[str, Any] = {
    "tfds": "dsprites",
    "version": "2.0.0",
    "val": Cut("train", (4, 5), 200),
    "test": Cut("train", (9, 10)),
    "test_size": 73_728,
    "image": "binary",
}
_SMALLNORB: dict[str, Any] = {
    "tfds": "smallnorb",
    "version": "2.0.0",
    "val": Cut("test", 0, 200),  # the benchmark halves the TFDS test split into validation and test
    "test": Cut("test", (1, 2)),
    "test_size": 12_150,
    "image": "grey",
}

_TABLE = (
    # name, group, folder, classes, TFDS name, version, val200, size of test
    VtabTask("cifar100", "natural", "cifar", 100, "cifar100", "3.0.2", _LAST_TENTH, 10_000),
    VtabTask("caltech101", "natural", "caltech101", 102, "caltech101", "3.0.1", _LAST_TENTH, 6_084),
    VtabTask("dtd", "natural", "dtd", 47, "dtd", "3.0.1", _VALIDATION, 1_880),
    VtabTask(
        "oxford_flowers102", "natural", "oxford_flowers102", 102, "oxford_flowers102", "2.1.1", _VALIDATION, 6_149
    ),
    VtabTask(
        "oxford_iiit_pet", "natural", "oxford_iiit_pet", 37, "oxford_iiit_pet", "3.2.0", Cut("train", (4, 5), 200),
        3_669,
    ),
    VtabTask("svhn", "natural", "svhn", 10, "svhn_cropped", "3.0.0", _LAST_TENTH, 26_032),
    VtabTask("sun397", "natural", "sun397", 397, "sun397/tfds", "4.0.0", _VALIDATION, 21_750),
    VtabTask("patch_camelyon", "specialized", "patch_camelyon", 2, "patch_camelyon", "2.0.0", _VALIDATION, 32_768),
    VtabTask(
        "eurosat", "specialized", "eurosat", 10, "eurosat/rgb", "2.0.0", Cut("train", (3, 5), 200), 5_400,
        test=Cut("train", (4, 5)),
    ),
    VtabTask(
        "resisc45", "specialized", "resisc45", 45, "resisc45", "3.0.0", Cut("train", (3, 5), 200), 6_300,
        test=Cut("train", (4, 5)),
    ),
    VtabTask(
        "diabetic_retinopathy", "specialized", "diabetic_retinopathy", 5,
        "diabetic_retinopathy_detection/btgraham-300", "3.0.0", _VALIDATION, 42_670,
    ),
    VtabTask(
        "clevr_count", "structured", "clevr_count", 8, "clevr", **_CLEVR,
        label=lambda example: clevr_count_label(len(example["objects"]["size"])),
    ),
    VtabTask(
        "clevr_dist", "structured", "clevr_dist", 6, "clevr", **_CLEVR,
        label=lambda example: clevr_distance_label(example["objects"]["pixel_coords"]),
    ),
    VtabTask("dmlab", "structured", "dmlab", 6, "dmlab", "2.0.1", _VALIDATION, 22_735),
    VtabTask(
        "kitti", "structured", "kitti", 4, "kitti", "3.2.0", _VALIDATION, 711,
        label=lambda example: kitti_label(
            example["objects"]["type"], np.asarray(example["objects"]["location"]).reshape(-1, 3)[:, 2]
        ),
    ),
    VtabTask(
        "dsprites_loc", "structured", "dsprites_loc", 16, **_DSPRITES,
        label=lambda example: dsprites_label(example["label_x_position"], 32),
    ),
    VtabTask(
        "dsprites_ori", "structured", "dsprites_ori", 16, **_DSPRITES,
        label=lambda example: dsprites_label(example["label_orientation"], 40),
    ),
    VtabTask(
        "smallnorb_azi", "structured", "smallnorb_azi", 18, **_SMALLNORB,
        label=lambda example: int(example["label_azimuth"]),
    ),
    VtabTask(
        "smallnorb_ele", "structured", "smallnorb_ele", 9, **_SMALLNORB,
        label=lambda example: int(example["label_elevation"]),
    ),
)  # fmt: skip

TASKS: dict[str, VtabTask] = {task.name: task for task in _TABLE}


def vtab_task(name: str) -> VtabTask:
    """The task of this name (or of this folder of the extracted copy).

    Raises:
        ValueError: no such task; names the nearest.
    """
    for task in _TABLE:
        if name in (task.name, task.folder):
            return task
    raise ValueError(f"--tasks={name}: VTAB-1k has no such task{nearest(name, TASKS)}; it has {', '.join(TASKS)}")
