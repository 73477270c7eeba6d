"""VTAB-1k as the extracted copy that the PEFT literature passes around (NOAH, SSF, FacT, SNELL): plain image files.

`<data_dir>/<folder>/` holds images and the lists `train800.txt`, `val200.txt`, `train800val200.txt` and `test.txt`,
whose lines read `relative/path label`. Labels equal those of TFDS.
"""

from pathlib import Path

from jaxmodels.data.imagelist import Entry, contents, existing_folder, file_source, inside
from jaxmodels.data.source import LazySource
from jaxmodels.data.vtab import SPLITS, VtabTask


def vtab_folder_split(data_dir: Path | str, task: VtabTask, split: str) -> LazySource:
    """One split of one task.

    Args:
        data_dir: the folder `vtab-1k`, or the one that holds it.
        task: from `vtab.TASKS`.
        split: 'train800', 'val200', 'train800val200' or 'test'.

    Returns:
        Source of {'image': uint8 (H, W, 3) of the file's own size, 'label': int32 ()}.

    Raises:
        ValueError: a folder, list or listed file is missing, or a line is not `path label` with a label of the task.
    """
    if split not in SPLITS:
        raise ValueError(f"split '{split}': expected one of {', '.join(SPLITS)}")
    root = Path(data_dir).expanduser()
    if (root / "vtab-1k" / task.folder).is_dir():
        root = root / "vtab-1k"
    existing_folder(root, "folder")
    folder = existing_folder(root / task.folder, f"folder '{task.folder}' of {task.name}")
    entries = read_list(folder / f"{split}.txt", folder, task.num_classes)
    if not entries[0].path.is_file():
        raise ValueError(f"{folder / split}.txt:1: found no image {entries[0].path}; {contents(folder)}")
    return file_source(entries)


def read_list(file: Path, root: Path, num_classes: int) -> list[Entry]:
    """The images of one list, in its order; blank lines are skipped.

    Args:
        file: text, one `path label` per line; the label is what follows the last space.
        root: folder the paths are relative to.
        num_classes: labels run from 0 to this minus one.

    Raises:
        ValueError: names file and line.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ValueError(f"--data_dir: found no list {file}; {contents(file.parent)}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file}: expected text, one 'path label' per line") from None
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where, (*name, label) = f"{file}:{number}", line.rsplit(maxsplit=1)
        if not name or not label.isdecimal():
            raise ValueError(f"{where}: expected 'path label', found '{line.strip()}'")
        if int(label) >= num_classes:
            raise ValueError(f"{where}: expected a label from 0 to {num_classes - 1}, found {label}")
        entries.append(Entry(inside(root, name[0].strip(), where), int(label)))
    if not entries:
        raise ValueError(f"{file}: expected one 'path label' per line, found no line")
    return entries
