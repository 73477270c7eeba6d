"""Checkpoint files as plain arrays: reading safetensors (one file or shards) and .npz, writing safetensors and .npz.

Nothing here unpickles: files from elsewhere are untrusted, so PyTorch's own formats are converted outside the library
(see docs/weights.md). Files are written atomically.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxmodels.atomic import replacing

Arrays = dict[str, np.ndarray]

_SINGLE, _INDEX, _ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"
_TORCH = (".pth", ".pt", ".bin", ".tar", ".ckpt")
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """All arrays of a checkpoint by name; half precision is widened to float32.

    Args:
        path: a .safetensors file, the .index.json of a sharded one, a Google .npz, or a folder with
            model.safetensors or model.safetensors.index.json.

    Raises:
        ValueError: nothing is there, the format is another one, or the file is damaged.
    """
    path = Path(path)
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a checkpoint, found no such file")
    if path.name.endswith(".safetensors"):
        return _read_safetensors(path)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    if path.name.endswith(".npz"):
        return _read_npz(path)
    if path.suffix in _TORCH:
        raise ValueError(
            f"{path}: '{path.suffix}' is PyTorch's pickle, which can run code and is not read; convert it to "
            ".safetensors as docs/weights.md shows"
        )
    raise ValueError(f"{path}: found '{path.suffix}', expected .safetensors, .index.json, .npz or a folder with those")


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text metadata of a .safetensors file; {} when it has none.

    Raises:
        ValueError: no such file, or a damaged one.
    """
    return _header(Path(path))[0].get("__metadata__", {})


def write_safetensors(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes arrays as one .safetensors file, atomically.

    Raises:
        OSError: the file cannot be written; an older one is then still complete.
    """
    # ascontiguousarray would turn a scalar into a vector of one.
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with replacing(path) as file:
        file.write(save(contiguous, metadata=dict(metadata) if metadata else None))


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as one .npz file, atomically.

    Raises:
        OSError: the file cannot be written; an older one is then still complete.
    """
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def _in_folder(folder: Path) -> Path:
    for name in (_SINGLE, _INDEX):
        if (folder / name).is_file():
            return folder / name
    if (folder / _ADAPTER).is_file():
        raise ValueError(f"{folder}: holds '{_ADAPTER}', which is a tuner (peft); expected a backbone's {_SINGLE}")
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
    raise ValueError(f"{folder}: expected {_SINGLE} or {_INDEX}, found {found}")


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its data begins."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a .safetensors file, found no such file")
    try:
        with safe_open(path, framework="np"):  # checks the header against the file's size
            pass
    except SafetensorError as error:
        raise ValueError(f"{path}: is damaged or no safetensors file ({_line(error)})") from None
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def _read_safetensors(path: Path) -> Arrays:
    # By hand, since safetensors' NumPy reader knows no bfloat16 in some of its versions.
    header, start = _header(path)
    header.pop("__metadata__", None)
    arrays: Arrays = {}
    with open(path, "rb") as file:
        for name, entry in header.items():
            if entry["dtype"] not in _DTYPES:
                raise ValueError(f"{path}: '{name}' is {entry['dtype']}, expected one of {', '.join(_DTYPES)}")
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            data = np.frombuffer(bytearray(file.read(end - begin)), dtype=_DTYPES[entry["dtype"]])
            arrays[name] = _widened(data.reshape(entry["shape"]))
    return arrays


def _read_shards(index: Path) -> Arrays:
    try:
        shard_of = json.loads(index.read_text())["weight_map"]
        names = {shard: [name for name in shard_of if shard_of[name] == shard] for shard in shard_of.values()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index}: expected JSON with a 'weight_map' of tensor -> file") from None
    arrays: Arrays = {}
    for shard in sorted(names):
        if Path(shard).name != shard:
            raise ValueError(f"{index}: shard '{shard}' lies elsewhere, expected a file of the same folder")
        part = read_arrays(index.parent / shard)
        missing = [name for name in names[shard] if name not in part]
        if missing:
            raise ValueError(f"{index}: '{missing[0]}' is not in {shard}")
        arrays |= {name: part[name] for name in names[shard]}
    return arrays


def _read_npz(path: Path) -> Arrays:
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: _widened(file[name]) for name in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, AttributeError, OSError) as error:
        raise ValueError(f"{path}: is damaged or no .npz of plain arrays ({_line(error)})") from None


def _widened(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:  # what .npz makes of bfloat16
        array = array.view(ml_dtypes.bfloat16)
    half = array.dtype in (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
    return array.astype(np.float32) if half else array


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
