"""fit: one trainer for every method. It knows batches, steps, checkpoints and metrics, and no method by name."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.atomic import write_text
from jaxmodels.method import Mean, Method, StepBatch
from jaxmodels.training.checkpoint import Checkpoints
from jaxmodels.training.feed import feed
from jaxmodels.training.goodput import Clock
from jaxmodels.training.mesh import default_device, placement, put_batch
from jaxmodels.training.metrics import MetricsWriter
from jaxmodels.training.preemption import Preemption
from jaxmodels.training.processes import is_main
from jaxmodels.training.state import TrainState, begin, train_step, variables_of
from jaxmodels.training.watchdog import Watchdog, behind, progress, publish

GOODPUT = "goodput.json"  # in the workdir: where the time of all restarts went
STALLED = 5  # exit status of a run that stood still
STALL = 60.0  # seconds below which nothing is a stall
LAST_SAVE = 60.0  # seconds that a stalled run has to save
TOLD = 1.0  # seconds between messages that say how far a process is


@runtime_checkable
class Batches(Protocol):
    """Random access by step: batches[step] is a pure function of the step (and of the seed it was built with)."""

    def __getitem__(self, step: int, /) -> StepBatch:
        """The batch of a step."""


class Fit(NamedTuple):
    """What a run leaves behind.

    Attributes:
        variables: the method's variables after the last step.
        average: the same with the moving average of the trained leaves, or None.
        history: one dict per logged step: step, loss, ..., and evaluation metrics where one was due.
        seconds: wall time of this call, compilation included.
        step: the last step.
        clock: where the time went, over restarts too.
    """

    variables: Any
    average: Any
    history: list[dict[str, float]]
    seconds: float
    step: int
    clock: Clock


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: the run stopped after `step` and saved, if it has a workdir."""

    def __init__(self, step: int, saved: bool, number: int = signal.SIGINT):
        super().__init__(f"interrupted after step {step}; {'the state is saved' if saved else 'nothing was saved'}")
        self.step, self.saved, self.number = step, saved, number


class NonFinite(ValueError):
    """The loss or gradient stopped being a number."""


