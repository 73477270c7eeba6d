import json
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.method import Aux, Mean, Method
from jaxmodels.rules import count, split
from jaxmodels.training.evaluate import evaluate
from jaxmodels.training.fit import Interrupted, NonFinite, fit
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.optimizer import adamw, sgd
from jaxmodels.training.state import begin, train_step
from tests.training.small import RandomBatches, small_method, small_run

ROOT = Path(__file__).parents[2]


def counting_method(nan_at=None):
    """Learns one number; its state counts steps; frozen 'b' must stay."""

    def init(key, batch):
        return {"params": {"a": jnp.zeros(()), "b": jnp.ones(3)}, "state": {"steps": jnp.zeros((), jnp.int32)}}

    def loss(variables, batch, key):
        steps = variables["state"]["steps"]
        value = (variables["params"]["a"] - batch["x"].mean()) ** 2
        if nan_at is not None:
            value = value * jnp.where(steps == nan_at, jnp.nan, 1.0)
        return value, Aux({"steps": steps + 1}, {"loss": Mean(value, jnp.ones(()))})

    return Method(init, loss, lambda v, b: v["params"]["a"], (("a", "tuner"), (".*", "frozen")))


class Ones:
    def __getitem__(self, step):
        return {"x": np.full(4, 1.0 + step % 2, np.float32)}


def test_fit_learns_and_reports_every_row():
    method = counting_method()
    seen = []
    run = fit(method, Ones(), sgd(method.groups, 0.1), steps=60, log_every=20, on_log=seen.append)
    assert 1.3 < float(run.variables["params"]["a"]) < 1.7
    np.testing.assert_array_equal(run.variables["params"]["b"], np.ones(3))
    assert int(run.variables["state"]["steps"]) == 60
    assert [row["step"] for row in run.history] == [20, 40, 60] and seen == run.history
    assert run.history[-1]["loss"] < run.history[0]["loss"]


def test_the_callers_variables_survive_a_run():
    method = counting_method()
    variables = method.init(jax.random.key(0), None)
    fit(method, Ones(), sgd(method.groups, 0.1), steps=3, variables=variables)
    assert float(variables["params"]["a"]) == 0.0  # neither changed nor donated


def test_a_resumed_run_ends_bitwise_where_an_uninterrupted_one_does(tmp_path):
    method, batches, optimizer = small_run()
    whole = fit(method, batches, optimizer, steps=6, workdir=tmp_path / "whole", log_every=2, ema=0.9)
    fit(method, batches, optimizer, steps=4, workdir=tmp_path / "parts", log_every=2, ema=0.9)
    resumed = fit(method, batches, optimizer, steps=6, workdir=tmp_path / "parts", log_every=2, ema=0.9, resume=True)
    chex.assert_trees_all_equal(whole.variables, resumed.variables)
    chex.assert_trees_all_equal(whole.average, resumed.average)
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "parts")]
    assert [[row["loss"] for row in each] for each in rows][0] == [row["loss"] for row in rows[1]]


KILLED = """
    import sys, jax
    sys.path.insert(0, {root!r})
    from jaxmodels.training.fit import fit
    from tests.training.small import small_run
    method, batches, optimizer = small_run()
    run = fit(method, batches, optimizer, steps=400, workdir={workdir!r}, save_every=5, log_every=5,
              resume={resume}, on_log=lambda row: print(int(row['step']), flush=True))
"""


@pytest.mark.slow
def test_resume_after_kill_9_is_bitwise(tmp_path):
    def start(resume):
        code = textwrap.dedent(KILLED.format(root=str(ROOT), workdir=str(tmp_path), resume=resume))
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

    resume = False
    for kill_after in (37, 171):
        process = start(resume)
        for line in process.stdout:
            if int(line) >= kill_after:
                process.kill()
                break
        process.wait()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL
        resume = True
    method, batches, optimizer = small_run()
    resumed = fit(method, batches, optimizer, steps=400, workdir=tmp_path, save_every=5, log_every=5, resume=True)
    whole = fit(method, batches, optimizer, steps=400, log_every=5)
    chex.assert_trees_all_equal(whole.variables, resumed.variables)
    steps = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == list(range(5, 401, 5))  # no row lost, none twice


def test_ctrl_c_saves_and_resumes(tmp_path):
    method, batches, optimizer = small_run()

    def press(row):
        if row["step"] == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="after step 5; the state is saved"):
        fit(method, batches, optimizer, steps=8, workdir=tmp_path, log_every=2, on_log=press)
    resumed = fit(method, batches, optimizer, steps=8, workdir=tmp_path, log_every=2, resume=True)
    whole = fit(method, batches, optimizer, steps=8, log_every=2)
    chex.assert_trees_all_equal(whole.variables, resumed.variables)


