"""A trained recommender in one folder: its tables, what its users have seen, and what users and items are called.

model.safetensors    'user' (M, C d), 'item' (N, d), of LRML 'key' and 'memories'; 'has' (M, C) where users differ
seen.safetensors     'starts' (M + 1,) and 'items': the training items of each user
model.json           format, kind, and names of users and items where they are not 0, 1, ...
"""

import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxmodels.atomic import write_text
from jaxmodels.data.interactions import Interactions
from jaxmodels.recommendation.recommend import Recommender, check
from jaxmodels.weights.files import read_arrays, write_safetensors
from jaxmodels.weights.model_json import FILE, read_header

FORMAT = 1
KEYS = ("format", "kind", "users", "items")


def save_recommender(folder: str | os.PathLike[str], model: Recommender) -> None:
    """Writes a folder; each file takes the place of an older one once it is complete, model.json last.

    Raises:
        ValueError: parts that do not fit one another.
        OSError: a file cannot be written.
    """
    check(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, np.ndarray] = {name: np.asarray(table, np.float32) for name, table in model.params.items()}
    if model.has is not None:
        tables["has"] = np.asarray(model.has, np.uint8)
    write_safetensors(folder / "model.safetensors", tables)
    lists: dict[str, np.ndarray] = {
        "starts": model.seen.starts.astype(np.int64),
        "items": model.seen.items.astype(np.int32),
    }
    write_safetensors(folder / "seen.safetensors", lists)
    names = {
        name: None if ids is None else ids.tolist() for name, ids in (("users", model.users), ("items", model.items))
    }
    write_text(folder / FILE, json.dumps({"format": FORMAT, "kind": model.kind, **names}) + "\n")


def load_recommender(folder: str | os.PathLike[str]) -> Recommender:
    """Reads a folder that `save_recommender` wrote.

    Raises:
        ValueError: a file is missing or damaged, or parts that do not fit one another.
    """
    folder = Path(folder)
    header = read_header(folder, keys=KEYS, form=FORMAT, writer="save_recommender")
    tables = read_arrays(folder / "model.safetensors")
    lists = read_arrays(folder / "seen.safetensors")
    for where, found, needed in (("model", tables, ("user", "item")), ("seen", lists, ("starts", "items"))):
        for name in needed:
            if name not in found:
                raise ValueError(f"{folder / where}.safetensors: has no '{name}'")
    has = tables.pop("has", None)
    names = {key: None if header[key] is None else np.array(header[key]) for key in ("users", "items")}
    seen = Interactions(lists["starts"], lists["items"].astype(np.int64), len(tables["item"]))
    params = {name: jnp.asarray(table) for name, table in tables.items()}
    model = Recommender(header["kind"], params, seen, None if has is None else has.astype(bool), **names)
    try:
        check(model)
    except ValueError as error:
        raise ValueError(f"{folder / FILE}: {error}") from None
    return model
