"""Tables whose rows no mesh divides: a few spare rows at the end, which nothing reads and nothing trains."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.method import Method
from jaxmodels.rules import match, path_name


def with_spare_rows(method: Method, shapes: Any, multiple: int) -> Method:
    """The same method, its sharded tables padded to a multiple of rows.

    Args:
        method: whose `shardings` name the tables.
        shapes: of its parameters, as `jax.eval_shape` gives.
        multiple: devices along the axis that shards them.
    """
    if multiple == 1:
        return method
    rules = (*((pattern, pattern) for pattern, _ in method.shardings), (".*", ""))
    sizes = {
        path_name(path): leaf.shape[0]
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        if match(path_name(path), rules)
    }

    def cut(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf[: sizes[path_name(path)]] if path_name(path) in sizes else leaf, params
        )

    def padded(params):
        def pad(path, leaf):
            spare = -len(leaf) % multiple if path_name(path) in sizes else 0
            return jnp.pad(leaf, [(0, spare)] + [(0, 0)] * (leaf.ndim - 1)) if spare else leaf

        return jax.tree_util.tree_map_with_path(pad, params)

    def init(key, batch):
        variables = method.init(key, batch)
        return {**variables, "params": padded(variables["params"])}

    def loss(variables, batch, key):
        return method.loss({**variables, "params": cut(variables["params"])}, batch, key)

    def predict(variables, batch):
        return method.predict({**variables, "params": cut(variables["params"])}, batch)

    def project(before, after, state):
        return padded(method.project(cut(before), cut(after), state))

    return method._replace(init=init, loss=loss, predict=predict, project=None if method.project is None else project)
