"""Gradients that are small only after something nonlinear in the parameters: sum over devices afterwards.

Where rows lie on several devices, x^T g is a sum over them, and a compiler reduces it between devices where it arises:
for a merged matrix that is all of its entries, though only thin factors train. What follows is linear in x^T g, so each
device can go on with its own part, and what is reduced is what trains.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

ROWS = ("data", "fsdp")  # axes of a mesh that split the rows of a batch


def pulled(pull: Callable[[jax.Array], Any], x: jax.Array, g: jax.Array, *, dtype: Any) -> Any:
    """pull(x^T g), reduced between devices after `pull`, which must be linear.

    Without a mesh, inside `shard_map`, or where devices do not divide the rows, it is just that.

    Args:
        pull: linear function of a matrix (inputs, outputs), a vector-Jacobian product say.
        x: inputs (B, ..., inputs).
        g: gradients of the outputs (B, ..., outputs).
        dtype: of the product.
    """
    axes = _axes()
    parts = math.prod(axes.values())
    if parts == 1 or x.shape[0] % parts:
        return pull(_product(x, g, dtype))
    spec = PartitionSpec(tuple(axes), PartitionSpec.UNCONSTRAINED, PartitionSpec.UNCONSTRAINED)
    split = (y.reshape(parts, y.shape[0] // parts, *y.shape[1:]) for y in (x, g))
    each = jax.lax.with_sharding_constraint(jax.vmap(lambda x, g: _product(x, g, dtype))(*split), spec)
    return jax.tree.map(lambda leaf: leaf.sum(0), jax.vmap(pull)(each))


def _product(x: jax.Array, g: jax.Array, dtype: Any) -> jax.Array:
    return jnp.matmul(x.reshape(-1, x.shape[-1]).T, g.reshape(-1, g.shape[-1]), preferred_element_type=dtype)


def _axes() -> dict[str, int]:
    """Axes of the mesh in sight that split rows, with their sizes."""
    mesh = jax.sharding.get_abstract_mesh()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return {axis: mesh.shape[axis] for axis in ROWS if types.get(axis) == AxisType.Auto and mesh.shape[axis] > 1}
