"""TPU chips as data, and the description of a slice of them that is not there.

Figures per chip, from the Cloud TPU pages of each generation (docs.cloud.google.com/tpu/docs: v4, v5e, v5p, v6e, tpu7x)
and, for the links of v3, from Jouppi et al. 2020 ("A Domain-Specific Supercomputer for Training Deep Neural Networks").
Network figures there count both directions of all links; ours is what a chip can send, half of that. Memory is what the
TPU compiler lets a program use, a little less than what is soldered on (15.75 of 16 GiB on v5e).
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from jaxmodels.rules import nearest

GiB = 1024**3


class Chip(NamedTuple):
    """One kind of TPU chip.

    Attributes:
        name: as topologies name it, such as 'v5e'.
        memory: bytes of HBM that a program may use.
        flops: peak bf16 FLOP/s.
        bandwidth: HBM bytes/s.
        network: bytes/s a chip can send to its neighbours over all its links.
        axes: dimensions of a slice, 2 or 3.
        devices: JAX devices per chip; they share the chip's memory and rates evenly.
        config: name of the compiler's chip configuration, None for its default.
    """

    name: str
    memory: int
    flops: float
    bandwidth: float
    network: float
    axes: int
    devices: int = 1
    config: str | None = None


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v3", int(30.96 * GiB), 123e12, 900e9, 328e9, 2, devices=2),
        Chip("v4", int(30.75 * GiB), 275e12, 1200e9, 300e9, 3, config="megacore"),
        Chip("v5e", int(15.75 * GiB), 197e12, 819e9, 200e9, 2),
        Chip("v5p", int(95.74 * GiB), 459e12, 2765e9, 600e9, 3),
        Chip("v6e", int(31.25 * GiB), 918e12, 1638e9, 400e9, 2),
        Chip("tpu7x", int(189.5 * GiB), 2307e12, 7380e9, 600e9, 3, devices=2),
    )
}


def parse(name: str) -> tuple[Chip, tuple[int, ...]]:
    """The chip and the shape of a slice, from a name such as 'v5e:4x4'.

    Raises:
        ValueError: an unknown chip, or a shape that slices of it do not have.

    >>> chip, shape = parse('v5p:2x2x4')
    >>> chip.name, shape
    ('v5p', (2, 2, 4))
    """
    kind, _, sides = name.partition(":")
    chip = CHIPS.get(kind)
    if chip is None:
        known = ", ".join(CHIPS)
        raise ValueError(f"chips: found '{name}', expected one of {known}, then a shape{nearest(kind, CHIPS)}")
    example = f"{kind}:{'x'.join(['4'] * chip.axes)}"
    parts = sides.split("x")
    if len(parts) != chip.axes or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"chips: found '{name}', expected {chip.axes} sizes as in '{example}'")
    shape = tuple(int(part) for part in parts)
    if any(side % host for side, host in zip(shape, _host(shape), strict=True)):
        raise ValueError(f"chips: found '{name}', expected even sizes (or 1) on the first two axes")
    return chip, shape


def topology(name: str) -> list[Any]:
    """The devices of a slice that is not there; programs can be compiled for them, not run.

    Works next to any other backend (JAX_PLATFORMS=cpu as well), and next to other processes that plan.

    Raises:
        ValueError: an unknown slice.
        ImportError: libtpu, which holds the compiler, is not installed.
    """
    from jax.experimental import topologies

    chip, shape = parse(name)
    require_libtpu()
    options: dict[str, Any] = {"chips_per_host_bounds": (*_host(shape), 1)[:3]}
    if chip.config is not None:
        options["chip_config_name"] = chip.config
    try:
        with _quiet_libtpu():
            return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"chips: the TPU compiler does not accept '{name}': {str(error).splitlines()[0]}") from error


def require_libtpu() -> None:
    """Raises ImportError, saying how to install it, where the TPU compiler is missing."""
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError("planning for TPUs needs their compiler, libtpu: pip install 'jaxmodels[plan]'")


def _host(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Chips of one host: 2x2, or all there are along a side of one."""
    return tuple(min(most, side) for most, side in zip((2, 2, 1), shape, strict=False))


# Without a TPU's metadata server, libtpu looks for it, complains to stderr and locks out every second process.
_ALONE = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_LOG_DIR": "disabled",
}


@contextlib.contextmanager
def _quiet_libtpu() -> Iterator[None]:
    """Sets what is unset of the variables libtpu reads when it is loaded, and takes it back afterwards."""
    added = {key: value for key, value in _ALONE.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
