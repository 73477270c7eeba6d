"""Cached features: what a bypass reads of un-augmented images is computed once, and then trained on as data.

Nothing upstream of a bypass changes while it trains (Jiang et al. 2023, arXiv 2310.19859), so the backbone needs one
pass over the images in all. Of a ViT only the class token's path reaches the features: 13 * 768 bfloat16 numbers per
image of ViT-B/16, 20 kB; with a gate, a mean over tokens, it is all 197 tokens and 3.9 MB. The cache is a random-access
sequence like any other source of examples.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.tuning.classifier import needed
from jaxmodels.tuning.tuner import Context, Tuner
from jaxmodels.tuning.tuner_file import backbone_hash

HEADER = "header.json"
# A .npy file cannot name bfloat16, so its bits are stored as integers.
DTYPES: dict[str, tuple[np.dtype, np.dtype]] = {
    "bfloat16": (np.dtype(jnp.bfloat16), np.dtype(np.uint16)),
    "float32": (np.dtype(np.float32), np.dtype(np.float32)),
}


class CachedReads(Sequence):
    """Examples {'features': {port path: array}, **other fields}, as `classifier` takes them; no images.

    Held in memory, or memory-mapped from a folder; then it pickles as the folder's name, for worker processes.
    """

    def __init__(self, features: Mapping[str, np.ndarray], fields: Mapping[str, np.ndarray], folder: Path | None):
        self.features, self.fields, self.folder = features, fields, folder

    def __len__(self) -> int:
        """Number of examples."""
        return len(next(iter(self.features.values())))

    def __getitem__(self, index: Any) -> Any:
        """One example; a slice or an array of indices gives a whole batch."""
        # Copies, so that nothing downstream holds a page of the file.
        features = {path: np.array(array[index]) for path, array in self.features.items()}
        return {"features": features, **{name: np.array(array[index]) for name, array in self.fields.items()}}

    def __reduce__(self):
        """Pickles a cache on disk by its place."""
        if self.folder is None:
            return CachedReads, (self.features, self.fields, None)
        return open_cache, (self.folder,)


def cached_reads(
    backbone: Backbone,
    tuner: Tuner,
    params: Any,
    examples: Any,
    *,
    dtype: str = "bfloat16",
    where: str | Path = "memory",
    batch_size: int = 64,
    recompute: bool = False,
) -> CachedReads:
    """Features of every example, computed once.

    Args:
        backbone: the frozen backbone.
        tuner: one that reads (`res_tuning_bypass`, `linear`) and writes nothing.
        params: the backbone's parameters.
        examples: random access to {'image' (H, W, 3) normalised and not augmented, and other fields, such as 'label'}.
        dtype: of the stored features, 'bfloat16' or 'float32'.
        where: 'memory', or a folder. A folder that holds the cache of the same backbone, ports, dtype and examples is
            opened without computing anything; examples are told apart by their number and by 16 of them.
        batch_size: images per forward pass; the last batch is padded, so that one program is compiled.
        recompute: compute again and replace the cache in the folder, fresh or stale.

    Returns:
        The source.

    Raises:
        ValueError: a tuner whose reads depend on what is trained, no examples, an unknown dtype, or a stale folder.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: found '{dtype}', expected one of {', '.join(DTYPES)}")
    if not len(examples):
        raise ValueError("examples: found none, expected at least one to cache")
    if batch_size < 1:
        raise ValueError(f"batch_size: found {batch_size}, expected at least 1")
    _check_frozen(backbone, tuner, params)
    if where == "memory":
        features = _allocate(backbone, tuner, len(examples), dtype, None)
        fields = _fill(features, backbone, tuner, params, examples, dtype, batch_size)
        return CachedReads(_typed(features, dtype), fields, None)
    folder = Path(where)
    header = header_of(backbone, tuner, params, examples, dtype)
    if folder.exists() and not (recompute and (folder / HEADER).exists()):
        _check_fresh(folder, header)
        return open_cache(folder)
    with _written_whole(folder) as partial:
        features = _allocate(backbone, tuner, len(examples), dtype, partial)
        fields = _fill(features, backbone, tuner, params, examples, dtype, batch_size)
        for array in features.values():
            if isinstance(array, np.memmap):
                array.flush()
        for name, array in fields.items():
            np.save(partial / f"field.{name}.npy", array, allow_pickle=False)
        (partial / HEADER).write_text(json.dumps({**header, "fields": sorted(fields)}, indent=1))
    return open_cache(folder)