def test_a_preemption_notice_saves_and_is_told_from_ctrl_c(tmp_path):
    method, batches, optimizer = small_run()
    with pytest.raises(Interrupted) as stopped:
        fit(method, batches, optimizer, steps=8, workdir=tmp_path, log_every=2, on_log=press_at(2, signal.SIGTERM))
    assert (stopped.value.number, stopped.value.saved) == (signal.SIGTERM, True)
    assert fit(method, batches, optimizer, steps=8, workdir=tmp_path, resume=True).history[0]["step"] > 3


def press_at(step, number):
    return lambda row: signal.raise_signal(number) if row["step"] == step else None


def test_the_time_of_a_run_adds_up_over_restarts(tmp_path):
    method, batches, optimizer = small_run()
    with pytest.raises(Interrupted):
        fit(method, batches, optimizer, steps=8, workdir=tmp_path, log_every=1, on_log=press_at(2, signal.SIGINT))
    first = json.loads((tmp_path / "goodput.json").read_text())
    run = fit(method, batches, optimizer, steps=8, workdir=tmp_path, log_every=1, resume=True)
    rows = {row.name: row.seconds for row in run.clock.rows()}
    assert run.clock.restarts == 1 and run.clock.lost_steps == 0
    assert all(rows[name] >= first["seconds"][name] for name in rows) and rows["restore"] > 0 and rows["save"] > 0
    assert sum(rows.values()) > run.seconds  # the first call's time is in it
    assert 0 <= run.history[-1]["data_share"] <= 1


def test_a_step_that_is_no_number_can_be_skipped_and_is_counted():
    method = counting_method(nan_at=3)
    found = fit(method, Ones(), sgd(method.groups, 0.1), steps=4, log_every=1, on_nan="skip")
    assert [row["skipped"] for row in found.history] == [0.0, 0.0, 0.0, 1.0]
    plain = fit(method, Ones(), sgd(method.groups, 0.1), steps=3, log_every=1)
    chex.assert_trees_all_equal(found.variables["params"], plain.variables["params"])


def test_every_group_has_its_gradient_norm():
    method, batches, optimizer = small_run()
    (row,) = fit(method, batches, optimizer, steps=1, log_every=1).history
    parts = [value for name, value in row.items() if name.startswith("gradient_norm/")]
    assert len(parts) == 2 and np.sqrt(np.sum(np.square(parts))) == pytest.approx(row["gradient_norm"], rel=1e-5)


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_last_good_checkpoint(tmp_path):
    method = counting_method(nan_at=7)
    with pytest.raises(
        NonFinite,
        match=r"step 8: no finite number any more: gradient_norm, loss; the last good checkpoint is .*checkpoints/6",
    ):
        fit(method, Ones(), sgd(method.groups, 0.1), steps=20, workdir=tmp_path, save_every=3, log_every=4)


