"""Meshes and shardings: which device holds which part of what.

Axes: `data` replicates parameters and splits batches, `fsdp` splits parameters and batches, `model` splits parameters
(and embedding tables) only. Backbones declare sharding rules over parameter paths; what no rule names is replicated:
tuners, heads, batch statistics. The optimizer's moments lie where their parameters lie.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmodels.method import Batch, StepBatch
from jaxmodels.rules import Shardings, leaf_names, nearest, path_name

AXES = ("data", "fsdp", "model")
ROWS = ("data", "fsdp")  # what the first axis of a batch is split over


def parse_mesh(text: str, devices: int) -> dict[str, int]:
    """Sizes of the three axes from 'data:-1,fsdp:4'; -1 takes what the others leave, an axis that is not named has 1.

    Raises:
        ValueError: an unknown axis, a size that is no number, more than one -1, or a product other than `devices`.

    >>> parse_mesh('data:-1,fsdp:2', 8)
    {'data': 4, 'fsdp': 2, 'model': 1}
    """
    sizes = dict.fromkeys(AXES, 1)
    for part in filter(None, text.split(",")):
        name, _, size = part.partition(":")
        if name not in AXES:
            raise ValueError(f"--mesh={text}: no axis '{name}'{nearest(name, AXES)}; there are {', '.join(AXES)}")
        if not re.fullmatch(r"-1|[1-9]\d*", size):
            raise ValueError(f"--mesh={text}: {name}: found '{size}', expected a positive number, or -1 for the rest")
        sizes[name] = int(size)
    rest = [name for name, size in sizes.items() if size == -1]
    if len(rest) > 1:
        raise ValueError(f"--mesh={text}: found -1 for {' and '.join(rest)}, expected it at most once")
    known = int(np.prod([size for size in sizes.values() if size > 0]))
    if rest:
        sizes[rest[0]] = devices // known
    if int(np.prod(list(sizes.values()))) != devices:
        needed = f"a multiple of {known}" if rest else known
        raise ValueError(f"--mesh={text}: needs {needed} devices, found {devices}")
    return sizes


def make_mesh(text: str = "data:-1", devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over all devices of all processes (or over `devices`) with the axes `data`, `fsdp` and `model`.

    Args:
        text: sizes, as in `parse_mesh`.
        devices: in the order of the mesh; JAX's own order by the network's topology unless given.
    """
    count = len(jax.devices() if devices is None else devices)
    sizes = parse_mesh(text, count)
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def default_device() -> jax.Device:
    """Where arrays go when nothing is said."""
    (device,) = jnp.zeros(()).devices()
    return device


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """The first axis over the devices of `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(tuple(axis for axis in ROWS if axis in mesh.axis_names)))


def row_shards(mesh: Mesh) -> int:
    """How many parts the rows of a batch are split into."""
    return int(np.prod([mesh.shape[axis] for axis in ROWS if axis in mesh.axis_names]))


def param_shardings(params: Any, rules: Shardings, mesh: Mesh) -> Any:
    """A sharding for every leaf: the first rule whose pattern matches the whole path, else replicated.

    Args:
        params: arrays or abstract arrays; None is a gap.
        rules: a method's or a backbone's.
        mesh: where to; axes that it does not have count as size 1.

    Raises:
        ValueError: a rule that matches no parameter, or an axis that does not divide its dimension.
    """
    names = leaf_names(params)
    for pattern, _ in rules:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise ValueError(f"sharding rule '{pattern}' matches no parameter{nearest(pattern, names)}")

    def place(path, leaf):
        name = path_name(path)
        axes = next((axes for pattern, axes in rules if re.fullmatch(pattern, name)), ())
        return NamedSharding(mesh, _spec(name, leaf.shape, axes, mesh))

    return jax.tree_util.tree_map_with_path(place, params)


def _spec(name: str, shape: tuple[int, ...], axes: tuple[str | None, ...], mesh: Mesh) -> PartitionSpec:
    if len(axes) > len(shape):
        raise ValueError(f"parameter '{name}' has {len(shape)} dimensions, its sharding rule {len(axes)}")
    present = tuple(axis if axis in mesh.axis_names and mesh.shape[axis] > 1 else None for axis in axes)
    for dimension, (size, axis) in enumerate(zip(shape, present, strict=False)):
        if axis and size % mesh.shape[axis]:
            raise ValueError(
                f"parameter '{name}': dimension {dimension} of {shape} is not divided by {axis}:{mesh.shape[axis]}"
            )
    return PartitionSpec(*present)


def follow(tree: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Shardings of a tree that holds copies of parameters somewhere inside (moments): theirs, else replicated.

    Args:
        tree: an optimizer's state, say; arrays or abstract arrays.
        params: the parameters.
        shardings: theirs.
        mesh: of the rest.
    """
    columns = leaf_names(params), jax.tree.leaves(params), jax.tree.leaves(shardings)
    known = {name: (leaf.shape, sharding) for name, leaf, sharding in zip(*columns, strict=True)}

    def place(path, leaf):
        parts = path_name(path).split("/")
        for start in range(len(parts)):
            shape, sharding = known.get("/".join(parts[start:]), (None, None))
            if shape == leaf.shape:
                return sharding
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, tree)


