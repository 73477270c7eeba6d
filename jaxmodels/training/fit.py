"""fit: one trainer for every method. It knows batches, steps, checkpoints and metrics, and no method by name."""

import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.method import Batch, Mean, Method
from jaxmodels.training.checkpoint import Checkpoints
from jaxmodels.training.mesh import placement, put_batch
from jaxmodels.training.metrics import MetricsWriter
from jaxmodels.training.state import TrainState, begin, train_step, variables_of


@runtime_checkable
class Batches(Protocol):
    """Random access by step: batches[step] is a pure function of the step (and of the seed it was built with)."""

    def __getitem__(self, step: int, /) -> Batch:
        """The batch of a step."""


class Fit(NamedTuple):
    """What a run leaves behind.

    Attributes:
        variables: the method's variables after the last step.
        average: the same with the moving average of the trained leaves, or None.
        history: one dict per logged step: step, loss, ..., and evaluation metrics where one was due.
        seconds: wall time of this call, compilation included.
        step: the last step.
    """

    variables: Any
    average: Any
    history: list[dict[str, float]]
    seconds: float
    step: int


class Interrupted(Exception):
    """Ctrl-C: the run stopped after `step` and saved, if it has a workdir."""

    def __init__(self, step: int, saved: bool):
        super().__init__(f"interrupted after step {step}; {'the state is saved' if saved else 'nothing was saved'}")
        self.step, self.saved = step, saved


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
    on_log: Callable[[dict[str, float]], None] = lambda row: None,
) -> Fit:
    """Trains a method.

    Args:
        method: any `Method`.
        batches: batches[step] gives the batch of step 0, 1, ...; see `data.batches`.
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
            sharding rules say; None uses the default device.
        on_log: called with each logged row (a progress bar, say).

    Returns:
        A `Fit`.

    Raises:
        ValueError: steps below 1, `resume` without a workdir or a checkpoint.
        NonFinite: the loss or the gradient is not a number any more; names the step and the last good checkpoint.
        Interrupted: Ctrl-C, after saving.
    """
    if steps < 1:
        raise ValueError(f"--steps: found {steps}, expected at least 1")
    if resume and workdir is None:
        raise ValueError("--resume: expected a --workdir with a checkpoint, found none")
    started = time.perf_counter()
    if variables is None:
        variables = method.init(jax.random.key(seed), batches[0])
    ts, frozen = begin(method, optimizer, variables, seed=seed, ema=ema)
    placed = None if mesh is None else placement(ts, frozen, method.shardings, mesh)
    ts, frozen = jax.device_put((ts, frozen)) if placed is None else jax.device_put((ts, frozen), placed.trees)
    checkpoints = Checkpoints(workdir) if workdir is not None else None
    writer = None
    try:
        if resume and checkpoints:
            ts = checkpoints.restore(ts)
        first = int(ts.step)
        if workdir is not None:
            writer = MetricsWriter(workdir, resumed_at=first if resume else None)
        run = _Run(method, checkpoints, writer, on_log)
        step = train_step(method, optimizer, accumulate=accumulate, ema=ema, placement=placed)
        with _CtrlC() as ctrl_c:
            for i in range(first, steps):
                ts = _before_step(method, ts, i)
                ts, metrics = step(ts, frozen, put_batch(batches[i], mesh))
                run.collect(i + 1, metrics)
                done = i + 1
                evaluating = evaluate and (done == steps or (evaluate_every and done % evaluate_every == 0))
                saving = bool(save_every) and done % save_every == 0
                if evaluating or saving or done % log_every == 0 or done == steps or ctrl_c.pressed:
                    found = evaluate(variables_of(ts, frozen)) if evaluate and evaluating else {}
                    run.log(done, found)
                if checkpoints and (saving or done == steps or ctrl_c.pressed):
                    checkpoints.save(ts, wait=done == steps or ctrl_c.pressed)
                if ctrl_c.pressed and done < steps:
                    raise Interrupted(done, saved=checkpoints is not None)
    finally:
        if writer:
            writer.close()
        if checkpoints:
            checkpoints.close()
    average = variables_of(ts, frozen, average=True) if ema is not None else None
    jax.block_until_ready(ts)
    return Fit(variables_of(ts, frozen), average, run.history, time.perf_counter() - started, max(first, steps))


class _Run:
    """Metrics on their way from the device to the log: fetched only when a row is due, so steps stay asynchronous."""

    def __init__(self, method: Method, checkpoints: Checkpoints | None, writer: MetricsWriter | None, on_log: Callable):
        self.history: list[dict[str, float]] = []
        self._checkpoints, self._writer, self._on_log = checkpoints, writer, on_log
        self._pending: list[tuple[int, dict[str, Mean]]] = []
        self._since = time.perf_counter()

    def collect(self, step: int, metrics: dict[str, Mean]) -> None:
        self._pending.append((step, metrics))

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
        rate = {"steps_per_second": len(pending) / max(now - self._since, 1e-9)}
        self._since = now
        row = {"step": step, **{name: mean.value() for name, mean in totals.items()}, **rate, **evaluation}
        self.history.append(row)
        if self._writer:
            self._writer.write(step, {name: value for name, value in row.items() if name != "step"})
        self._on_log(row)

    def _last_good(self) -> str:
        last = self._checkpoints.latest() if self._checkpoints else None
        if self._checkpoints is None or last is None:
            return "no checkpoint was saved"
        return f"the last good checkpoint is {self._checkpoints.folder / str(last)}"


class _CtrlC:
    """Turns the first SIGINT into a flag that the loop reads between steps; a second one interrupts as usual."""

    def __init__(self) -> None:
        self.pressed = False

    def __enter__(self) -> "_CtrlC":
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: Any) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, self._previous)


def _before_step(method: Method, ts: TrainState, step: int) -> TrainState:
    if method.before_step is None:
        return ts
    new = method.before_step(ts.state, step)
    if new is None:
        return ts
    placed = jax.tree.map(lambda n, old: jax.device_put(jnp.asarray(n, old.dtype), old.sharding), new, ts.state)
    return ts._replace(state=placed)
