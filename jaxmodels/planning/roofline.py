"""The least time a step can take on a chip (roofline, Williams et al. 2009, with the network as a third roof).

With F operations, M bytes to and from memory and N bytes sent by one device, of a chip with peak rates f, m, n:

    compute = F / f,   memory = M / m,   network = N / n,   seconds = max(compute, memory, network)

Ring algorithms over g devices send, of the B bytes that `collectives` counts:

    all-reduce             2 (g-1)/g B    a reduce-scatter, then an all-gather
    all-gather               (g-1)/g B
    reduce-scatter           (g-1)/g B
    all-to-all               (g-1)/g B
    permute, broadcast               B

All three are lower bounds: rates are peaks, everything overlaps, and all links of a chip are busy (a ring along one
side of a slice uses one axis of links only).
"""

from collections.abc import Iterable
from typing import NamedTuple

from jaxmodels.planning.chips import Chip
from jaxmodels.planning.collectives import Collective


class Roofline(NamedTuple):
    """Seconds of a step, at best.

    Attributes:
        compute: of the arithmetic.
        memory: of the traffic to and from HBM.
        network: of the collectives.
        seconds: the largest of the three.
        bound: its name.
    """

    compute: float
    memory: float
    network: float
    seconds: float
    bound: str


def moved(collective: Collective) -> float:
    """Bytes one device sends for the collectives of one kind.

    >>> moved(Collective('all-reduce', group=4, number=1, bytes=1000))
    1500.0
    """
    kind, group, _, size = collective
    if group < 2:
        return 0.0
    if kind in ("collective-permute", "collective-broadcast"):
        return float(size)
    return (2 if kind == "all-reduce" else 1) * (group - 1) / group * size


def roofline(flops: float | int, accessed: float | int, collectives: Iterable[Collective], chip: Chip) -> Roofline:
    """The roofline of a program of one device.

    Args:
        flops: operations of one device.
        accessed: bytes one device reads from and writes to memory.
        collectives: of the program; each knows how many devices take part.
        chip: where it runs; its rates are shared by its devices.
    """
    times = {
        "compute": flops * chip.devices / chip.flops,
        "memory": accessed * chip.devices / chip.bandwidth,
        "network": sum(moved(each) for each in collectives) * chip.devices / chip.network,
    }
    bound = max(times, key=lambda name: times[name])
    return Roofline(**times, seconds=times[bound], bound=bound)
