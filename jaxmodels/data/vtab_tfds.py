"""VTAB-1k from prepared TensorFlow Datasets, read as ArrayRecord files without TensorFlow (extra `tfds`).

The slices depend on the order of examples of one data set version, so a task names its version; prepare it with
`tfds build <name> --file_format=array_record`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels.data.imagelist import contents, existing_folder
from jaxmodels.data.source import LazySource, Source, concat, mapped
from jaxmodels.data.vtab import VtabTask


def vtab_tfds_split(data_dir: Path | str, task: VtabTask, split: str, *, version: str | None = None) -> LazySource:
    """One split of one task.

    Args:
        data_dir: TFDS's data folder, with `<name>[/<config>]/<version>` below it.
        task: from `vtab.TASKS`.
        split: 'train800', 'val200', 'train800val200' or 'test'.
        version: of the TFDS data set; the one behind the published numbers unless given.

    Returns:
        Source of {'image': uint8 (H, W, 3) of its own size, 'label': int32 ()}.

    Raises:
        ValueError: the package, the data set, its version or its ArrayRecord files are missing.
    """
    builder = _builder(Path(data_dir).expanduser(), task, version or task.version)
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    missing = {cut.split for cut in (task.val, task.test)} | {task.train}
    missing -= set(sizes)
    if missing:
        raise ValueError(f"{task.tfds}: expected a split '{min(missing)}', found {', '.join(sorted(sizes))}")
    parts: list[Source] = []
    for name, start, stop in task.cuts(split, sizes):
        if stop <= start:
            raise ValueError(f"{task.tfds}: split '{name}' has {sizes[name]} examples, too few for {split}")
        parts.append(builder.as_data_source(split=f"{name}[{start}:{stop}]"))
    return mapped(concat(parts), lambda example: _example(task, example))


def _builder(data_dir: Path, task: VtabTask, version: str) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(f"--reader=tfds: needs tensorflow_datasets (pip install 'jaxmodels[tfds]'); {error}") from None
    existing_folder(data_dir, "folder")
    folder = data_dir / task.tfds / version
    if not (folder / "dataset_info.json").is_file():
        raise ValueError(
            f"--data_dir: found no prepared {task.tfds}:{version} at {folder}; {contents(folder.parent)}; "
            f"prepare it with: tfds build {task.tfds.split('/')[0]} --file_format=array_record --data_dir={data_dir}"
        )
    builder = tfds.builder_from_directory(folder)
    found = builder.info.file_format
    if found is None or found.value != "array_record":
        raise ValueError(
            f"{folder}: expected ArrayRecord files, found {getattr(found, 'value', found)}; prepare them with: "
            f"tfds build {task.tfds.split('/')[0]} --file_format=array_record"
        )
    return builder


def _example(task: VtabTask, example: Mapping[str, Any]) -> dict[str, Any]:
    image = np.asarray(example["image"])
    if task.image == "binary":
        image = image * np.uint8(255)
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    return {"image": image, "label": np.int32(task.label(example))}
