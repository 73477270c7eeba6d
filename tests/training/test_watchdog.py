import io
import threading
import time

import pytest

from jaxmodels.training import watchdog
from jaxmodels.training.watchdog import Watchdog, behind, progress, publish


class Time:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def watched(factor=5.0, least=2.0, **options):
    clock, seen, stream = Time(), [], io.StringIO()
    dog = Watchdog(factor, least=least, on_stall=seen.append, clock=clock, stream=stream, **options)
    return dog, clock, seen, stream


def steps(dog, clock, durations, first=1):
    for step, seconds in enumerate(durations, first):
        clock.now += seconds
        dog.beat(step)


def test_a_stall_is_told_once_with_step_wait_and_stacks():
    dog, clock, seen, stream = watched()
    steps(dog, clock, [300.0, 1.0, 1.0, 3.0])
    clock.now += 4.9
    assert not dog.check() and not seen
    clock.now += 0.2
    inside = threading.Event()
    release = threading.Event()

    def standing_still():
        inside.set()
        release.wait(5)

    thread = threading.Thread(target=standing_still, name="loader")
    thread.start()
    inside.wait(5)
    assert dog.check()
    release.set()
    thread.join()
    assert seen == ["process 0: no step for 5.1 s after step 4 (expected one within 5.0 s)"]
    assert "thread loader" in stream.getvalue() and " in standing_still" in stream.getvalue()
    assert stream.getvalue().endswith(seen[0] + "\n")
    clock.now += 1000
    assert not dog.check() and len(seen) == 1


def test_the_next_beat_ends_a_stall_and_a_later_one_is_told():
    dog, clock, seen, _ = watched()
    steps(dog, clock, [1.0, 1.0, 1.0])
    clock.now += 10
    assert dog.check()
    steps(dog, clock, [0.0], first=4)
    assert not dog.check()
    clock.now += 10
    assert dog.check() and "after step 4" in seen[1]


def test_the_first_step_compiles_and_does_not_count():
    dog, clock, _, _ = watched()
    clock.now += 1e6
    assert not dog.check()  # before the first beat
    steps(dog, clock, [1e6])
    assert dog.limit() == 2.0  # least
    steps(dog, clock, [4.0], first=2)
    assert dog.limit() == 20.0


def test_least_holds_where_steps_are_short():
    dog, clock, _, _ = watched(least=60.0)
    steps(dog, clock, [0.01] * 10)
    clock.now += 59.9
    assert not dog.check()
    clock.now += 0.2
    assert dog.check()


def test_the_median_follows_the_last_steps_in_bounded_memory():
    dog, clock, _, _ = watched()
    steps(dog, clock, [1.0] * 300)
    steps(dog, clock, [10.0] * 200)
    assert dog.limit() == 50.0
    assert len(dog._durations) == watchdog.REMEMBERED


def test_paused_time_counts_for_nothing():
    dog, clock, seen, _ = watched()
    steps(dog, clock, [1.0, 1.0])
    clock.now += 1.0
    with dog.pause():
        clock.now += 500
        with dog.pause():
            clock.now += 500
        assert not dog.check()
        clock.now += 500
        assert not dog.check()
    clock.now += 1.0
    assert not dog.check()
    dog.beat(3)
    assert dog.limit() == 7.5  # median of 1 and 2: without the pause
    clock.now += 8.0
    assert dog.check() and len(seen) == 1


def test_a_beat_inside_a_pause_starts_the_next_step_at_its_end():
    dog, clock, _, _ = watched()
    steps(dog, clock, [1.0])
    with dog.pause():
        clock.now += 100
        dog.beat(2)
        clock.now += 100
    clock.now += 1.5
    assert not dog.check()
    clock.now += 1.0
    assert dog.check()


def test_a_pause_around_the_first_step_is_no_step():
    dog, clock, _, _ = watched()
    with dog.pause():
        clock.now += 100
    assert not dog.check()
    steps(dog, clock, [1.0])
    assert dog.limit() == 2.0


def test_the_thread_notices_a_real_stall():
    told, seen, stream = threading.Event(), [], io.StringIO()

    def on_stall(line):
        seen.append((line, threading.current_thread().name))
        told.set()

    with Watchdog(2.0, least=0.2, on_stall=on_stall, stream=stream) as dog:
        for step in range(1, 6):
            dog.beat(step)
            time.sleep(0.02)
        assert not told.is_set()
        assert told.wait(5)
        time.sleep(0.25)
    assert len(seen) == 1 and "after step 5" in seen[0][0] and seen[0][1] == "watchdog"
    assert "thread MainThread" in stream.getvalue()
    assert f"{__file__}" in stream.getvalue() and " in test_the_thread_notices" in stream.getvalue()
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_leaving_the_context_ends_the_thread_at_once():
    with Watchdog(2.0, on_stall=print) as dog:
        dog.beat(1)
        time.sleep(0.05)  # the thread sleeps again
        started = time.monotonic()
    assert time.monotonic() - started < 0.5
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())


def test_on_stall_is_called_where_the_stream_fails():
    class Broken(io.StringIO):
        def write(self, text):
            raise OSError("no space left")

    seen, clock = [], Time()
    dog = Watchdog(2.0, least=1.0, on_stall=seen.append, clock=clock, stream=Broken())
    dog.beat(1)
    clock.now += 2
    with pytest.raises(OSError, match="no space left"):
        dog.check()
    assert len(seen) == 1


def test_stderr_unless_given(capsys):
    clock = Time()
    dog = Watchdog(2.0, least=1.0, on_stall=lambda line: None, clock=clock)
    dog.beat(1)
    clock.now += 2
    dog.check()
    assert "no step for 2.0 s after step 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 0.5}, "factor: found 0.5, expected at least 1"),
        ({"factor": float("nan")}, "factor: found nan"),
        ({"least": 0.0}, "least: found 0.0 s, expected more than 0"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        watched(**options)


@pytest.mark.parametrize(
    ("steps_of", "text"),
    [
        ({}, "no process has published a step"),
        ({0: 3}, "all 1 processes are at step 3"),
        ({0: -1, 1: -1}, "all 2 processes are before their first step"),
        ({0: 5, 1: 4, 2: 5, 3: 4}, "processes 1, 3 are behind: step 4, while the furthest is at step 5"),
        ({0: 5, 1: -1}, "process 1 is behind: no step yet, while the furthest is at step 5"),
    ],
)
def test_behind_names_the_lowest(steps_of, text):
    assert behind(steps_of) == text


def test_behind_counts_what_would_be_a_long_list():
    text = behind({process: int(process == 5) for process in range(100)})
    assert "processes 0, 1, 2, 3, 4, 6, 7, 8 and 91 more are behind: step 0" in text


def test_one_process_publishes_nothing():
    publish(3)
    assert progress() == {}


class Store(dict):
    def key_value_set(self, key, value, allow_overwrite=False):
        if key in self and not allow_overwrite:
            raise RuntimeError("exists")
        self[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.items() if key.startswith(f"{folder}/")]


def test_every_process_sees_the_steps_of_all(monkeypatch):
    monkeypatch.setattr(watchdog.global_state, "client", Store())
    monkeypatch.setattr(watchdog.global_state, "num_processes", 3)
    for process, step in ((0, 8), (2, 7), (2, 8)):
        monkeypatch.setattr(watchdog.global_state, "process_id", process)
        publish(step)
    assert progress() == {0: 8, 1: -1, 2: 8}
    assert behind(progress()) == "process 1 is behind: no step yet, while the furthest is at step 8"