def test_accumulated_micro_batches_equal_one_batch():
    method = small_method(tuner=None)
    method = method._replace(loss=lambda v, b, k, loss=method.loss: loss(v, b, None))  # no dropout: keys differ
    optimizer = sgd(method.groups, 0.1)
    variables = method.init(jax.random.key(1), None)
    variables["params"]["tuner"] = jax.tree.map(lambda x: x + 0.1, variables["params"]["tuner"])
    batch = {**RandomBatches()[0], "mask": np.array([1, 1, 1, 1, 1, 0, 0, 1], np.float32)}
    ends = []
    for parts in (1, 4):
        ts, frozen = begin(method, optimizer, variables, seed=0)
        ends.append(train_step(method, optimizer, accumulate=parts)(ts, frozen, batch))
    chex.assert_trees_all_close(ends[0][0].trained, ends[1][0].trained, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(ends[0][1]["loss"], ends[1][1]["loss"], rtol=1e-5)
    with pytest.raises(ValueError, match="accumulate: found 3, expected a divisor of the batch size 8"):
        ts, frozen = begin(method, optimizer, variables, seed=0)
        train_step(method, optimizer, accumulate=3)(ts, frozen, batch)


def test_the_average_follows_the_trained_leaves():
    method = counting_method()
    run = fit(method, Ones(), sgd(method.groups, 0.05, momentum=0.0), steps=3, ema=0.5)
    a, average = 0.0, 0.0
    for step in range(3):
        a -= 0.05 * 2 * (a - (1.0 + step % 2))
        average = 0.5 * average + 0.5 * a
    assert float(run.average["params"]["a"]) == pytest.approx(average, rel=1e-5)


def test_eight_devices_equal_one():
    method = small_method()._replace()
    method = method._replace(loss=lambda v, b, k, loss=method.loss: loss(v, b, None))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    optimizer = adamw(method.groups, 1e-3)
    one = fit(method, RandomBatches(), optimizer, steps=3)
    eight = fit(method, RandomBatches(), optimizer, steps=3, mesh=mesh)
    chex.assert_trees_all_close(one.variables, eight.variables, rtol=1e-4, atol=1e-5)
    assert one.history[0]["loss"] == pytest.approx(eight.history[0]["loss"], rel=1e-5)


def test_the_compiled_step_holds_nothing_of_a_frozen_leaf():
    method = small_method()
    optimizer = adamw(method.groups, 1e-3)
    variables = method.init(jax.random.key(0), None)
    trained, frozen = split(variables["params"], method.groups)
    ts, _ = begin(method, optimizer, variables, seed=0)
    assert count(ts.opt_state) == 2 * count(trained) + len([x for x in jax.tree.leaves(ts.opt_state) if x.ndim == 0])
    lowered = train_step(method, optimizer).lower(ts, frozen, RandomBatches()[0])
    outputs = jax.tree.leaves(lowered.out_info)
    kept = sum(x.size for x in outputs)
    metrics = 2 * 3
    # parameters, two moments and a handful of counters come out: no gradient and no moment of a frozen leaf
    assert kept <= 3 * count(trained) + metrics + 12
    assert count(frozen) > 3 * count(trained)


def test_before_and_after_step_change_the_state():
    method = counting_method()._replace(
        after_step=lambda params, grads, state: {"steps": state["steps"] + 10},
        before_step=lambda state, step: {"steps": np.int64(100)} if step == 2 else None,
    )
    run = fit(method, Ones(), sgd(method.groups, 0.1), steps=4)
    assert int(run.variables["state"]["steps"]) == 100 + 2 * 11


def test_evaluation_counts_each_example_once():
    method = small_method()
    variables = method.init(jax.random.key(0), None)
    batch = {**RandomBatches()[0], "mask": np.ones(8, np.float32)}
    padded = {**RandomBatches()[1], "mask": np.array([1, 1, 1, 0, 0, 0, 0, 0], np.float32)}
    found = evaluate(method, variables, [batch, padded])["accuracy"]
    correct = [np.asarray(method.predict(variables, b)).argmax(-1) == b["label"] for b in (batch, padded)]
    assert found == pytest.approx((correct[0].sum() + correct[1][:3].sum()) / 11)
    with pytest.raises(ValueError, match="found no batch"):
        evaluate(method, variables, [])


def test_tied_classes_go_to_the_first():
    method = counting_method()._replace(predict=lambda v, b: jnp.zeros((2, 3)))
    assert evaluate(method, {"params": {}}, [{"label": np.array([0, 2])}])["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps: found 0, expected at least 1"),
        ({"steps": 1, "resume": True}, "--resume: expected a --workdir with a checkpoint, found none"),
    ],
)
def test_wrong_arguments(options, message):
    method = counting_method()
    with pytest.raises(ValueError, match=message):
        fit(method, Ones(), sgd(method.groups, 0.1), **options)


def test_resuming_another_method_names_the_difference(tmp_path):
    method, batches, optimizer = small_run()
    with pytest.raises(ValueError, match="--resume: .*checkpoints holds no checkpoint"):
        fit(method, batches, optimizer, steps=2, workdir=tmp_path, resume=True)
    fit(method, batches, optimizer, steps=2, workdir=tmp_path)
    from jaxmodels.tuning.lora import lora

    other = small_method(lora(3))
    with pytest.raises(ValueError, match=r"k_proj:a' is \(16, 2\), expected \(16, 3\)"):
        fit(other, batches, adamw(other.groups, 1e-2), steps=4, workdir=tmp_path, resume=True)


def test_a_full_disk_is_one_line_before_anything_is_written(tmp_path, monkeypatch):
    method, batches, optimizer = small_run()
    fit(method, batches, optimizer, steps=2, workdir=tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(OSError, match="the disk is full: a checkpoint needs .* bytes, found 100 free"):
        fit(method, batches, optimizer, steps=4, workdir=tmp_path, resume=True)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]


def test_runs_write_their_numbers(tmp_path):
    method, batches, optimizer = small_run()
    fit(method, batches, optimizer, steps=4, workdir=tmp_path, log_every=2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_fit_works_in_a_thread_too():
    method = counting_method()
    done = []
    thread = threading.Thread(target=lambda: done.append(fit(method, Ones(), sgd(method.groups, 0.1), steps=2)))
    thread.start()
    thread.join(timeout=60)
    assert done and done[0].step == 2 and time.time()
