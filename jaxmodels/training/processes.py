"""Several processes: one per host of a pod, or per GPU, that train one model together.

All run the same program. Each reads its own rows of a batch (`mesh.local_rows`); the first one alone prints and writes
tables; all of them take part in checkpoints, which therefore need a folder that all can see.
"""

import os
import re
import sys
import threading
from collections.abc import Mapping

import jax
from jax._src.clusters.slurm_cluster import SlurmCluster
from jax._src.hardware_utils import num_available_tpu_chips_and_device_id
from jax.experimental.multihost_utils import sync_global_devices

NO_OTHERS = 4  # exit status: the other processes did not come


def launcher(environment: Mapping[str, str] = os.environ) -> str | None:
    """What started several processes, by JAX's names: 'slurm', 'ompi', 'gketpu', 'gcetpu'; None for a single one.

    SLURM counts inside of `srun` only, and a TPU VM by its chips.

    >>> launcher({'SLURM_STEP_NODELIST': 'node[1-4]', 'SLURM_PROCID': '0', 'SLURM_NTASKS': '4'})
    'slurm'
    """
    if {"SLURM_STEP_NODELIST", "SLURM_PROCID"} <= set(environment) and _number(environment, "SLURM_NTASKS") > 1:
        return "slurm"
    if _number(environment, "OMPI_COMM_WORLD_SIZE") > 1:
        return "ompi"
    hosts = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES", ""))
    if "," in hosts or (hosts and _number(environment, "MEGASCALE_NUM_SLICES") > 1):
        return "gketpu"
    if not hosts and "TPU_SKIP_MDS_QUERY" not in environment and tpu_chips():
        return "gcetpu"
    return None


def one_per_node(environment: Mapping[str, str]) -> bool:
    """Whether SLURM started one process on each node, which then has all of its GPUs.

    >>> one_per_node({'SLURM_STEP_TASKS_PER_NODE': '1(x4)'}), one_per_node({'SLURM_STEP_TASKS_PER_NODE': '8(x2)'})
    (True, False)
    """
    return bool(re.fullmatch(r"1(\(x\d+\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "")))


def tpu_chips() -> bool:
    """Whether this machine has TPU chips."""
    return num_available_tpu_chips_and_device_id()[0] > 0


def start(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    automatic: bool = True,
    timeout: float = 300.0,
) -> None:
    """Joins the other processes, if there are any; call it before anything is computed.

    Args:
        coordinator: HOST:PORT of process 0, which the others reach; with the next two, where nothing can be detected.
        num_processes: how many there are.
        process_id: which one this is, from 0.
        automatic: without these three, join what a launcher has started: a TPU pod, GKE, SLURM or Open MPI.
        timeout: seconds until the others must have come; then one line says so, and the process ends with status 4.

    Raises:
        ValueError: some of the three are missing or wrong.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if not timeout > 0:
        raise ValueError(f"--init_timeout: found {timeout:g} s, expected more than 0")
    if coordinator is not None and num_processes is not None and process_id is not None:
        _check(coordinator, num_processes, process_id)
        where = f"process {process_id} of {num_processes} at {coordinator}"
        detection = "deactivate"
    elif len(missing) < len(given):
        present = " and ".join(f"--{name}" for name in given if name not in missing)
        raise ValueError(f"{present}: also needs {' and '.join(f'--{name}' for name in missing)}")
    else:
        found = launcher() if automatic else None
        if found is None:
            return
        where, detection = f"a process that {found} started", found
        if found == "slurm" and one_per_node(os.environ):
            # JAX would give each process the one GPU of its local number.
            coordinator = SlurmCluster.get_coordinator_address(None, None)
            num_processes, process_id = SlurmCluster.get_process_count(), SlurmCluster.get_process_id()
            detection = "deactivate"
    # JAX ends the process from C++ with a dump when the time is over; ours comes first, with a sentence.
    alarm = threading.Timer(timeout, _give_up, (f"--init_timeout={timeout:g}: {where}: the others did not come",))
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            cluster_detection_method=detection,
            initialization_timeout=int(timeout) + 60,
        )
    finally:
        alarm.cancel()


def is_main() -> bool:
    """Whether this is the process that prints and writes tables."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Returns once every process is here, so that all see what the first one wrote before; nothing for a single one.

    Args:
        what: happens here, for the message of a process that waits in vain.
    """
    if jax.process_count() > 1:
        sync_global_devices(what)


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--coordinator: found '{coordinator}', expected HOST:PORT")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"--process_id: found {process_id}, expected 0 to {num_processes - 1} (--num_processes)")


def _give_up(line: str) -> None:
    print(f"Error: {line}", file=sys.stderr, flush=True)
    os._exit(NO_OTHERS)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdigit() else 0