def local_rows(mesh: Mesh | None, batch_size: int) -> list[int]:
    """The rows of a global batch that this process reads, in the order in which `put_batch` expects them.

    Every row is read by at least one process, and by several where the `model` axis spans them.

    Raises:
        ValueError: the devices do not divide the batch.
    """
    if mesh is None:
        return list(range(batch_size))
    check_rows(mesh, batch_size)
    return [row for start, stop in _local_parts(mesh, batch_size) for row in range(start, stop)]


def check_rows(mesh: Mesh, batch_size: int) -> None:
    """Raises ValueError where the devices do not divide a batch."""
    if batch_size % row_shards(mesh):
        raise ValueError(f"--batch_size={batch_size}: expected a multiple of data x fsdp = {row_shards(mesh)}")


def _local_parts(mesh: Mesh, size: int) -> list[tuple[int, int]]:
    indices = rows(mesh).addressable_devices_indices_map((size,)).values()
    return sorted({index[0].indices(size)[:2] for index in indices if index})


class Placement(NamedTuple):
    """Where a train step's arguments lie; hashable, so that equal placements share a compiled step.

    Attributes:
        mesh: the devices.
        leaves: shardings of (state of training, frozen parameters), flattened.
        treedef: how to put them together.
    """

    mesh: Mesh
    leaves: tuple[NamedSharding, ...]
    treedef: Any

    @property
    def trees(self) -> tuple[Any, Any]:
        """Shardings of the state of training and of the frozen parameters."""
        return jax.tree.unflatten(self.treedef, self.leaves)


def placement(ts: Any, frozen: Any, rules: Shardings, mesh: Mesh) -> Placement:
    """The placement of a `TrainState` and its frozen parameters under a method's sharding rules."""
    both = jax.tree.map(lambda a, b: b if a is None else a, ts.trained, frozen, is_leaf=lambda leaf: leaf is None)
    each = param_shardings(both, rules, mesh)

    def half(tree):
        return jax.tree.map(lambda leaf, s: None if leaf is None else s, tree, each, is_leaf=lambda leaf: leaf is None)

    trained = half(ts.trained)
    shared = replicated(mesh)
    state = ts._replace(
        step=shared,
        trained=trained,
        opt_state=follow(ts.opt_state, ts.trained, trained, mesh),
        state=jax.tree.map(lambda _: shared, ts.state),
        ema=None if ts.ema is None else trained,
        key=shared,
    )
    leaves, treedef = jax.tree.flatten((state, half(frozen)))
    return Placement(mesh, tuple(leaves), treedef)


def put_batch(batch: StepBatch, mesh: Mesh | None) -> Any:
    """This process's rows of a batch, on the devices; arrays that lie there already (the same at every step) stay.

    Raises:
        ValueError: the rows cannot be divided among the devices.
    """
    if mesh is None:
        return jax.device_put(batch)
    if isinstance(batch, tuple):
        return tuple(put_batch(part, mesh) for part in batch)
    sharding, parts = rows(mesh), len(_local_parts(mesh, row_shards(mesh)))
    for name, value in _leaves(batch).items():
        if np.shape(value)[0] % parts:
            found = f"batch: '{name}' has {np.shape(value)[0]} rows on this process"
            raise ValueError(f"{found}, expected a multiple of {parts}, its part of data x fsdp = {row_shards(mesh)}")

    def put(x: Any) -> Any:
        placed = isinstance(x, jax.Array) and x.sharding == sharding
        return x if placed else jax.make_array_from_process_local_data(sharding, np.asarray(x))

    return jax.tree.map(put, dict(batch))


def fetch(tree: Any) -> Any:
    """The whole arrays on the host, also where other processes hold parts of them; all processes call it together."""
    return jax.tree.map(_whole, tree)


def _whole(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _leaves(batch: Batch) -> Mapping[str, Any]:
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(dict(batch))}
