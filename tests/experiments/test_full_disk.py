"""A disk that is full while a run saves: what was there before is still whole."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jaxmodels.training.results import read_results

ROOT = Path(__file__).parents[2]
RUN = ["-m", "experiments.vtab", "--method=lora", "--tasks=digits", "--steps=2", "--no-references"]


def run(workdir: Path, blocks: int | None):
    """The command, with files limited to so many KiB: writing beyond that is an error, as on a full disk."""
    limit = "" if blocks is None else f"ulimit -f {blocks}; trap '' XFSZ; "
    command = f"{limit}exec {shlex.join([sys.executable, *RUN, f'--workdir={workdir}'])}"
    return subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path):
    first = run(tmp_path, None)
    assert first.returncode == 0, first.stderr
    before = (tmp_path / "results.jsonl").read_text()
    tuner = next(tmp_path.glob("*/*/tuner.safetensors")).read_bytes()
    full = run(tmp_path, 4)
    assert full.returncode == 2, full.stderr
    assert "Error: " in full.stderr and f"{tmp_path}" in full.stderr
    assert (tmp_path / "results.jsonl").read_text() == before
    assert tuner in [path.read_bytes() for path in tmp_path.glob("*/*/tuner.safetensors")]
    assert len(read_results(tmp_path / "results.jsonl")) == 1 and json.loads(before)
