import json
import time

import pytest

from jaxmodels.training.goodput import SPANS, Clock, table


class Time:
    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now


def started():
    now = Time()
    return Clock(clock=now), now


def spend(clock, now, **seconds):
    for name, value in seconds.items():
        with clock.span(name):
            now.now += value


def seconds(clock):
    return {row.name: row.seconds for row in clock.rows() if row.seconds}


def test_a_stopped_clock_counts_no_more():
    clock, now = started()
    spend(clock, now, step=2.0)
    clock.stop()
    now.now += 100.0
    assert seconds(clock) == {"step": 2.0} and clock.elapsed() == 2.0


def test_every_moment_belongs_to_one_span():
    clock, now = started()
    now.now += 1.0
    spend(clock, now, compile=10.0, data=2.0, step=6.0)
    now.now += 0.5
    spend(clock, now, step=6.0, evaluate=3.0, save=1.0, restore=0.25)
    rows = clock.rows()
    assert [row.name for row in rows] == list(SPANS)
    assert seconds(clock) == dict(compile=10.0, data=2.0, step=12.0, evaluate=3.0, save=1.0, restore=0.25, other=1.5)
    assert sum(row.seconds for row in rows) == now.now - 50.0
    assert sum(row.percent for row in rows) == pytest.approx(100.0)
    assert dict((row.name, row.percent) for row in rows)["step"] == pytest.approx(100 * 12 / 29.75)


def test_inner_time_is_not_counted_twice():
    clock, now = started()
    with clock.span("evaluate"):
        now.now += 1.0
        with clock.span("data"):
            now.now += 2.0
            with clock.span("data"):
                now.now += 4.0
        now.now += 8.0
    now.now += 16.0
    assert seconds(clock) == {"evaluate": 9.0, "data": 6.0, "other": 16.0}


def test_an_open_span_counts_up_to_now():
    clock, now = started()
    with clock.span("step"):
        now.now += 3.0
        assert seconds(clock) == {"step": 3.0}
        assert clock.state(1)["seconds"]["step"] == 3.0
        now.now += 1.0
    assert seconds(clock) == {"step": 4.0}


def test_an_exception_closes_its_span():
    clock, now = started()
    with pytest.raises(KeyError), clock.span("save"):
        now.now += 2.0
        raise KeyError
    now.now += 1.0
    assert seconds(clock) == {"save": 2.0, "other": 1.0}


def test_no_time_is_no_percent():
    clock, _ = started()
    assert [row.percent for row in clock.rows()] == [0.0] * len(SPANS)
    assert clock.data_share() == 0.0 and clock.goodput(0) == 0.0


def test_data_share_is_of_the_stepping_time_alone():
    clock, now = started()
    spend(clock, now, compile=100.0, data=1.0, step=3.0, evaluate=50.0)
    assert clock.data_share() == 0.25


def test_a_resumed_run_adds_up():
    first, now = started()
    spend(first, now, compile=5.0, step=20.0, save=1.0)
    state = json.loads(json.dumps(first.state(20)))
    second = Clock(clock=now)
    spend(second, now, restore=2.0)
    second.resume(state, step=15)
    assert (second.lost_steps, second.restarts) == (5, 1)
    spend(second, now, compile=4.0, step=10.0)
    assert seconds(second) == {"compile": 9.0, "step": 30.0, "save": 1.0, "restore": 2.0}
    assert second.goodput(25) == pytest.approx(30 / 42 * 25 / 30)

    third = Clock(clock=now)
    third.resume(json.loads(json.dumps(second.state(25))), step=22)
    assert (third.lost_steps, third.restarts) == (8, 2)
    assert sum(row.seconds for row in third.rows()) == 42.0


def test_nothing_is_lost_where_the_checkpoint_is_newer_than_the_state():
    first, now = started()
    second = Clock(clock=now)
    second.resume(first.state(10), step=12)
    assert (second.lost_steps, second.restarts) == (0, 1)


def test_a_clock_of_real_time():
    clock = Clock()
    with clock.span("data"):
        time.sleep(0.05)
    assert 0.05 <= seconds(clock)["data"] < 1.0


def test_an_unknown_span_is_named():
    clock, _ = started()
    with pytest.raises(ValueError, match="span: found 'evaluation', expected one of .*; did you mean 'evaluate'"):
        with clock.span("evaluation"):
            pass


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {}, "step: found None, expected a whole number"),
        (lambda s: {**s, "lost_steps": -1}, "lost_steps: found -1"),
        (lambda s: {**s, "restarts": "2"}, "restarts: found '2'"),
        (lambda s: {**s, "step": float("nan")}, "step: found nan"),
        (lambda s: {**s, "step": 1.5}, "step: found 1.5"),
        (lambda s: without(s, "seconds"), "seconds: found None, expected compile, data"),
        (lambda s: {**s, "seconds": {"step": 1.0}}, "seconds: found step, expected compile, data"),
        (lambda s: {**s, "seconds": {**s["seconds"], "data": "x"}}, "seconds: data: found 'x'"),
    ],
)
def test_a_state_of_another_form_changes_nothing(change, message):
    clock, now = started()
    with pytest.raises(ValueError, match=message):
        clock.resume(change(clock.state(3)), step=1)
    assert (clock.lost_steps, clock.restarts) == (0, 0)


def test_the_table_of_a_clock():
    clock, now = started()
    spend(clock, now, step=75.0, data=25.0)
    lines = table(clock.rows()).splitlines()
    assert lines[0].split() == ["span", "seconds", "percent"] and len(lines) == len(SPANS) + 2
    assert lines[3].split() == ["step", "75.0", "75.0"] and lines[-1].split() == ["total", "100.0", "100.0"]
    assert len({len(line) for line in lines}) == 1
