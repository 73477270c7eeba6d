"""Early stopping, batches of several shapes, and batches that lie on the devices already."""

import jax
import numpy as np
import pytest

from jaxmodels.training.checkpoint import has_checkpoint
from jaxmodels.training.fit import fit
from jaxmodels.training.mesh import make_mesh, put_batch
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.optimizer import sgd
from tests.training.test_fit import Ones, counting_method


class Sizes:
    """Batches of 4, 8, 4, 8, ... rows."""

    def __getitem__(self, step):
        return {"x": np.full(4 + 4 * (step % 2), 1.0, np.float32)}


def test_a_run_ends_where_until_says_and_is_saved_there(tmp_path):
    method = counting_method()
    left = iter([False, False, True])
    run = fit(
        method, Ones(), sgd(method.groups, 0.1), steps=50, workdir=tmp_path, log_every=2, evaluate_every=2,
        evaluate=lambda variables: {"a": float(variables["params"]["a"])}, until=lambda row: next(left),
    )  # fmt: skip
    assert run.step == 6 and int(run.variables["state"]["steps"]) == 6 and has_checkpoint(tmp_path)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6] and rows[-1]["a"] == float(run.variables["params"]["a"])


def test_so_many_shapes_of_batches_and_no_more():
    method = counting_method()
    assert fit(method, Sizes(), sgd(method.groups, 0.1), steps=4, shapes=2).step == 4
    with pytest.raises(ValueError, match=r"batch 1: 'x' is float32\[8\], expected float32\[4\] as before"):
        fit(method, Sizes(), sgd(method.groups, 0.1), steps=4)
    grows = type("Grows", (), {"__getitem__": lambda self, step: {"x": np.ones(4 + step, np.float32)}})()
    with pytest.raises(ValueError, match="batch 2: a shape that no batch had before, expected at most 2"):
        fit(method, grows, sgd(method.groups, 0.1), steps=4, shapes=2)


def test_a_batch_on_the_devices_is_not_copied():
    mesh = make_mesh("data:8")
    once = put_batch({"x": np.arange(16.0)}, mesh)
    assert put_batch(once, mesh)["x"] is once["x"]
    other = put_batch({"x": jax.device_put(np.arange(16.0))}, mesh)["x"]
    assert other.sharding == once["x"].sharding
