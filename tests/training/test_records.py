import json
import platform
import subprocess
import sys

import jax.numpy as jnp
import pytest
from matplotlib.figure import Figure

from jaxmodels.method import Mean
from jaxmodels.training.memory import peak_bytes, show_bytes
from jaxmodels.training.metrics import MetricsWriter, read_metrics
from jaxmodels.training.pictures import bars, curves, save_figure
from jaxmodels.training.precision import precision, store_frozen
from jaxmodels.training.results import add_result, find_result, read_results


def test_metrics_beyond_the_resumed_step_are_written_again_once(tmp_path, caplog):
    writer = MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, {"loss": float(step)})
    writer.close()
    writer = MetricsWriter(tmp_path, resumed_at=2)
    writer.write(3, {"loss": float("nan")})
    writer.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": None},
    ]
    assert not caplog.records  # what is no number is no point of TensorBoard, and no warning


def test_results_survive_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "results.jsonl"
    add_result(path, {"task": "digits", "seed": 0, "accuracy": 1.0})
    with path.open("a") as file:
        file.write('{"task": "dig')
    add_result(path, {"task": "digits", "seed": 1, "accuracy": 2.0})
    assert [row["seed"] for row in read_results(path)] == [0, 1]
    assert find_result(path, {"task": "digits", "seed": 1})["accuracy"] == 2.0
    assert find_result(path, {"task": "other"}) is None


def test_means_merge_and_ignore_padding():
    mean = Mean.of(jnp.array([1.0, 2.0, 9.0]), jnp.array([1.0, 1.0, 0.0])).merge(Mean.of(jnp.array([6.0])))
    assert mean.value() == 3.0
    assert json.dumps(Mean(jnp.zeros(()), jnp.zeros(())).value()) == "NaN"


def test_precision_policy():
    assert precision("auto", platform="cpu").compute == jnp.float32
    assert precision("auto", platform="tpu").frozen == jnp.bfloat16
    with pytest.raises(ValueError, match="--precision: found 'half', expected one of auto, float32, bfloat16"):
        precision("half")
    params = {"backbone": {"w": jnp.ones(2)}, "head": {"w": jnp.ones(2)}}
    stored = store_frozen(params, (("head/.*", "head"), (".*", "frozen")), precision("bfloat16"))
    assert stored["backbone"]["w"].dtype == jnp.bfloat16 and stored["head"]["w"].dtype == jnp.float32


def test_pictures_are_written(tmp_path):
    figure = Figure(figsize=(6, 3))
    left, right = figure.subplots(1, 2)
    bars(left, ["a", "b"], {"linear": [1.0, 2.0], "lora": [3.0, 4.0]}, label="accuracy", groups=["x", "y"])
    curves(right, {"a": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}]}, "loss")
    assert [bar.get_height() for bar in left.containers[1]] == [3.0, 4.0]
    save_figure(figure, tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes()[:4] == b"\x89PNG" and len(list(tmp_path.iterdir())) == 1


FAULTS = """
import resource, sys
import jax, jax.numpy as jnp
from jaxmodels.training.memory import reuse_freed_memory
assert sys.argv[1] == "no" or reuse_freed_memory()
def faults(run):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""
ALLOCATES = """
def run():
    bytearray(2**27)[::4096] = b"x" * 2**15
"""
COMPUTES = """
x, w = jnp.ones((5000, 4000)), jnp.ones((4000, 20))
step = jax.jit(lambda x, w: (((x @ w) @ w.T) @ w @ w.T).sum())  # has temporaries of 80 MB
def run():
    step(x, w).block_until_ready()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
@pytest.mark.parametrize("work", [ALLOCATES, COMPUTES], ids=["python", "jax"])
def test_freed_memory_serves_the_next_allocation(work):
    program = FAULTS + work + "run(); run(); run(); print(faults(run))"
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", program, word], check=True, capture_output=True, text=True).stdout)
        for word in ("no", "yes")
    )
    assert 10_000 < plain and kept < plain / 10


def test_memory_is_shown_for_people():
    assert peak_bytes() > 50 * 1024**2
    assert [show_bytes(n) for n in (10, 2048, 5 * 1024**3)] == ["10 B", "2.0 KiB", "5.0 GiB"]
