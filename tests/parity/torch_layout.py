"""PyTorch's names and layouts as nested dicts in ours, and back."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import rules


def to_tree(flat):
    """{'a.b.weight': array} -> {'a': {'b': {'kernel': array.T}}}; a convolution becomes (h, w, i, o)."""
    tree: dict = {}
    for name, array in flat.items():
        node, (*parents, leaf) = tree, name.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        if leaf == "weight":
            array = array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
        node["kernel" if leaf == "weight" else leaf] = jnp.asarray(array)
    return tree


def to_flat(tree):
    """The inverse of `to_tree`."""
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name, array = rules.path_name(path).replace("/", "."), np.asarray(leaf)
        if name.endswith("kernel"):
            name = name.removesuffix("kernel") + "weight"
            array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
        flat[name] = array
    return flat


def renamed(tree, table):
    """A nested dict with some keys renamed, at every depth."""
    return {table.get(k, k): renamed(v, table) if isinstance(v, dict) else v for k, v in tree.items()}


def channels_last(x):
    """(B, C, h, w) -> (B, h, w, C)."""
    return jnp.asarray(x).transpose(0, 2, 3, 1)


def channels_first(x):
    """(B, h, w, C) -> (B, C, h, w)."""
    return np.asarray(x).transpose(0, 3, 1, 2)
