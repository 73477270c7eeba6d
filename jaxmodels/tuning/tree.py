"""Replacing leaves of a backbone's parameter tree by path, without touching the original."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxmodels.rules import leaf_names, nearest, path_name


def replace(params: Any, leaves: Mapping[str, jax.Array]) -> Any:
    """The tree with the leaves at '/'-joined paths replaced; dtypes are kept.

    Raises:
        ValueError: a path that is no leaf.
    """
    names = leaf_names(params)
    for name in leaves:
        if name not in set(names):
            raise ValueError(f"the backbone has no parameter '{name}'{nearest(name, names)}")

    def visit(path, leaf):
        new = leaves.get(path_name(path))
        return leaf if new is None else new.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(visit, params)


def get(params: Any, name: str) -> Any:
    """The node at a '/'-joined path."""
    for part in name.split("/"):
        params = params[part]
    return params


def map_kernels(params: Any, extras: Mapping[str, Any], function: Callable[[jax.Array, Any], jax.Array]) -> Any:
    """The tree with kernel <- function(kernel, extra) for each layer path of `extras`."""
    return replace(params, {f"{path}/kernel": function(get(params, path)["kernel"], e) for path, e in extras.items()})
