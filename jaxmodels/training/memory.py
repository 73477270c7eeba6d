"""Memory of this process: its peak as a person would measure it, and what the allocator does with freed blocks."""

import ctypes
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


def reuse_freed_memory() -> bool:
    """Lets this process keep freed memory for its next allocation; returns whether the C library can (glibc).

    A compiled step on a CPU allocates its temporaries anew each time, in one piece. From 32 MiB on glibc takes them
    from the kernel and gives them back, and the kernel clears every page again: a third of a step of `vit('mini')` at
    batch 64 (`benchmarks/allocator.py`). Only the main thread can keep pieces of any size, other threads less than
    64 MiB, so programs for one CPU device run in the thread that calls them, not asynchronously. Call it once, in the
    main thread, before the first computation; the process then holds on to its peak.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not all(mallopt(option, value) == 1 for option, value in _KEEP):
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return True


_KEEP = ((-4, 0), (-1, -1))  # M_MMAP_MAX: none from the kernel directly; M_TRIM_THRESHOLD: never give back


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
