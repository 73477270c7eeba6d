"""A person's own images: one folder per class, with or without ready-made splits.

Either `data_dir/<class>/*.jpg`, which is then split here, or `data_dir/{train,val,test}/<class>/*.jpg`. Classes are
numbered in the order of their sorted names.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxmodels.data.imagelist import Entry, contents, existing_folder
from jaxmodels.rules import nearest

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
SPLITS = ("train", "val", "test")


class ClassFolders(NamedTuple):
    """Images of every split with their classes.

    Attributes:
        classes: names, sorted; a label is an index into them.
        train: images to learn from; every class has at least one.
        val: images to choose hyper-parameters by.
        test: images to report on.
    """

    classes: tuple[str, ...]
    train: tuple[Entry, ...]
    val: tuple[Entry, ...]
    test: tuple[Entry, ...]


def class_folders(
    data_dir: Path | str, *, val_share: float = 0.2, test_share: float = 0.2, seed: int = 0
) -> ClassFolders:
    """Lists a folder of class folders and splits it where it is not split.

    Without ready-made splits every class is divided on its own: round(share * n) of its n images go to test, as many
    to validation, the rest (at least one image, so a class with a single image is only trained on) to training.
    Which ones follows from the seed, the class's name and its file names alone: adding a class or another run changes
    nothing. With ready-made splits `train` and `test` are needed; without `val` it is cut from `train` the same way.

    Args:
        data_dir: the folder.
        val_share: share of each class's images for validation.
        test_share: share of each class's images for test.
        seed: of the division.

    Raises:
        ValueError: no class folders, a single class, an empty class folder, images outside of class folders, a class
            of val or test that train lacks, or shares that leave nothing to train on.
    """
    if not (0 <= val_share and 0 <= test_share and val_share + test_share < 1):
        raise ValueError(f"val_share={val_share}, test_share={test_share}: expected shares of sum below 1")
    root = existing_folder(Path(data_dir).expanduser(), "folder")
    present = {entry.name for entry in root.iterdir() if entry.is_dir() and entry.name in SPLITS}
    if {"train", "test"} <= present:
        return _ready_made(root, present, val_share, seed)
    if present and present == set(_subfolders(root)):
        raise ValueError(f"--data_dir: expected both train/ and test/ in {root}; {contents(root)}")
    files = _images_of(root)
    classes = _classes(files, root)
    train: list[Entry] = []
    val: list[Entry] = []
    test: list[Entry] = []
    for label, name in enumerate(classes):
        parts = _divide(files[name], val_share, test_share, f"{seed}/{name}")
        for split, paths in zip((train, val, test), parts, strict=True):
            split += [Entry(path, label) for path in paths]
    for share, split, flag in ((val_share, val, "val_share"), (test_share, test, "test_share")):
        if share and not split:
            raise ValueError(f"{root}: too few images per class for {flag}={share}; no class has enough to give one")
    return ClassFolders(classes, tuple(train), tuple(val), tuple(test))


def _ready_made(root: Path, present: set[str], val_share: float, seed: int) -> ClassFolders:
    listed = {split: _images_of(root / split) for split in SPLITS if split in present}
    classes = _classes(listed["train"], root / "train")
    if "val" not in listed:
        parts = {name: _divide(paths, val_share, 0.0, f"{seed}/{name}") for name, paths in listed["train"].items()}
        listed["train"] = {name: train for name, (train, _, _) in parts.items()}
        listed["val"] = {name: val for name, (_, val, _) in parts.items() if val}
    entries = {}
    for split, files in listed.items():
        for name in files:
            if name not in classes:
                raise ValueError(f"{root / split / name}: train/ has no class of that name{nearest(name, classes)}")
        entries[split] = tuple(Entry(path, classes.index(name)) for name, paths in files.items() for path in paths)
    return ClassFolders(classes, entries["train"], entries["val"], entries["test"])


def _images_of(root: Path) -> dict[str, list[Path]]:
    """Class name -> its images, both sorted."""
    folders = _subfolders(root)
    if not folders:
        loose = sum(path.suffix.lower() in SUFFIXES for path in root.iterdir())
        also = f", but {loose} images that lie in no class folder" if loose else ""
        raise ValueError(f"--data_dir: expected one folder per class in {root}, found none{also}; {contents(root)}")
    found = {name: sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in SUFFIXES) for name in folders}
    for name, paths in found.items():
        if not paths:
            raise ValueError(f"{root / name}: expected images ({', '.join(sorted(SUFFIXES))}); {contents(root / name)}")
    return found


def _classes(files: dict[str, list[Path]], root: Path) -> tuple[str, ...]:
    if len(files) == 1:
        raise ValueError(f"--data_dir: expected at least two class folders in {root}, found only '{min(files)}'")
    return tuple(files)


def _subfolders(root: Path) -> list[str]:
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _divide(
    paths: list[Path], val_share: float, test_share: float, key: str
) -> tuple[list[Path], list[Path], list[Path]]:
    """(train, val, test) of one class; every part sorted by name."""
    order = np.random.default_rng(zlib.crc32(key.encode())).permutation(len(paths))
    test = min(round(test_share * len(paths)), len(paths) - 1)
    val = min(round(val_share * len(paths)), len(paths) - 1 - test)
    cuts = order[test + val :], order[test : test + val], order[:test]
    train, validation, tested = ([paths[i] for i in sorted(cut)] for cut in cuts)
    return train, validation, tested