def fit(
    method: Method,
    batches: Batches,
    optimizer: optax.GradientTransformation,
    *,
    steps: int,
    variables: Any = None,
    seed: int = 0,
    workdir: str | Path | None = None,
    resume: bool = False,
    save_every: int = 0,
    log_every: int = 50,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    evaluate_every: int = 0,
    accumulate: int = 1,
    ema: float | None = None,
    mesh: jax.sharding.Mesh | None = None,
    on_nan: Literal["stop", "skip"] = "stop",
    keep_best: str | None = None,
    reference: Mapping[str, str] | None = None,
    workers: int = 0,
    stall_factor: float | None = None,
    shapes: int = 1,
    until: Callable[[Mapping[str, float]], bool] | None = None,
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
) -> Fit:
    """Trains a method.

    Args:
        method: any `Method`.
        batches: batches[step] gives the batch of step 0, 1, ...; see `data.batches`. It may be a tuple of batches: the
            step then makes an optimizer update with each in turn.
        optimizer: over the trained leaves, such as `adamw(method.groups, 1e-3)`.
        steps: optimizer steps in all.
        variables: where to start (published weights, say); method.init(key(seed), batches[0]) unless given.
        seed: of the run's random key.
        workdir: folder for metrics.jsonl, TensorBoard events and checkpoints; None writes nothing.
        resume: go on from the newest checkpoint of the workdir.
        save_every: steps between checkpoints; 0 saves at the end and on Ctrl-C only.
        log_every: steps between logged rows.
        evaluate: variables -> metrics, called every `evaluate_every` steps and after the last.
        evaluate_every: 0 evaluates after the last step only.
        accumulate: micro-batches per step.
        ema: decay of a moving average of the trained leaves.
        mesh: devices (`make_mesh`): batches are spread over its axes 'data' and 'fsdp', parameters as the method's
            sharding rules say; None uses the default device. With several processes all call `fit` alike, each with
            its own rows of the batches (`mesh.local_rows`) and all with one workdir, where the first one writes.
        on_nan: 'stop' the run when the loss or a gradient is no finite number, or 'skip' the update of such a step;
            rows then tell the share of steps skipped.
        keep_best: name of an evaluation metric: every evaluated state is saved too, and the one with the highest value
            is kept beside the newest two checkpoints.
        reference: name of the frozen weights, such as {'backbone': 'vit_b16', 'sha256': ...}, stored with every
            checkpoint; a resumed run must have the same.
        workers: processes that read batches ahead (Grain's), for `data.batches`; 0 reads in a thread.
        stall_factor: no step within so many times the median step (and a minute) is a stall: every thread's stack and
            the process that is behind are printed, one process alone saves if it can, and the program ends with
            status 5. None watches nothing.
        shapes: different shapes of batches that there may be (buckets of graphs, say); each compiles the step once.
        until: metrics of an evaluation -> whether the run ends here, before `steps` (early stopping); with several
            processes all must come to the same answer.
        on_log: called with each logged row (a progress bar, say), in the first process.

    Returns:
        A `Fit`.

    Raises:
        ValueError: steps below 1, `resume` without a workdir or a checkpoint, a workdir with checkpoints without
            `resume`, `keep_best` without `evaluate` and a workdir, several processes without a mesh, a batch of another
            shape than the first.
        NonFinite: the loss or a gradient is not a number any more; names the step, the group and the last good
            checkpoint.
        Interrupted: Ctrl-C or SIGTERM, after saving.
    """
    if steps < 1:
        raise ValueError(f"--steps: found {steps}, expected at least 1")
    if resume and workdir is None:
        raise ValueError("--resume: expected a --workdir with a checkpoint, found none")
    if keep_best is not None and (evaluate is None or workdir is None):
        raise ValueError(f"keep_best: found '{keep_best}', expected `evaluate` and a workdir with it")
    if mesh is None and jax.process_count() > 1:
        raise ValueError(f"mesh: found none, expected one over the devices of all {jax.process_count()} processes")
    clock = Clock()
    if variables is None:
        head = batches[0]
        variables = method.init(jax.random.key(seed), head[0] if isinstance(head, tuple) else head)
    ts, frozen = begin(method, optimizer, variables, seed=seed, ema=ema)
    placed = None if mesh is None else placement(ts, frozen, method.shardings, mesh)
    # Onto a device that is named, where None would leave them unbound: restored leaves are bound, and jit tells the two
    # apart by compiling again.
    ts, frozen = jax.device_put((ts, frozen), default_device() if placed is None else placed.trees)
    checkpoints = Checkpoints(workdir, best=keep_best, reference=reference) if workdir is not None else None
    writer = None
    try:
        if checkpoints and not resume and checkpoints.latest() is not None:  # its later steps would be taken for ours
            raise ValueError(f"--workdir: {checkpoints.folder} holds another run: expected --resume or an empty folder")
        if resume and checkpoints:
            with clock.span("restore"):
                ts = checkpoints.restore(ts)
        first = int(ts.step)
        goodput = None if workdir is None else Path(workdir) / GOODPUT
        if resume and goodput and goodput.exists():
            clock.resume(json.loads(goodput.read_text(encoding="utf-8")), step=first)
        if workdir is not None and is_main():
            writer = MetricsWriter(workdir, resumed_at=first if resume else None)
        run = _Run(method, checkpoints, writer, on_log, clock)
        step = train_step(method, optimizer, accumulate=accumulate, ema=ema, placement=placed, skip=on_nan == "skip")
        with contextlib.ExitStack() as stack:
            ahead = stack.enter_context(
                feed(batches, range(first, steps), lambda b: put_batch(b, mesh), workers=workers, shapes=shapes)
            )
            stop = stack.enter_context(Preemption(sigint=True))
            if stall_factor is not None:
                run.watch(stack.enter_context(Watchdog(stall_factor, least=STALL, on_stall=run.stalled)))
            for i in range(first, steps):
                with clock.span("data"):
                    batch = next(ahead)
                with clock.span("compile" if i == first else "step"):
                    ts, metrics = step(_before_step(method, ts, i), frozen, batch)
                    run.collect(i + 1, ts, metrics)
                if checkpoints:
                    checkpoints.check()
                done = i + 1
                last, stopping = done == steps, stop.agreed(done)
                evaluating = evaluate and (last or (evaluate_every and done % evaluate_every == 0))
                saving = bool(save_every and done % save_every == 0) or bool(keep_best and evaluating)
                if evaluating or saving or done % log_every == 0 or last or stopping:
                    with clock.span("step"):
                        jax.block_until_ready(metrics)  # the device's time is the steps', whoever waits for it
                    with clock.span("evaluate"), run.pause():
                        found = evaluate(variables_of(ts, frozen)) if evaluate and evaluating else {}
                    run.log(done, found)
                    last = last or bool(evaluating and until is not None and until(found))
                if checkpoints and (saving or last or stopping):
                    with clock.span("save"), run.pause():
                        checkpoints.save(ts, metrics=found, wait=last or stopping)
                if goodput and is_main() and (done % log_every == 0 or last or stopping):
                    write_text(goodput, json.dumps(clock.state(done)))
                if stopping and not last:
                    raise Interrupted(done, saved=checkpoints is not None, number=stop.number)
                if last:
                    break
    finally:
        if writer:
            writer.close()
        if checkpoints:
            checkpoints.close()
    average = variables_of(ts, frozen, average=True) if ema is not None else None
    jax.block_until_ready(ts)
    clock.stop()
    return Fit(variables_of(ts, frozen), average, run.history, clock.elapsed(), int(ts.step), clock)