@contextlib.contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    """A folder beside the final one, renamed when complete: a killed run leaves no half cache under the final name."""
    partial = folder.parent / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_cache(folder: str | Path) -> CachedReads:
    """The cache in a folder, memory-mapped; whether it is the right one is `cached_reads`'s question.

    Raises:
        ValueError: the folder holds no cache.
    """
    folder = Path(folder)
    header = _header(folder)
    features = {path: np.load(_file(folder, path), mmap_mode="r") for path in header["ports"]}
    fields = {name: np.load(folder / f"field.{name}.npy") for name in header["fields"]}
    return CachedReads(_typed(features, header["dtype"]), fields, folder)


def header_of(backbone: Backbone, tuner: Tuner, params: Any, examples: Any, dtype: str) -> dict[str, Any]:
    """What a cache is of: plain JSON values; any difference makes it stale."""
    return {
        "backbone": backbone.name,
        "image_size": backbone.image_size,
        "backbone_hash": backbone_hash(params),
        "ports": list(tuner.reads(backbone)),
        "tokens": backbone.pooled_tokens if tuner.tokenwise else None,
        "dtype": dtype,
        "number": len(examples),
        "examples_hash": _sample_hash(examples),
    }


def _sample_hash(examples: Any, most: int = 16) -> str:
    """Hash of up to `most` examples, evenly spaced: reading all images would cost what the cache is to save."""
    chosen = np.unique(np.linspace(0, len(examples) - 1, most).astype(int))
    return backbone_hash([dict(examples[int(i)]) for i in chosen])


def _check_frozen(backbone: Backbone, tuner: Tuner, params: Any) -> None:
    name = tuner.config["method"]
    if tuner.bypass is None:
        raise ValueError(f"tuner: '{name}' runs inside the backbone, so there are no features to cache")
    written: list[str] = []

    def record(backbone_params):
        context = Context(backbone_params, tuner.init_state(backbone), None)
        written.extend(tuner.writes(tuner.init(jax.random.key(0), backbone), context))

    jax.eval_shape(record, params)
    if tuner.groups(backbone) or written:
        raise ValueError(f"tuner: '{name}' changes the backbone as it trains, so cached features would go stale")


def _check_fresh(folder: Path, expected: dict[str, Any]) -> None:
    found = _header(folder)
    for key, value in expected.items():
        if found.get(key) != value:
            raise ValueError(
                f"{folder}: is a stale cache, {key} is {found.get(key)}, expected {value}; "
                "choose another folder or pass recompute=True"
            )


def _header(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / HEADER).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: expected a cache of features, found no readable {HEADER}") from error


def _allocate(backbone: Backbone, tuner: Tuner, number: int, dtype: str, folder: Path | None) -> dict[str, np.ndarray]:
    ports, stored = backbone.shapes().ports, DTYPES[dtype][1]

    whole = {path: ports[path][1] for path in tuner.reads(backbone)}
    shapes = jax.eval_shape(lambda reads: needed(backbone, tuner, reads), whole)

    def empty(path: str) -> np.ndarray:
        shape = (number, *shapes[path].shape[1:])
        if folder is None:
            return np.empty(shape, stored)
        return np.lib.format.open_memmap(_file(folder, path), mode="w+", dtype=stored, shape=shape)

    return {path: empty(path) for path in whole}


def _fill(
    features: Mapping[str, np.ndarray],
    backbone: Backbone,
    tuner: Tuner,
    params: Any,
    examples: Any,
    dtype: str,
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Fills the arrays batch by batch; returns the examples' other fields."""
    paths = tuple(features)

    @jax.jit
    def read(params, images):
        reads = needed(backbone, tuner, backbone.read(params, images, paths))
        return jax.tree.map(lambda x: x.astype(DTYPES[dtype][0]), reads)

    others: dict[str, list[Any]] = {}
    for start in range(0, len(examples), batch_size):
        batch = [examples[i] for i in range(start, min(start + batch_size, len(examples)))]
        images = [example["image"] for example in batch]
        reads = read(params, np.stack(images + images[-1:] * (batch_size - len(batch))))
        for path, array in features.items():
            array[start : start + len(batch)] = np.asarray(reads[path])[: len(batch)].view(array.dtype)
        for example in batch:
            for name in example:
                if name != "image":
                    others.setdefault(name, []).append(example[name])
    return {name: np.stack(values) for name, values in others.items()}


def _typed(features: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    return {path: array.view(DTYPES[dtype][0]) for path, array in features.items()}


def _file(folder: Path, path: str) -> Path:
    return folder / f"port.{path.replace('/', '.')}.npy"
