"""plan: what a step needs on a TPU slice that is not there, and whether it fits.

The program is the real one: it is lowered and compiled by the TPU compiler for the slice's devices, from shapes alone.
What the compiler cannot know it does not count: the body of a loop (`lax.scan`) counts once in operations, bytes and
collectives, and custom kernels count as nothing. Where a step is too large the compiler says what it would have needed
and stops, so what it computes and sends is not known.
"""

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxmodels import rules
from jaxmodels.planning.chips import Chip, parse, topology
from jaxmodels.planning.collectives import Collective, collectives
from jaxmodels.planning.roofline import Roofline, roofline
from jaxmodels.training.memory import show_bytes
from jaxmodels.training.mesh import AXES

REPLICATED = PartitionSpec()


class Plan(NamedTuple):
    """What one step needs. Bytes, operations and seconds are those of one device, which on most chips is the chip.

    Attributes:
        chips: the slice, such as 'v5e:4x4'.
        devices: JAX devices of the slice.
        mesh: size of each axis of the mesh.
        arguments: bytes of the inputs: parameters, optimizer state, batch.
        temporaries: bytes of what lives within the step: activations, gradients.
        outputs: bytes of the results that do not reuse a donated input.
        program: bytes of the compiled code.
        needed: all four.
        memory: bytes there are.
        spare: memory - needed, negative where the step does not fit.
        fits: whether it does. The sum is what is needed at worst: within a percent of the memory the compiler may find
            a layout that reuses more.
        advice: the axis of the mesh to enlarge where it does not, else None; see `advice`.
        flops: operations; this and the next three are None where the compiler ran out of memory.
        accessed: bytes read from and written to memory.
        collectives: what is sent.
        roofline: seconds at best.
        trained: number of trained parameters of the whole model, None where not given.
        frozen: number of frozen ones.
        seconds: that the compilation took.
    """

    chips: str
    devices: int
    mesh: dict[str, int]
    arguments: int
    temporaries: int
    outputs: int
    program: int
    needed: int
    memory: int
    spare: int
    fits: bool
    advice: str | None
    flops: float | None
    accessed: float | None
    collectives: tuple[Collective, ...] | None
    roofline: Roofline | None
    trained: int | None
    frozen: int | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The plan as dicts, lists, numbers and strings."""
        sent = None if self.collectives is None else [each._asdict() for each in self.collectives]
        times = None if self.roofline is None else self.roofline._asdict()
        return {**self._asdict(), "collectives": sent, "roofline": times}


def plan(
    step: Any,
    arguments: tuple[Any, ...] | Callable[[Mesh], tuple[Any, ...]],
    *,
    chips: str,
    mesh_shape: Mapping[str, int] | None = None,
    trained: Any = None,
    frozen: Any = None,
) -> Plan:
    """Compiles a step for a slice and says what it needs there.

    Args:
        step: a jitted function, or what its `lower` returns.
        arguments: of the step: trees of `jax.ShapeDtypeStruct` on the slice's mesh (see `on_mesh`; a leaf without a
            sharding is replicated), or a function from the mesh to those.
        chips: such as 'v5e:4x4'.
        mesh_shape: sizes of 'data', 'fsdp', 'model' where `arguments` is a function; all devices on 'data' by default.
            Where `arguments` are on a mesh already it is that one.
        trained: tree of trained parameters, to count them.
        frozen: tree of frozen parameters, to count them.

    Raises:
        ValueError: an unknown slice, a mesh of another size, arguments on another mesh.
        ImportError: libtpu is not installed.

    Example::

        def arguments(mesh):
            return on_mesh(state, mesh), on_mesh(batch, mesh, PartitionSpec("data"))

        lines = show(plan(step, arguments, chips="v5e:4x4"))
    """
    chip, _ = parse(chips)
    if callable(arguments):
        mesh = slice_mesh(chips, mesh_shape)
        arguments = arguments(mesh)
    else:
        mesh = _mesh_of(arguments, chips, mesh_shape)
    arguments = jax.tree.map(lambda leaf: _placed(leaf, mesh), arguments)
    started = time.perf_counter()
    lowered = step if isinstance(step, jax.stages.Lowered) else step.lower(*arguments)
    sizes, costs = _compiled(lowered, arguments, chip, mesh.size)
    seconds = time.perf_counter() - started
    needed = sum(sizes.values())
    memory = chip.memory // chip.devices
    fits = needed <= memory and costs["flops"] is not None
    return Plan(
        chips=chips,
        devices=mesh.size,
        mesh=dict(mesh.shape),
        **sizes,
        needed=needed,
        memory=memory,
        spare=memory - needed,
        fits=fits,
        advice=None if fits else advice(arguments, sizes["temporaries"], memory),
        **costs,
        trained=None if trained is None else rules.count(trained),
        frozen=None if frozen is None else rules.count(frozen),
        seconds=seconds,
    )


@contextlib.contextmanager
def _not_kept() -> Iterator[None]:
    """Keeps programs out of JAX's persistent cache: one for chips that are not there cannot be read back."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, float("inf"))
    try:
        yield
    finally:
        jax.config.update(name, before)


