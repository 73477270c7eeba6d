"""Every test runs on eight virtual CPU devices, with silent rank promotion turned into an error.

Programs are compiled without LLVM's optimisations, which halves the time of the suite; to test them as they are
compiled for users, set XLA_FLAGS=--xla_force_host_platform_device_count=8.
"""

import os
import resource
import signal
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # read when jax is imported

import jax
import numpy as np
import pytest

from tests import quick

# Read at its first use. Devices that wait for one another give up after 40 seconds and end the process; a virtual
# machine may stand still for longer.
PATIENCE = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {PATIENCE} {quick.FLAGS}")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for jobs in the background

jax.config.update("jax_numpy_rank_promotion", "raise")

from tests.tiny_vit import BACKBONE, SIZE, random_like  # noqa: E402


@pytest.fixture(scope="session")
def backbone():
    return BACKBONE


@pytest.fixture(scope="session")
def params(backbone):
    return random_like(backbone.shapes().params)


@pytest.fixture(scope="session")
def head():
    return random_like({"kernel": np.zeros((SIZE.width, 3)), "bias": np.zeros(3)}, seed=1)


@pytest.fixture(scope="module", autouse=True)
def programs_do_not_pile_up():
    """Lets go of compiled programs where they have come to take much memory; a module's programs are its own."""
    yield
    pages = Path("/proc/self/statm")
    if pages.exists() and int(pages.read_text().split()[1]) * resource.getpagesize() > 4 * 2**30:
        jax.clear_caches()


@pytest.fixture(scope="module")
def unoptimised():
    """Programs run a few times on tiny data; optimising them, even XLA's graphs, would take most of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
