"""Tuners as small files: what was trained, and which frozen backbone it belongs to.

A tuner file is one safetensors file with a JSON header: the method and its hyper-parameters, the backbone's name and a
hash of its frozen parameters, and whatever describes the task. Loading refuses another backbone, another configuration
and a file that fits only in part: a tuner on the wrong weights still predicts, only badly.
"""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.method import Variables
from jaxmodels.rules import FROZEN, merge, nearest, path_name, split
from jaxmodels.tuning.heads import Head, linear_head
from jaxmodels.tuning.tuner import Tuner
from jaxmodels.weights.files import read_arrays, read_metadata, write_safetensors

_KEY = "jaxmodels_tuner"
_FORMAT = 1
_KINDS = (jnp.floating, jnp.integer, jnp.bool_)  # widths may differ, kinds may not


def save_tuner(
    path: str | os.PathLike[str],
    tuner: Tuner,
    backbone: Backbone,
    variables: Variables,
    *,
    num_classes: int,
    head: Head | None = None,
    task: Mapping[str, Any] | None = None,
) -> None:
    """Writes a trained tuner with its head, its state and the backbone parameters it trained, atomically.

    Args:
        path: a .safetensors file.
        tuner: the tuner that was trained.
        backbone: what it was trained on.
        variables: {'params': {'backbone', 'tuner', 'head'}, 'state'}, as `classifier` has them.
        num_classes: C.
        head: `linear_head()` unless given.
        task: JSON values that describe the task, such as class names or the inputs' mean and std.

    Raises:
        ValueError: a suffix other than .safetensors, or a task that is no JSON.
        OSError: the file cannot be written; an older one is then still complete.
    """
    if not str(path).endswith(".safetensors"):
        raise ValueError(f"{path}: expected a name that ends in .safetensors")
    trained, frozen = split_backbone(tuner, backbone, variables["params"]["backbone"])
    header = {
        "format": _FORMAT,
        "jaxmodels": _version(),
        "tuner": tuner.config,
        "head": (head or linear_head()).config,
        "num_classes": num_classes,
        "backbone": backbone.name,
        "backbone_hash": backbone_hash(frozen),
        "backbone_dtypes": _dtypes(frozen),
        "task": dict(task or {}),
    }
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the header holds what JSON cannot ({error})") from None
    params = variables["params"]
    write_safetensors(
        path,
        _named({"backbone": trained, "tuner": params["tuner"], "head": params["head"], "state": variables["state"]}),
        metadata={_KEY: text},
    )


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header of a tuner file: 'tuner', 'head', 'num_classes', 'backbone', 'backbone_hash', 'task' and more.

    Raises:
        ValueError: no tuner file, or one of a newer format.
    """
    metadata = read_metadata(path)
    try:
        header = json.loads(metadata[_KEY])
        found = header["format"]
        _ = [header[key] for key in ("tuner", "head", "num_classes", "backbone", "backbone_hash", "task")]
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"{path}: is no tuner file, expected the entry '{_KEY}' in its metadata") from None
    if found != _FORMAT:
        raise ValueError(f"{path}: tuner format {found}, expected {_FORMAT}; it was written by {header['jaxmodels']}")
    return header


def load_tuner(
    path: str | os.PathLike[str], tuner: Tuner, backbone: Backbone, backbone_params: Any, *, head: Head | None = None
) -> Variables:
    """Reads a tuner back onto its backbone.

    Args:
        path: a file of `save_tuner`.
        tuner: built with the same hyper-parameters (`read_header(path)['tuner']` tells them).
        backbone: the same architecture.
        backbone_params: the published parameters it was trained on.
        head: the kind of head it was trained with; `linear_head()` unless given.

    Returns:
        {'params': {'backbone', 'tuner', 'head'}, 'state'}; in 'backbone', what the tuner trained is replaced.

    Raises:
        ValueError: another backbone or configuration, or a file that fits only in part.
    """
    head = head or linear_head()
    header = read_header(path)
    _check_config(path, "tuner", header["tuner"], tuner.config)
    _check_config(path, "head", header["head"], head.config)
    if header["backbone"] != backbone.name:
        raise ValueError(f"{path}: was trained on the backbone '{header['backbone']}', expected '{backbone.name}'")
    trained, frozen = split_backbone(tuner, backbone, backbone_params)
    _check_hash(path, header, frozen, backbone)
    template = {
        "backbone": trained,
        "tuner": jax.eval_shape(lambda key: tuner.init(key, backbone), jax.random.key(0)),
        "head": jax.eval_shape(lambda key: head.init(key, backbone.width, header["num_classes"]), jax.random.key(0)),
        "state": jax.tree.map(jnp.asarray, tuner.init_state(backbone)),
    }
    loaded = _fill(path, template, read_arrays(path))
    state = loaded.pop("state")
    return {"params": {**loaded, "backbone": merge(loaded["backbone"], frozen)}, "state": state}


def split_backbone(tuner: Tuner, backbone: Backbone, params: Any) -> tuple[Any, Any]:
    """Backbone parameters -> (those that the tuner trains, those it leaves frozen), with None in the gaps."""
    return split(params, (*tuner.groups(backbone), (".*", FROZEN)))


def backbone_hash(params: Any) -> str:
    """sha256 over names, shapes, dtypes and bytes of all leaves, in the order of their names; None is skipped.

    >>> backbone_hash({'a': jnp.zeros(2), 'b': None}) == backbone_hash({'a': jnp.zeros(2)})
    True
    """
    digest = hashlib.sha256()
    for name, array in sorted(_named(params).items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def _named(tree: Any) -> dict[str, np.ndarray]:
    named: dict[str, np.ndarray] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = path_name(path)
        if name in named:
            raise ValueError(f"two leaves are named '{name}'")
        named[name] = np.asarray(leaf)
    return named


def _dtypes(tree: Any) -> list[str]:
    return sorted({str(leaf.dtype) for leaf in jax.tree.leaves(tree)})


def _version() -> str:
    try:
        return importlib.metadata.version("jaxmodels")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # run from a source folder


def _check_config(path: str | os.PathLike[str], what: str, found: Any, expected: Any) -> None:
    differences = list(_differences(found, json.loads(json.dumps(expected))))  # as JSON has it: a tuple is a list
    if differences:
        raise ValueError(f"{path}: {what} configuration differs: {'; '.join(differences)}")


def _differences(found: Any, expected: Any, key: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted(set(found) | set(expected)):
            inner = f"{key}.{name}" if key else name
            yield from _differences(found.get(name, "nothing"), expected.get(name, "nothing"), inner)
    elif found != expected:
        yield f"'{key}' found {found}, expected {expected}"


def _check_hash(path: str | os.PathLike[str], header: dict[str, Any], frozen: Any, backbone: Backbone) -> None:
    found = backbone_hash(frozen)
    if found == header["backbone_hash"]:
        return
    dtypes = ", ".join(_dtypes(frozen))
    trained = ", ".join(header.get("backbone_dtypes", ()))
    raise ValueError(
        f"{path}: was trained on other weights of {backbone.name}: found hash {found[:12]} ({dtypes}), "
        f"expected {header['backbone_hash'][:12]} ({trained})"
    )


def _fill(path: str | os.PathLike[str], template: Any, arrays: dict[str, np.ndarray]) -> Any:
    leaves = {path_name(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(template)}
    for name, leaf in leaves.items():
        if name not in arrays:
            raise ValueError(f"{path}: has no '{name}'{nearest(name, set(arrays) - set(leaves))}")
        found = arrays[name]
        if found.shape != leaf.shape:
            raise ValueError(f"{path}: '{name}' has the shape {found.shape}, expected {leaf.shape}")
        if not any(jnp.issubdtype(found.dtype, kind) and jnp.issubdtype(leaf.dtype, kind) for kind in _KINDS):
            raise ValueError(f"{path}: '{name}' is {found.dtype}, expected {leaf.dtype}")
    left = [name for name in arrays if name not in leaves]
    if left:
        raise ValueError(f"{path}: nothing reads '{left[0]}'{nearest(left[0], leaves)}")
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: jnp.asarray(arrays[path_name(keys)], dtype=leaf.dtype), template
    )
