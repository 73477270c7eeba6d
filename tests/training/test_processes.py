"""Several processes: real ones on this machine, over gloo."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxmodels.training import processes
from jaxmodels.training.fit import fit
from jaxmodels.training.mesh import local_rows, make_mesh
from jaxmodels.training.metrics import read_metrics
from tests import quick
from tests.training import worker
from tests.training.small import small_run

LOSS = ("step", "loss", "accuracy")


def start_two(workdir, steps, *flags, of=lambda i: ()):
    """Two workers with two devices each."""
    return launched("tests.training.worker", str(workdir), str(steps), *flags, of=of)


def launched(module, *flags, of=lambda i: ()):
    """Two processes of a program with two devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {quick.FLAGS}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", module, *flags]
    joined = ["--coordinator", address, "--num_processes", "2", "--process_id"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, *joined, str(i), *of(i)], env=environment, **pipes) for i in range(2)]


def ended(two, timeout=240):
    """(status, standard output, standard error) of both."""
    try:
        found = [(*process.communicate(timeout=timeout), process.returncode) for process in two]
    finally:
        for process in two:
            process.kill()
    return [(status, out, err) for out, err, status in found]


def four():
    return make_mesh("data:-1", jax.devices()[:4])


def rows(history):
    return [{name: row[name] for name in LOSS if name in row} for row in history]


def same(a, b):
    assert [row.keys() for row in a] == [row.keys() for row in b]
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(list(x.values()), list(y.values()), rtol=1e-5)


def test_a_run_goes_from_one_process_to_two_and_back_with_the_same_batches(tmp_path):
    straight = rows(worker.run(None, 9, mesh=four()).history)
    assert "accuracy" in straight[2]
    first = worker.run(tmp_path, 3, mesh=four())
    (status, out, err), other = ended(start_two(tmp_path, 6, "--resume", "--mesh=data:2,fsdp:2"))
    assert (status, other[0]) == (0, 0), err + other[2]
    second = json.loads(out.splitlines()[-1])["history"]
    last = worker.run(tmp_path, 9, mesh=four(), resume=True)
    same(rows([*first.history, *second, *last.history]), straight)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 10))


def test_a_preemption_notice_to_one_of_two_stops_both_after_the_same_step(tmp_path):
    two = start_two(tmp_path, 100_000)
    try:
        wait_for(lambda: len(read_metrics(tmp_path / "metrics.jsonl")) > 3, two)
    finally:
        two[1].send_signal(signal.SIGTERM)
    (status, out, err), other = ended(two)
    assert (status, other[0]) == (143, 143), err + other[2]
    found = [json.loads(text.splitlines()[-1]) for text in (out, other[1])]
    assert found[0] == found[1] and found[0]["saved"]
    done = found[0]["interrupted"]
    assert (tmp_path / "checkpoints" / str(done)).is_dir()
    resumed = worker.run(tmp_path, done + 2, mesh=four(), resume=True)
    same(rows(resumed.history), rows(worker.run(None, done + 2, mesh=four()).history)[-2:])


def test_the_process_that_is_behind_is_named_when_nothing_moves(tmp_path):
    two = start_two(tmp_path, 50, "--stall_after=5", of=lambda i: ("--hang_at=30",) if i == 1 else ())
    (status, _, err), other = ended(two)
    assert status == 5 and other[0] != 0
    line = "process 1 is behind: step 30, while the furthest is at step 31"
    assert "process 0: no step for" in err and line in err and 'File "' in err


def test_a_run_that_stands_still_saves_and_ends(tmp_path):
    command = [sys.executable, "-m", "tests.training.worker", str(tmp_path), "50", "--hang_at=7", "--stall_after=2"]
    environment = {**os.environ, "XLA_FLAGS": quick.FLAGS, "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert found.returncode == 5, found.stderr
    assert "no step for" in found.stderr and found.stderr.strip().endswith("the state is saved")
    assert "tests/training/worker.py" in found.stderr and " in __getitem__" in found.stderr  # where it hangs
    assert (tmp_path / "checkpoints" / "7").is_dir()


def wait_for(condition, two, timeout=240):
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout, "in vain"
        assert all(process.poll() is None for process in two), [process.communicate() for process in two]
        time.sleep(0.05)


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, None),  # sbatch without srun: one process
        ({"SLURM_STEP_NODELIST": "n", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
        ({"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "slurm"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "ompi"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, "gketpu"),
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, "gketpu"),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "gketpu"),
    ],
)
def test_launchers_are_told_by_their_environment(environment, expected, monkeypatch):
    monkeypatch.setattr(processes, "tpu_chips", lambda: False)
    assert processes.launcher(environment) == expected


def test_a_tpu_vm_is_told_by_its_chips(monkeypatch):
    monkeypatch.setattr(processes, "tpu_chips", lambda: True)
    assert processes.launcher({}) == "gcetpu"
    assert processes.launcher({"TPU_SKIP_MDS_QUERY": "1"}) is None


def test_what_a_launcher_started_is_joined_by_jax(monkeypatch):
    joined = []
    monkeypatch.setattr(processes, "launcher", lambda: "slurm")
    monkeypatch.setattr(jax.distributed, "initialize", lambda *flags, **options: joined.append((flags, options)))
    processes.start(automatic=False)
    assert not joined
    processes.start(timeout=7.0)
    ((flags, options),) = joined
    assert flags == (None, None, None) and options["cluster_detection_method"] == "slurm"
    assert options["initialization_timeout"] > 7


@pytest.mark.parametrize("per_node, expected", [("1(x2)", ("node1:62439", 2, 1)), ("8(x2)", (None, None, None))])
def test_one_slurm_process_per_node_keeps_all_of_its_devices(per_node, expected, monkeypatch):
    joined = []
    variables = {"SLURM_JOB_ID": "999", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
    for name, value in {**variables, "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": per_node}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *flags, **options: joined.append((flags, options)))
    processes.start()
    ((flags, options),) = joined
    assert flags == expected
    assert options["cluster_detection_method"] == ("deactivate" if expected[0] else "slurm")


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"coordinator": "a:1"}, "--coordinator: also needs --num_processes and --process_id"),
        ({"coordinator": "a", "num_processes": 2, "process_id": 0}, "--coordinator: found 'a', expected HOST:PORT"),
        ({"coordinator": "a:1", "num_processes": 2, "process_id": 2}, "--process_id: found 2, expected 0 to 1"),
        ({"timeout": 0.0}, "--init_timeout: found 0 s"),
    ],
)
def test_wrong_flags_are_named(flags, message):
    with pytest.raises(ValueError, match=message):
        processes.start(**flags)


def test_others_that_do_not_come_are_told_in_one_line():
    code = "from jaxmodels.training import processes as p; p.start('localhost:1', 2, 1, timeout=0.5)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert found.returncode == processes.NO_OTHERS
    assert found.stderr.strip() == "Error: --init_timeout=0.5: process 1 of 2 at localhost:1: the others did not come"


def test_rows_of_a_process_follow_the_mesh():
    assert local_rows(None, 3) == [0, 1, 2]
    assert local_rows(make_mesh("data:4,model:2"), 8) == list(range(8))
    with pytest.raises(ValueError, match="--batch_size=6: expected a multiple of data x fsdp = 8"):
        local_rows(make_mesh(), 6)


def test_several_processes_need_a_mesh(monkeypatch):
    method, batches, optimizer = small_run()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="mesh: found none, expected one over the devices of all 2 processes"):
        fit(method, batches, optimizer, steps=1)
