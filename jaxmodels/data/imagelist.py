"""Lists of image files with labels: the common ground of every reader of plain files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.data.images import decode
from jaxmodels.data.source import LazySource


class Entry(NamedTuple):
    """One image: where it is and its class."""

    path: Path
    label: int


def file_source(entries: Iterable[Entry], *, upright: bool = False) -> LazySource:
    """Decodes on access; yields {'image': uint8 (H, W, 3) of the file's own size, 'label': int32 ()}.

    Args:
        entries: the images.
        upright: turn pictures as their EXIF orientation says.
    """
    listed = list(entries)
    return LazySource(
        len(listed),
        lambda i: {"image": decode(listed[i].path, upright=upright), "label": np.int32(listed[i].label)},
    )


def existing_folder(path: Path, what: str) -> Path:
    """`path` if it is a folder.

    Raises:
        ValueError: it is not; says what is there instead.
    """
    if path.is_dir():
        return path
    raise ValueError(f"--data_dir: found no {what} at {path}; {contents(path.parent)}")


def contents(folder: Path, limit: int = 8) -> str:
    """What a folder holds, for an error message."""
    if not folder.is_dir():
        return f"{folder} is not a folder either"
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    more = f", ... ({len(names)} entries)" if len(names) > limit else ""
    return f"{folder} holds {', '.join(names[:limit]) + more if names else 'nothing'}"


def inside(root: Path, name: Any, where: str) -> Path:
    """`root / name` for a relative name that stays below root.

    Raises:
        ValueError: the name is empty, absolute or climbs out; `where` says who named it.
    """
    relative = Path(str(name))
    if not str(name) or relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"{where}: expected an image path below {root}, found '{name}'")
    return root / relative
