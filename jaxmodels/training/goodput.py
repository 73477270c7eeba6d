"""Goodput: where the wall time of a run goes, added up over restarts."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxmodels.rules import nearest

SPANS = ("compile", "data", "step", "evaluate", "save", "restore", "other")


class Row(NamedTuple):
    """Time of one span.

    Attributes:
        name: one of SPANS.
        seconds: spent in it, over all restarts.
        percent: of the total.
    """

    name: str
    seconds: float
    percent: float


class Clock:
    """Attributes every moment since its start to one span; 'other' has what lies outside of all spans.

    Spans may be nested: a moment belongs to the innermost one. They are opened in one thread, that of the loop.
    JAX returns from a step before the device is done, so 'step' is the device's time only where its span waits.

    Attributes:
        lost_steps: steps that were done, lost in a restart because no durable checkpoint held them, and done again.
        restarts: how often the run was resumed.

    >>> now = iter([0.0, 1.0, 4.0, 10.0]).__next__
    >>> clock = Clock(clock=now)
    >>> with clock.span("step"):
    ...     pass
    >>> [row for row in clock.rows() if row.seconds]
    [Row(name='step', seconds=3.0, percent=30.0), Row(name='other', seconds=7.0, percent=70.0)]
    """

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter):
        """Starts the time.

        Args:
            clock: seconds that never run backwards.
        """
        self._clock = clock
        self._seconds = dict.fromkeys(SPANS, 0.0)
        self._open: list[str] = []
        self.lost_steps = self.restarts = 0
        self._started = self._since = clock()

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Attributes the time inside to a name.

        Raises:
            ValueError: not one of SPANS.
        """
        if name not in SPANS:
            raise ValueError(f"span: found '{name}', expected one of {', '.join(SPANS)}{nearest(name, SPANS)}")
        self._settle()
        self._open.append(name)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def rows(self) -> list[Row]:
        """Every span in the order of SPANS, an open one up to now; seconds and percents sum to the total."""
        self._settle()
        total = sum(self._seconds.values())
        return [Row(name, seconds, 100 * seconds / total if total else 0.0) for name, seconds in self._seconds.items()]

    def elapsed(self) -> float:
        """Seconds since this clock started, without earlier runs."""
        return self._clock() - self._started

    def stop(self) -> None:
        """Ends the time: what comes later belongs to no span."""
        now = self._clock()
        self._clock = lambda: now

    def data_share(self) -> float:
        """Waiting for data as a share (0 to 1) of the time that data and steps take together."""
        self._settle()
        data, step = self._seconds["data"], self._seconds["step"]
        return data / (data + step) if data + step else 0.0

    def goodput(self, step: int) -> float:
        """Share (0 to 1) of the total time that went into steps that count: without those that a restart lost.

        Args:
            step: number of steps the run has done.
        """
        self._settle()
        total, done = sum(self._seconds.values()), step + self.lost_steps
        return self._seconds["step"] / total * step / done if total and done else 0.0

    def state(self, step: int) -> dict[str, Any]:
        """What `resume` needs, for JSON. Write it more often than checkpoints: what comes after it is not counted.

        Args:
            step: number of steps done, in a checkpoint or not.
        """
        self._settle()
        return {
            "step": step,
            "lost_steps": self.lost_steps,
            "restarts": self.restarts,
            "seconds": dict(self._seconds),
        }

    def resume(self, state: Mapping[str, Any], *, step: int) -> None:
        """Adds the time of the run that this one goes on from. Call it once, on a clock of this process.

        The time between the end of that process and the start of this one is in no span.

        Args:
            state: of `state()`.
            step: of the checkpoint that was restored; the steps of `state` beyond it are lost.

        Raises:
            ValueError: `state` is of another form; says what is missing or wrong.
        """
        done, lost, restarts, seconds = _read(state)
        self.lost_steps += lost + max(0, done - step)
        self.restarts += restarts + 1
        for name in SPANS:
            self._seconds[name] += seconds[name]

    def _settle(self) -> None:
        now = self._clock()
        self._seconds[self._open[-1] if self._open else "other"] += now - self._since
        self._since = now


def _read(state: Mapping[str, Any]) -> tuple[int, int, int, dict[str, float]]:
    counts: list[Any] = [state.get(name) for name in ("step", "lost_steps", "restarts")]
    for name, value in zip(("step", "lost_steps", "restarts"), counts, strict=True):
        if not _number(value) or value != int(value):
            raise ValueError(f"goodput: {name}: found {value!r}, expected a whole number of at least 0")
    seconds = state.get("seconds")
    if not isinstance(seconds, Mapping) or set(seconds) != set(SPANS):
        found = ", ".join(map(str, seconds)) if isinstance(seconds, Mapping) else repr(seconds)
        raise ValueError(f"goodput: seconds: found {found}, expected {', '.join(SPANS)}")
    for name, value in seconds.items():
        if not _number(value):
            raise ValueError(f"goodput: seconds: {name}: found {value!r}, expected a number of at least 0")
    done, lost, restarts = map(int, counts)
    return done, lost, restarts, {name: float(value) for name, value in seconds.items()}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def together(clocks: Sequence[Clock]) -> list[Row]:
    """The rows of several runs, added up."""
    seconds = dict.fromkeys(SPANS, 0.0)
    for clock in clocks:
        for row in clock.rows():
            seconds[row.name] += row.seconds
    total = sum(seconds.values())
    return [Row(name, value, 100 * value / total if total else 0.0) for name, value in seconds.items()]


def table(rows: Sequence[tuple[str, float, float]]) -> str:
    """The rows of a clock as lines for people, and their total.

    >>> print(table([("data", 2.0, 20.0), ("step", 8.0, 80.0)]))
    span      seconds  percent
    data          2.0     20.0
    step          8.0     80.0
    total        10.0    100.0
    """
    total = ("total", sum(row[1] for row in rows), sum(row[2] for row in rows))
    lines = [f"{name:<8} {seconds:>8.1f} {percent:>8.1f}" for name, seconds, percent in [*rows, total]]
    return "\n".join(["span      seconds  percent", *lines])
