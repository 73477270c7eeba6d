"""Peak memory of this process, as a person would measure it."""

import resource
import sys

import jax


def peak_bytes() -> int:
    """Highest use so far: the accelerator's allocator where there is one, else the resident set of this process."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def show_bytes(count: int | float) -> str:
    """A size for people, in powers of 1024.

    >>> show_bytes(3 * 1024**2)
    '3.0 MiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
