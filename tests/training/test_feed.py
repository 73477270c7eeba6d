"""Batches read ahead: the same ones in the same order, errors where they are asked for, no shape that changes."""

import threading
import time

import numpy as np
import pytest

from jaxmodels.data.batches import batches
from jaxmodels.data.source import array_source
from jaxmodels.training.feed import AHEAD, feed


def jitter(example, random):
    return {"x": example["x"], "noise": random.random()}


class Recorded:
    """batches[step] that remembers what was asked for."""

    def __init__(self, get=lambda step: {"x": np.full(2, step)}):
        self.get, self.asked = get, []

    def __getitem__(self, step):
        self.asked.append(step)
        return self.get(step)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_comes_is_a_function_of_the_step_however_it_is_read(workers):
    data = batches(array_source({"x": np.arange(20)}), 4, seed=1, augment=jitter)
    with feed(data, range(7, 12), lambda batch: batch, workers=workers) as ahead:
        found = list(ahead)
    assert len(found) == 5
    for step, batch in enumerate(found, 7):
        np.testing.assert_array_equal(batch["x"], data[step]["x"])
        np.testing.assert_array_equal(batch["noise"], data[step]["noise"])


def test_it_reads_two_ahead_and_no_more():
    source = Recorded()
    with feed(source, range(10), lambda batch: batch) as ahead:
        assert next(ahead)["x"][0] == 0
        deadline = time.monotonic() + 10
        while len(source.asked) < 1 + AHEAD and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert source.asked == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name == "feed"]


def test_nothing_is_read_for_no_steps():
    source = Recorded()
    with feed(source, range(3, 3), lambda batch: batch) as ahead:
        assert list(ahead) == []
    assert source.asked == []


def test_an_error_is_raised_at_its_own_step():
    def get(step):
        if step == 2:
            raise OSError("step 2 is broken")
        return {"x": np.zeros(2)}

    with feed(Recorded(get), range(5), lambda batch: batch) as ahead:
        next(ahead), next(ahead)
        with pytest.raises(OSError, match="step 2 is broken"):
            next(ahead)


@pytest.mark.parametrize(
    "odd, message",
    [
        ({"x": np.zeros((3, 2))}, r"batch 1: 'x' is float32\[3, 2\], expected float32\[4, 2\] as before"),
        ({"x": np.zeros((4, 2), np.int32)}, r"'x' is int32\[4, 2\], expected float32"),
        ({"x": np.zeros((4, 2)), "y": np.zeros(1)}, r"'y' is float32\[1\], expected absent"),
    ],
)
def test_a_batch_that_would_compile_the_step_again_is_refused(odd, message):
    source = Recorded(lambda step: odd if step else {"x": np.zeros((4, 2))})
    with feed(source, range(2), lambda batch: batch) as ahead:
        next(ahead)
        with pytest.raises(ValueError, match=message):
            next(ahead)


def test_workers_need_batches_that_can_be_sent_to_them():
    with (
        pytest.raises(ValueError, match="--workers=2: needs batches from `data.batches`, found Recorded"),
        feed(Recorded(), range(2), lambda batch: batch, workers=2),
    ):
        pass
