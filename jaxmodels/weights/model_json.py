"""The model.json in the folder of a saved model: what its arrays are of, written after them."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxmodels.rules import nearest

FILE = "model.json"


def read_header(folder: Path, *, keys: Sequence[str], form: int, writer: str) -> dict[str, Any]:
    """The object in model.json.

    Args:
        folder: of the model.
        keys: what it has, 'format' among them.
        form: the format that is read.
        writer: the function that writes such folders, for messages.

    Raises:
        ValueError: no such file, no JSON object, a key too few or too many, or another format.
    """
    file = folder / FILE
    if not file.is_file():
        raise ValueError(f"{file}: found no such file, expected a folder that {writer} wrote")
    try:
        header = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise ValueError(f"{file}: found a {type(header).__name__}, expected an object with {', '.join(keys)}")
    check_keys(str(file), header, needed=keys, known=keys)
    if header["format"] != form:
        raise ValueError(f"{file}: found format {header['format']}, expected {form}")
    return header


def check_keys(where: str, found: Mapping[str, Any], *, needed: Collection[str], known: Collection[str]) -> None:
    """Raises ValueError for a key that nothing reads, or one that is missing."""
    for key in found:
        if key not in known:
            raise ValueError(f"{where}: nothing reads '{key}'{nearest(key, known)}")
    for key in needed:
        if key not in found:
            raise ValueError(f"{where}: has no '{key}'{nearest(key, found)}")
