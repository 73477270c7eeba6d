import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from jaxmodels.training import preemption
from jaxmodels.training.preemption import Preemption

ROOT = Path(__file__).parents[2]
BOTH = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def heard():
    """The signals that reach handlers which were there before."""
    numbers = []
    before = {number: signal.signal(number, lambda number, frame: numbers.append(number)) for number in BOTH}
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_a_flag_and_the_second_falls_through(number, heard):
    with Preemption(sigint=True) as stop:
        assert not stop.requested() and not stop.agreed(1)
        send(number)
        assert stop.requested() and stop.agreed(2) and heard == []
        send(number)
        assert heard == [number]
    send(number)
    assert heard == [number, number]


def test_one_kind_does_not_let_the_other_through(heard):
    with Preemption(sigint=True) as stop:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert heard == [] and stop.requested()


@pytest.mark.parametrize("fails", [False, True])
def test_leaving_restores_the_handlers(fails, heard):
    before = [signal.getsignal(number) for number in BOTH]
    try:
        with Preemption(sigint=True):
            assert all(signal.getsignal(number) not in before for number in BOTH)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert [signal.getsignal(number) for number in BOTH] == before


def test_ctrl_c_only_where_asked(heard):
    with Preemption() as stop:
        send(signal.SIGINT)
        assert heard == [signal.SIGINT] and not stop.requested()


def test_ctrl_c_twice_interrupts():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with Preemption(sigint=True) as stop:
        send(signal.SIGINT)
        assert stop.requested()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_an_ignored_ctrl_c_stays_ignored():
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Preemption(sigint=True) as stop:
            send(signal.SIGINT)
            assert not stop.requested()
    finally:
        signal.signal(signal.SIGINT, earlier)


def test_inside_another(heard):
    with Preemption() as outer, Preemption() as inner:
        send(signal.SIGTERM)
        assert inner.requested() and not outer.requested()
        send(signal.SIGTERM)
        assert outer.requested() and heard == []
        send(signal.SIGTERM)
        assert heard == [signal.SIGTERM]


def test_outside_the_main_thread_nothing_is_caught(heard):
    entered, leave, found = threading.Event(), threading.Event(), []

    def elsewhere():
        with Preemption(sigint=True) as stop:
            entered.set()
            leave.wait(5)
            found.append(stop.requested() or stop.agreed(1))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    entered.wait(5)
    send(signal.SIGTERM)
    leave.set()
    thread.join()
    assert heard == [signal.SIGTERM] and found == [False]


def test_a_handler_that_python_cannot_put_back_stays(heard, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda number: None)
        with Preemption():
            pass
        stop = Preemption().__enter__()
    assert signal.getsignal(signal.SIGTERM) is before
    stop.__exit__()


@pytest.fixture
def distributed(monkeypatch):
    """As where jax.distributed is initialised; the service settles on step 7."""
    asked = []

    def reached(step):
        asked.append(step)
        return step == 7

    monkeypatch.setattr(preemption.global_state, "client", object())
    monkeypatch.setattr(preemption.global_state, "preemption_sync_manager", object())
    monkeypatch.setattr(preemption, "reached_preemption_sync_point", reached)
    return asked


def test_with_several_processes_the_service_names_the_step(distributed, heard):
    services = signal.getsignal(signal.SIGTERM)
    with Preemption(sigint=True) as stop:
        assert signal.getsignal(signal.SIGTERM) is services
        send(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        assert [stop.agreed(step) for step in (5, 6, 7, 8)] == [False, False, True, True]
    assert distributed == [5, 6, 7] and stop.requested()


def test_with_several_processes_ctrl_c_goes_to_the_service(distributed, heard):
    with Preemption(sigint=True) as stop:
        send(signal.SIGINT)
        assert heard == [signal.SIGTERM]
        assert stop.requested() and not stop.agreed(5) and stop.agreed(7)
        send(signal.SIGINT)
        assert heard == [signal.SIGTERM, signal.SIGINT]


def test_several_processes_need_the_service(monkeypatch):
    monkeypatch.setattr(preemption.global_state, "client", object())
    with pytest.raises(ValueError, match="jax_enable_preemption_service: found False, expected True"):
        Preemption().__enter__()


TWO = """
    import os, signal, sys, time
    import jax
    sys.path.insert(0, {root!r})
    from jaxmodels.training.preemption import Preemption
    from jaxmodels.training.watchdog import progress, publish
    process = int(sys.argv[1])
    jax.distributed.initialize("localhost:{port}", 2, process)
    with Preemption(sigint=True) as stop:
        for step in range(1, 2000):
            time.sleep(0.01 + 0.005 * process)  # one runs ahead of the other
            publish(step)
            if process == 1 and step == 10:
                os.kill(os.getpid(), signal.SIGINT)
            if stop.agreed(step):
                break
    client = jax._src.distributed.global_state.client
    client.wait_at_barrier("stopped", 10_000)
    print(step, progress()[0], progress()[1])
    jax.distributed.shutdown()
"""


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = textwrap.dedent(TWO.format(root=str(ROOT), port=port))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    steps = [int(text) for out, _ in outputs for text in out.split()]
    assert 10 <= steps[0] < 1999 and set(steps) == {steps[0]}
