"""Watchdog: notices that training stands still, says where every thread stands, and which process is behind.

A collective that waits for a lost process waits for ever and without a word. The watchdog is a thread beside the
training loop that compares the time since the last step with what a step usually takes. It only reports; what follows
(ending the process, so that a launcher starts it again, say) is the caller's `on_stall`.
"""

import contextlib
import io
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import FrameType

from jax._src.distributed import global_state

REMEMBERED = 256  # durations behind the median
NAMED = 8  # processes that `behind` names before it counts the rest
PREFIX = "jaxmodels/progress"


class Watchdog:
    """Watches the steps of a loop from a thread of its own; a context manager.

    A stall is no beat for longer than max(least, factor x median duration of the last steps). It is reported once;
    the next beat ends it, and a later stall is reported again. Nothing is watched before the first beat: the first
    step compiles, and its duration does not count for the median either.

    The thread needs the interpreter lock, which JAX gives up while it waits for devices; it sees no stall inside
    foreign code that keeps the lock.
    """

    def __init__(
        self,
        factor: float,
        *,
        least: float = 60.0,
        on_stall: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        stream: io.TextIOBase | None = None,
    ):
        """Prepares; the thread runs inside the context.

        Args:
            factor: how many times the median duration of a step is a stall.
            least: seconds below which nothing is a stall.
            on_stall: called once per stall, in the watchdog's thread, with the line that was written; an exception
                in it ends the watch.
            clock: seconds that never run backwards.
            stream: where the stacks and the line are written; sys.stderr unless given.

        Raises:
            ValueError: factor below 1, or least not above 0.
        """
        if not factor >= 1:
            raise ValueError(f"Watchdog: factor: found {factor}, expected at least 1")
        if not least > 0:
            raise ValueError(f"Watchdog: least: found {least} s, expected more than 0")
        self._factor, self._least, self._on_stall, self._clock, self._stream = factor, least, on_stall, clock, stream
        self._durations: deque[float] = deque(maxlen=REMEMBERED)
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._step = 0
        self._last: float | None = None
        self._paused_at = 0.0
        self._paused = 0
        self._reported = self._closed = False

    def __enter__(self) -> "Watchdog":
        self._closed = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # on_stall may still be running, and may never return: do not wait long for it
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def beat(self, step: int) -> None:
        """Says that `step` is done. Call it after each step, once the host knows that the device is done with it."""
        with self._changed:
            now = self._clock()
            if self._last is not None and not self._paused:
                self._durations.append(now - self._last)
            self._step, self._last, self._reported = step, now, False
            if self._paused:
                self._paused_at = now
            self._changed.notify_all()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Stops the time for evaluation, saving and compilation; contexts may be nested."""
        with self._changed:
            if not self._paused:
                self._paused_at = self._clock()
            self._paused += 1
        try:
            yield
        finally:
            with self._changed:
                self._paused -= 1
                if not self._paused and self._last is not None:
                    self._last += self._clock() - self._paused_at
                self._changed.notify_all()

    def limit(self) -> float:
        """Seconds without a beat that are a stall now."""
        with self._changed:
            median = statistics.median(self._durations) if self._durations else 0.0
            return max(self._least, self._factor * median)

    def check(self) -> bool:
        """Looks once, as the thread does again and again: reports a stall that was not reported yet.

        Returns:
            Whether it reported one.
        """
        with self._changed:
            left, limit = self._left(), self.limit()
            if left > 0 or self._reported:
                return False
            self._reported = True
            line = (
                f"process {global_state.process_id}: no step for {limit - left:.1f} s after step {self._step} "
                f"(expected one within {limit:.1f} s)"
            )
        try:  # without the lock, so that a loop that wakes up is not held up by a slow stream
            stream = self._stream or sys.stderr
            stream.write(f"{stacks()}\n{line}\n")
            stream.flush()
        finally:
            self._on_stall(line)
        return True

    def _left(self) -> float:
        """Seconds until the limit; without end while nothing is watched."""
        if self._last is None or self._paused:
            return float("inf")
        return self._last + self.limit() - self._clock()

    def _watch(self) -> None:
        while not self._closed:
            self.check()
            with self._changed:
                if not self._closed:
                    # a beat may shorten the limit, so the thread looks at least once a second
                    left = self._left()
                    self._changed.wait(1.0 if self._reported or left == float("inf") else min(max(left, 0.001), 1.0))


def stacks() -> str:
    """The stack of every thread but this one, innermost frame first; no file is read, for a disk may be what hangs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    parts = []
    for ident, frame in sys._current_frames().items():
        if ident != own:
            lines = [f"thread {names.get(ident, ident)}, innermost call first:"]
            lines += [
                f'  File "{f.f_code.co_filename}", line {f.f_lineno} in {f.f_code.co_name}' for f in _calls(frame)
            ]
            parts.append("\n".join(lines))
    return "\n".join(parts)


def _calls(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def publish(step: int) -> None:
    """Tells the other processes which step this one has done; does nothing where jax.distributed is not initialised.

    One small message to the coordinator: call it every few steps rather than after each one.
    """
    client = global_state.client
    if client is not None:
        client.key_value_set(f"{PREFIX}/{global_state.process_id}", str(step), allow_overwrite=True)


def progress() -> dict[int, int]:
    """The last published step of every process, -1 for one that published none; {} without jax.distributed.

    Raises:
        jax.errors.JaxRuntimeError: the coordinator does not answer.
    """
    client = global_state.client
    if client is None:
        return {}
    found = {int(key.rpartition("/")[2]): int(step) for key, step in client.key_value_dir_get(PREFIX)}
    return {process: found.get(process, -1) for process in range(global_state.num_processes)}


def behind(progress: Mapping[int, int]) -> str:
    """Names the processes with the lowest step.

    >>> behind({0: 12, 1: 10, 2: 12})
    'process 1 is behind: step 10, while the furthest is at step 12'
    >>> behind({0: 7, 1: 7})
    'all 2 processes are at step 7'

    Args:
        progress: process index -> last step, as `progress()` gives it; -1 for a process without a step.
    """
    if not progress:
        return "no process has published a step"
    lowest, highest = min(progress.values()), max(progress.values())
    if lowest == highest:
        where = f"at step {lowest}" if lowest >= 0 else "before their first step"
        return f"all {len(progress)} processes are {where}"
    last = sorted(process for process, step in progress.items() if step == lowest)
    names = ", ".join(map(str, last[:NAMED])) + (f" and {len(last) - NAMED} more" if len(last) > NAMED else "")
    which = f"process {names} is" if len(last) == 1 else f"processes {names} are"
    where = f"step {lowest}" if lowest >= 0 else "no step yet"
    return f"{which} behind: {where}, while the furthest is at step {highest}"
