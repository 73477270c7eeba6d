"""The five fine-grained sets (FGVC) with the splits that VPT published as JSON files.

`<data_dir>/<folder>/{train,val,test}.json` map image names to class ids; ids become contiguous by sorting.
"""

import json
from pathlib import Path
from typing import NamedTuple

from jaxmodels.data.imagelist import Entry, contents, existing_folder, file_source, inside
from jaxmodels.data.source import LazySource
from jaxmodels.rules import nearest

SPLITS = ("train", "val", "test")


class FgvcSet(NamedTuple):
    """One data set.

    Attributes:
        name: on the command line.
        title: in tables.
        folder: below the data folder.
        num_classes: the number of species, breeds or models.
        sizes: published numbers of training, validation and test images.
        images: folder of the images, relative to the set's.
    """

    name: str
    title: str
    folder: str
    num_classes: int
    sizes: tuple[int, int, int]
    images: str


SETS = {
    row.name: row
    for row in (
        FgvcSet("cub", "CUB-200-2011", "CUB_200_2011", 200, (5_394, 600, 5_794), "images"),
        FgvcSet("nabirds", "NABirds", "nabirds", 555, (21_536, 2_393, 24_633), "images"),
        FgvcSet("flowers", "Oxford Flowers", "OxfordFlower", 102, (1_020, 1_020, 6_149), ""),
        FgvcSet("dogs", "Stanford Dogs", "Stanford-dogs", 120, (10_800, 1_200, 8_580), "Images"),
        FgvcSet("cars", "Stanford Cars", "Stanford-cars", 196, (7_329, 815, 8_041), ""),
    )
}


def fgvc_set(name: str) -> FgvcSet:
    """The set of this name.

    Raises:
        ValueError: no such set; names the nearest.
    """
    if name not in SETS:
        raise ValueError(f"--tasks={name}: FGVC has no such set{nearest(name, SETS)}; it has {', '.join(SETS)}")
    return SETS[name]


def fgvc_split(data_dir: Path | str, data_set: FgvcSet, split: str) -> LazySource:
    """One split of one set.

    Args:
        data_dir: folder with one sub-folder per set.
        data_set: from `SETS`.
        split: 'train', 'val' or 'test'.

    Returns:
        Source of {'image': uint8 (H, W, 3) of the file's own size, 'label': int32 ()}.

    Raises:
        ValueError: a folder, JSON file or first image is missing, a file is malformed, or its classes are not the
            set's.
    """
    if split not in SPLITS:
        raise ValueError(f"split '{split}': expected one of {', '.join(SPLITS)}")
    root = existing_folder(Path(data_dir).expanduser(), "folder")
    folder = existing_folder(root / data_set.folder, f"folder '{data_set.folder}' of {data_set.title}")
    ids = sorted(set(read_json(folder / "train.json").values()))
    if len(ids) != data_set.num_classes:
        raise ValueError(f"{folder / 'train.json'}: expected {data_set.num_classes} classes, found {len(ids)}")
    contiguous = {identity: label for label, identity in enumerate(ids)}
    file, entries = folder / f"{split}.json", []
    for name, identity in read_json(file).items():
        if identity not in contiguous:
            raise ValueError(f"{file}: '{name}' has class {identity}, which no image of train.json has")
        entries.append(Entry(inside(folder / data_set.images, name, str(file)), contiguous[identity]))
    if not entries[0].path.is_file():
        raise ValueError(f"{file}: found no image {entries[0].path}; {contents(folder)}")
    return file_source(entries)


def read_json(file: Path) -> dict[str, int]:
    """Image name -> class id (an integer, or digits in a string).

    Raises:
        ValueError: the file is missing, is no JSON object of that kind, or is empty.
    """
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"--data_dir: found no {file}; {contents(file.parent)}") from None
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON, image name -> class id ({error})") from None
    if not isinstance(table, dict) or not table:
        raise ValueError(f"{file}: expected image names -> class ids, found {type(table).__name__} of no use")
    for name, identity in table.items():
        if isinstance(identity, bool) or not str(identity).isdecimal():
            raise ValueError(f"{file}: '{name}': expected a class id, found {identity!r}")
    return {name: int(identity) for name, identity in table.items()}