class _Run:
    """What a run has done: metrics on their way from the device to the log, and the state to save if it stalls.

    Metrics are fetched only when a row is due. One step is always in flight while the host waits for the one before.
    """

    def __init__(
        self,
        method: Method,
        checkpoints: Checkpoints | None,
        writer: MetricsWriter | None,
        on_log: Callable,
        clock: Clock,
    ):
        self.history: list[dict[str, float]] = []
        self._checkpoints, self._writer, self._on_log = checkpoints, writer, on_log
        self._pending: list[tuple[int, dict[str, Mean]]] = []
        self._clock = clock
        self._since = self._told = time.perf_counter()
        self._watchdog: Watchdog | None = None
        self._last: TrainState | None = None
        self._flying: tuple[int, dict[str, Mean]] | None = None

    def watch(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def pause(self) -> contextlib.AbstractContextManager[None]:
        return self._watchdog.pause() if self._watchdog else contextlib.nullcontext()

    def collect(self, step: int, ts: TrainState, metrics: dict[str, Mean]) -> None:
        before, self._flying = self._flying, (step, metrics)
        self._pending.append((step, metrics))
        self._last = ts
        if self._watchdog and time.perf_counter() - self._told > TOLD:
            self._told = time.perf_counter()
            publish(step)  # begun, not done: of two processes that wait for one another one has begun more
        if before is not None:
            jax.block_until_ready(before[1])
            if self._watchdog:
                self._watchdog.beat(before[0])

    def stalled(self, line: str) -> None:
        """Ends the program, for the loop is stuck where no exception reaches it."""
        found = []
        if jax.process_count() > 1:
            if self._flying:
                publish(self._flying[0])
            time.sleep(2 * TOLD)  # for the others to say the same
            found.append(behind(progress()))
        saving = threading.Thread(target=self._save, daemon=True)
        if self._checkpoints and jax.process_count() == 1:  # of several processes one cannot save alone
            saving.start()
            saving.join(LAST_SAVE)
            found.append("the state is not saved" if saving.is_alive() else "the state is saved")
        print(f"Error: {'; '.join([line, *found])}", file=sys.stderr, flush=True)
        os._exit(STALLED)

    def _save(self) -> None:
        assert self._checkpoints and self._last
        self._checkpoints.save(self._last, wait=True)

    def log(self, step: int, evaluation: Mapping[str, float]) -> None:
        pending = [(s, jax.tree.map(np.asarray, metrics)) for s, metrics in self._pending]
        self._pending = []
        for s, metrics in pending:
            bad = [name for name, mean in metrics.items() if not np.isfinite(mean.total)]
            if bad:
                raise NonFinite(f"step {s}: no finite number any more: {', '.join(bad)}; {self._last_good()}")
        totals = pending[0][1]
        for _, metrics in pending[1:]:
            totals = {name: totals[name].merge(mean) for name, mean in metrics.items()}
        now = time.perf_counter()
        rate = {"steps_per_second": len(pending) / max(now - self._since, 1e-9), "data_share": self._clock.data_share()}
        self._since = now
        row = {"step": step, **{name: mean.value() for name, mean in totals.items()}, **rate, **evaluation}
        self.history.append(row)
        if self._writer:
            self._writer.write(step, {name: value for name, value in row.items() if name != "step"})
        if is_main():
            self._on_log(row)

    def _last_good(self) -> str:
        last = self._checkpoints.latest() if self._checkpoints else None
        if self._checkpoints is None or last is None:
            return "no checkpoint was saved"
        return f"the last good checkpoint is {self._checkpoints.folder / str(last)}"


def _before_step(method: Method, ts: TrainState, step: int) -> TrainState:
    if method.before_step is None:
        return ts
    new = method.before_step(ts.state, step)
    if new is None:
        return ts
    placed = jax.tree.map(lambda n, old: jax.device_put(jnp.asarray(n, old.dtype), old.sharding), new, ts.state)
    return ts._replace(state=placed)
