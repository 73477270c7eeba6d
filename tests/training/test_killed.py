import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxmodels.training.metrics import read_metrics
from tests import quick
from tests.training.killed import STEPS

ROOT = Path(__file__).parents[2]
KILLS, IN_A_SAVE = 10, 4


def start(workdir):
    workdir.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "error", "-m", "tests.training.killed", str(workdir)]
    environment = {**os.environ, "XLA_FLAGS": quick.FLAGS}  # one device starts faster
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rows_in(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(process, condition):
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.001)


def saving(workdir):
    return any((workdir / "checkpoints").glob("*tmp*"))


@pytest.mark.slow
def test_ten_kills_at_any_moment_change_nothing(tmp_path):
    """kill -9 after random delays, and in the middle of saves: the parameters end bitwise where one run's do."""
    whole, workdir = tmp_path / "whole", tmp_path / "killed"
    alone = start(whole)
    assert alone.communicate()[1] == "" and alone.returncode == 0  # it fills the cache of programs
    generator = random.Random(0)
    amid = []
    for kill in range(KILLS):
        before = rows_in(workdir)
        process = start(workdir)
        wait_for(process, lambda: rows_in(workdir) != before)  # noqa: B023
        time.sleep(generator.uniform(0.0, 0.25))
        if kill % 2 and len(amid) < IN_A_SAVE:
            wait_for(process, lambda: saving(workdir))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed: more steps are needed"
        amid.append(saving(workdir))
    assert sum(amid) >= 2
    last = start(workdir)
    errors = last.communicate()[1]
    assert last.returncode == 0, errors
    assert "damaged" not in errors
    expected, found = (np.load(folder / "final.npz") for folder in (whole, workdir))
    assert expected.files == found.files and len(found.files) > 10
    for name in expected.files:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert [row["step"] for row in read_metrics(workdir / "metrics.jsonl")] == list(range(1, STEPS + 1))
    kept = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert kept == [STEPS - 2, STEPS]
    assert json.loads((workdir / "checkpoints" / str(STEPS) / "about" / "metadata").read_text())["format"] == 1