def _compiled(lowered: Any, arguments: Any, chip: Chip, devices: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The compiler's account of one device: bytes it needs, then what it computes and sends."""
    try:
        with _not_kept():
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = exhausted(str(error))
        if needed is None:
            raise
        held = sum(_bytes(leaf) for leaf in jax.tree.leaves(arguments))
        sizes: dict[str, Any] = {"arguments": held, "temporaries": max(needed - held, 0), "outputs": 0, "program": 0}
        return sizes, dict.fromkeys(("flops", "accessed", "collectives", "roofline"))
    found, costs = compiled.memory_analysis(), compiled.cost_analysis()
    flops, accessed = float(costs.get("flops", 0.0)), float(costs.get("bytes accessed", 0.0))
    sent = collectives(compiled.as_text(), devices=devices)
    sizes = {
        "arguments": found.argument_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
        "program": found.generated_code_size_in_bytes,
    }
    times = roofline(flops, accessed, sent, chip)
    return sizes, {"flops": flops, "accessed": accessed, "collectives": sent, "roofline": times}


def exhausted(message: str) -> int | None:
    """Bytes that a program would have needed, arguments included, from the compiler's error; None for another error.

    >>> exhausted('Ran out of memory on HBM, the total memory required ... (1.50G) exceeds available HBM (1.00G).')
    1610612736
    """
    found = re.search(r"Ran out of memory.*?(?:\(|Used )([\d.]+)([KMGT]?)(?:\) exceeds| of )", message, re.DOTALL)
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " ")) if found else None


def slice_mesh(chips: str, mesh_shape: Mapping[str, int] | None = None) -> Mesh:
    """The mesh of a slice that is not there, with axes 'data', 'fsdp', 'model'; neighbours in it are neighbours there.

    Args:
        chips: such as 'v5e:4x4'.
        mesh_shape: sizes of axes; those not named are 1. All devices on 'data' by default.

    Raises:
        ValueError: an unknown axis, or sizes whose product is not the number of devices.
    """
    from jax.experimental import mesh_utils

    devices = topology(chips)
    shape = {"data": len(devices)} if mesh_shape is None else dict(mesh_shape)
    for axis in shape:
        if axis not in AXES:
            expected = f"expected one of {', '.join(AXES)}{rules.nearest(axis, AXES)}"
            raise ValueError(f"mesh: found an axis '{axis}', {expected}")
    sizes = [shape.get(axis, 1) for axis in AXES]
    if min(sizes) < 1 or math.prod(sizes) != len(devices):
        found = " x ".join(f"{axis}={size}" for axis, size in shape.items())
        raise ValueError(f"mesh: found {found}, expected sizes whose product is the {len(devices)} devices of {chips}")
    return Mesh(mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True), AXES)


