"""Task: one image classification problem with its splits, the same whether drawn, published or a person's own.

The loaders turn what the readers give (decoded files of any size) into examples a backbone takes: square, normalised,
float32. An experiment reads `train`, `val`, `trainval` and `test` and never asks where they came from.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmodels.data import augment as views
from jaxmodels.data import fgvc, folder, synthetic, vtab
from jaxmodels.data.batches import Augment
from jaxmodels.data.caching import kept
from jaxmodels.data.imagelist import file_source
from jaxmodels.data.images import normalise, resize
from jaxmodels.data.source import Example, LazySource, Source, array_source, concat, mapped
from jaxmodels.data.vtab_folder import vtab_folder_split
from jaxmodels.data.vtab_tfds import vtab_tfds_split

Preprocess = Callable[[np.ndarray], np.ndarray]

_VIEWS = {"timm": views.timm_train, "vpt": views.vpt_train}


class Task(NamedTuple):
    """One classification task.

    Every source yields {'image': float32 (S, S, 3), normalised, 'label': int32 ()}. The exception: where `augment` is
    set, `train` and `trainval` yield undistorted uint8 pictures, and `batches(task.train, ..., augment=task.augment)`
    makes them such examples.

    Attributes:
        name: on the command line and in tables.
        group: of tasks that are averaged together.
        num_classes: outputs of the head.
        train: to learn from while hyper-parameters are chosen.
        val: to choose them by.
        trainval: both, to learn from afterwards.
        test: to report on.
        real: False when the pictures are drawn by a formula.
        image_size: S.
        normalisation: 'imagenet' or 'inception'.
        description: what the label is, or where the images came from.
        augment: (example, generator) -> example, for the training sources.
        class_names: by label, where they are known.
    """

    name: str
    group: str
    num_classes: int
    train: Source
    val: Source
    trainval: Source
    test: Source
    real: bool
    image_size: int
    normalisation: str
    description: str
    augment: Augment | None = None
    class_names: tuple[str, ...] | None = None


def embedded_tasks(
    names: Sequence[str] | None = None, *, image_size: int = synthetic.SIZE, normalisation: str = "inception"
) -> list[Task]:
    """The tasks that need no download (`synthetic.TASKS`), in memory.

    Args:
        names: which; all of them unless given.
        image_size: S; pictures are drawn at 32 pixels and enlarged (bicubic) for anything else.
        normalisation: the mini backbones were pre-trained with 'inception'.

    Raises:
        ValueError: an unknown name; names the nearest.

    >>> task, = embedded_tasks(['digits'])
    >>> len(task.train), len(task.val), len(task.test), task.test[0]['image'].shape
    (800, 200, 797, (32, 32, 3))
    """
    return [_embedded(synthetic.embedded_task(name), image_size, normalisation) for name in names or synthetic.TASKS]


def _embedded(task: synthetic.EmbeddedTask, size: int, normalisation: str) -> Task:
    def split(name: str) -> LazySource:
        arrays = task.arrays(name)
        image = arrays["image"]
        if size != synthetic.SIZE:
            image = np.stack([resize(picture, size, "bicubic") for picture in image])
        return array_source({"image": normalise(image, normalisation), "label": arrays["label"]})

    train, val, test = split("train"), split("val"), split("test")
    return Task(
        name=task.name,
        group=task.group,
        num_classes=task.num_classes,
        train=train,
        val=val,
        trainval=concat([train, val]),
        test=test,
        real=task.real,
        image_size=size,
        normalisation=normalisation,
        description=task.description,
    )


def vtab1k_tasks(
    data_dir: Path | str,
    names: Sequence[str] | None = None,
    *,
    reader: str = "folder",
    image_size: int = 224,
    resize_method: str = "bicubic",
    normalisation: str = "imagenet",
    cache: str = "ram",
    version: str | None = None,
) -> list[Task]:
    """VTAB-1k: train800, val200, their union and the whole test split of each task; no augmentation.

    Args:
        data_dir: folder of the extracted copy, or TFDS's data folder.
        names: which tasks; all 19 unless given.
        reader: 'folder' for the extracted copy, 'tfds' for prepared ArrayRecord data sets.
        image_size: S.
        resize_method: 'bicubic' as FacT, SSF, SPT and SNELL; 'tf_bilinear' as VPT. Aspect ratio is ignored.
        normalisation: 'imagenet' is what the published numbers use.
        cache: where resized pictures are kept after their first use, 150 kB each at 224 pixels; see `caching.kept`.
        version: of the TFDS data sets, in place of the published ones.

    Raises:
        ValueError: an unknown task or option, or data that are missing or malformed.
    """
    if reader not in ("folder", "tfds"):
        raise ValueError(f"--reader={reader}: expected 'folder' or 'tfds'")
    if version is not None and reader != "tfds":
        raise ValueError(f"version={version}: only --reader=tfds has versions")

    _check(image_size, normalisation)
    resize(np.zeros((1, 1, 3), np.uint8), 1, resize_method)

    def load(row: vtab.VtabTask, split: str) -> LazySource:
        if reader == "tfds":
            return vtab_tfds_split(data_dir, row, split, version=version)
        return vtab_folder_split(data_dir, row, split)

    def build(row: vtab.VtabTask) -> Task:
        train, val, test = (load(row, split) for split in ("train800", "val200", "test"))
        shrink = _on_image(lambda image: resize(image, image_size, resize_method))
        train, val, test = (
            mapped(kept(mapped(source, shrink), cache), _normalised(normalisation)) for source in (train, val, test)
        )
        return Task(
            name=row.name,
            group=row.group,
            num_classes=row.num_classes,
            train=train,
            val=val,
            trainval=concat([train, val]),
            test=test,
            real=True,
            image_size=image_size,
            normalisation=normalisation,
            description=f"VTAB-1k, {row.tfds}",
        )

    return [build(vtab.vtab_task(name)) for name in names or vtab.TASKS]


def fgvc_tasks(
    data_dir: Path | str,
    names: Sequence[str] | None = None,
    *,
    image_size: int = 224,
    augmentation: str = "timm",
    normalisation: str = "imagenet",
    cache: str = "ram",
) -> list[Task]:
    """The fine-grained sets; tested on centre crops.

    Args:
        data_dir: folder with one sub-folder per set.
        names: which of `fgvc.SETS`; all five unless given.
        image_size: S.
        augmentation: of the training images: 'timm' (SSF, SNELL), 'vpt', or 'none' (the test's view).
        normalisation: 'imagenet' is what the published numbers use.
        cache: where decoded pictures are kept after their first use, see `caching.kept`; training images in their full
            size where they are augmented.

    Raises:
        ValueError: an unknown set or option, or data that are missing or malformed.
    """

    def build(row: fgvc.FgvcSet) -> Task:
        sources = (fgvc.fgvc_split(data_dir, row, split) for split in fgvc.SPLITS)
        splits = _cropped(sources, image_size, augmentation, normalisation, cache)
        return Task(
            name=row.name,
            group="fgvc",
            num_classes=row.num_classes,
            **splits,
            real=True,
            image_size=image_size,
            normalisation=normalisation,
            description=row.title,
        )

    return [build(fgvc.fgvc_set(name)) for name in names or fgvc.SETS]


def folder_task(
    data_dir: Path | str,
    *,
    image_size: int = 224,
    augmentation: str = "none",
    normalisation: str = "imagenet",
    cache: str = "ram",
    val_share: float = 0.2,
    test_share: float = 0.2,
    seed: int = 0,
) -> Task:
    """A person's own images in class folders (`folder.class_folders` says how they are split).

    Args:
        data_dir: the folder; its name becomes the task's.
        image_size: S.
        augmentation: of the training images, as in `fgvc_tasks`.
        normalisation: 'imagenet' or 'inception'.
        cache: as in `fgvc_tasks`.
        val_share: share of each class for validation, where the folder has no `val`.
        test_share: share of each class for test, where the folder has no splits.
        seed: of that division.

    Raises:
        ValueError: the folder holds no class folders, or they hold too little; a validation or test split is empty.
    """
    found = folder.class_folders(data_dir, val_share=val_share, test_share=test_share, seed=seed)
    sources = (file_source(entries, upright=True) for entries in (found.train, found.val, found.test))
    splits = _cropped(sources, image_size, augmentation, normalisation, cache)
    return Task(
        name=Path(data_dir).expanduser().resolve().name,
        group="own",
        num_classes=len(found.classes),
        **splits,
        real=True,
        image_size=image_size,
        normalisation=normalisation,
        description=f"{len(found.train)} + {len(found.val)} + {len(found.test)} images of {data_dir}",
        class_names=found.classes,
    )


def _cropped(
    sources: Iterable[Source],
    size: int,
    augmentation: str,
    normalisation: str,
    cache: str,
) -> dict:
    """The splits of a task tested on centre crops: train, val, trainval, test, augment."""
    if augmentation != "none" and augmentation not in _VIEWS:
        raise ValueError(f"augmentation '{augmentation}': expected one of {', '.join(_VIEWS)}, none")
    _check(size, normalisation)
    crop, finish = _on_image(lambda image: views.centre_crop(image, size)), _normalised(normalisation)

    train, val, test = sources

    def tested(source: Source) -> LazySource:
        return mapped(kept(mapped(source, crop), cache), finish)

    tested_val, tested_test = tested(val), tested(test)
    if augmentation == "none":
        training: Source = tested(train)
        both, augment = concat([training, tested_val]), None
    else:
        training = kept(train, cache)
        both = concat([training, kept(val, cache)])
        augment = functools.partial(_augment, view=_VIEWS[augmentation], size=size, normalisation=normalisation)
    return {"train": training, "val": tested_val, "trainval": both, "test": tested_test, "augment": augment}


def _check(image_size: int, normalisation: str) -> None:
    """Options that would otherwise fail late, in the middle of a run, or be ignored."""
    if image_size < 1:
        raise ValueError(f"image_size={image_size}: expected at least 1 pixel")
    normalise(np.zeros((1, 1, 3)), normalisation)


def _augment(
    example: Example,
    rng: np.random.Generator,
    *,
    view: Callable[..., np.ndarray],
    size: int,
    normalisation: str,
) -> Example:
    return {**example, "image": normalise(view(example["image"], rng, size), normalisation)}


def _on_image(function: Preprocess) -> Callable[[Example], Example]:
    return lambda example: {**example, "image": function(example["image"])}


def _normalised(normalisation: str) -> Callable[[Example], Example]:
    return _on_image(lambda image: normalise(image, normalisation))