def on_mesh(tree: Any, mesh: Mesh, spec: PartitionSpec = REPLICATED) -> Any:
    """Shapes and dtypes of a tree of (abstract) arrays, placed on a mesh: replicated, or all by one spec."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def advice(arguments: Any, temporaries: int, memory: int) -> str:
    """The axis that helps most where a step does not fit.

    A larger 'fsdp' shards what is kept (parameters, optimizer state); a larger 'data' leaves fewer examples, so fewer
    activations, on each device; 'model' divides single layers, which helps where neither can: a parameter that by
    itself takes half the memory (fsdp gathers it whole), tables whose rows are spread over 'model' already, or
    activations of a single example.

    Args:
        arguments: abstract arguments with shardings; those spread over 'data' are the batch.
        temporaries: bytes of one device within the step.
        memory: bytes there are.
    """
    leaves = jax.tree.leaves(arguments)
    batch = [leaf for leaf in leaves if "data" in _axes(leaf.sharding.spec)]
    kept = [leaf for leaf in leaves if "data" not in _axes(leaf.sharding.spec)]
    held = sum(_bytes(leaf) for leaf in kept)
    passing = temporaries + sum(_bytes(leaf) for leaf in batch)
    if any(leaf.size * leaf.dtype.itemsize > memory // 2 for leaf in kept):
        return "model"
    tables = sum(_bytes(leaf) for leaf in kept if "model" in _axes(leaf.sharding.spec))
    if 2 * tables > held and 2 * held >= passing:  # a dense optimizer's gradients are as large as the tables
        return "model"
    if held >= passing:
        return "fsdp"
    rows = min((leaf.sharding.shard_shape(leaf.shape)[0] for leaf in batch if leaf.shape), default=1)
    return "data" if rows > 1 else "model"


def show(plan: Plan) -> list[str]:
    """The plan in lines for people."""
    chip, _ = parse(plan.chips)
    each = "chip" if chip.devices == 1 else f"device ({chip.devices} a chip)"
    axes = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1)
    lines = [f"{plan.chips}: {_plural(plan.devices, 'device')}{f' as {axes}' if axes else ''}"]
    counts = [f"{n:,} {name}" for name, n in (("trained", plan.trained), ("frozen", plan.frozen)) if n is not None]
    if counts:
        lines.append(f"parameters  {', '.join(counts)}")
    parts = ("arguments", "temporaries", "outputs", "program")
    lines.append(f"per {each}  " + ", ".join(f"{name} {show_bytes(getattr(plan, name))}" for name in parts))
    verdict = f"{'fits' if plan.fits else 'does not fit'}: {show_bytes(plan.needed)} of {show_bytes(plan.memory)}"
    lines.append(f"{verdict}, {show_bytes(abs(plan.spare))} {'to spare' if plan.fits else 'too much'}")
    if plan.advice:
        lines.append(f"enlarge '{plan.advice}': {_REASONS[plan.advice]}")
    if plan.flops is None or plan.roofline is None:
        return [*lines, "what it computes and sends is not known: the compiler ran out of memory"]
    lines.append(f"computes  {plan.flops / 1e12:.3g} TFLOP, moves {show_bytes(plan.accessed or 0)} to and from memory")
    for sent in plan.collectives or ():
        lines.append(f"sends  {sent.number} x {sent.kind} among {sent.group}: {show_bytes(sent.bytes)}")
    times = ", ".join(f"{name} {_milliseconds(getattr(plan.roofline, name))}" for name in _TIMES)
    lines.append(f"at best {_milliseconds(plan.roofline.seconds)} a step, bound by {plan.roofline.bound} ({times})")
    return lines


_TIMES = ("compute", "memory", "network")
_REASONS = {
    "data": "activations are most of it, and more devices along it leave fewer examples on each",
    "fsdp": "parameters and optimizer state are most of it, and this axis shards them",
    "model": "one example, one parameter or tables of rows are most of it, and this axis divides them",
}


def _placed(leaf: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding if isinstance(getattr(leaf, "sharding", None), NamedSharding) else None
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or NamedSharding(mesh, REPLICATED))


def _mesh_of(arguments: Any, chips: str, mesh_shape: Mapping[str, int] | None) -> Mesh:
    shardings = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(arguments))
    meshes = {each.mesh for each in shardings if isinstance(each, NamedSharding) and isinstance(each.mesh, Mesh)}
    if not meshes:
        return slice_mesh(chips, mesh_shape)
    mesh = meshes.pop()
    if meshes:
        raise ValueError(f"plan: arguments on {len(meshes) + 1} meshes, expected one of the {chips} slice")
    found = [device.device_kind for device in mesh.devices.flat]
    expected = [device.device_kind for device in topology(chips)]
    if found != expected:
        raise ValueError(f"plan: arguments on {len(found)} x {found[0]}, expected {len(expected)} x {expected[0]}")
    if mesh_shape is not None and dict(mesh.shape) != {**dict.fromkeys(mesh.shape, 1), **mesh_shape}:
        raise ValueError(f"mesh: found {dict(mesh_shape)}, expected {dict(mesh.shape)}, the mesh of the arguments")
    return mesh


def _axes(spec: PartitionSpec) -> set[str]:
    """Names of the mesh axes a spec uses."""
    return {axis for entry in spec if entry is not None for axis in (entry if isinstance(entry, tuple) else (entry,))}


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    """Of one device."""
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _milliseconds(seconds: float) -> str:
    """A duration for people.

    >>> _milliseconds(0.0123), _milliseconds(2e-6)
    ('12.3 ms', '0.002 ms')
    """
    return f"{1e3 * seconds:.3g} ms"
