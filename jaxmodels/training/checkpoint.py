"""Checkpoints with Orbax: what trains, optimizer and method state, step and key; never frozen weights.

Saving is asynchronous and atomic: a killed process leaves the previous checkpoint. A batch is a function of the step,
so the step is the whole position in the data, and a resumed run ends bitwise where an uninterrupted one does.

Beside the leaves (item `state`) lies a small JSON (item `about`): format, shape, dtype and checksum of every leaf,
metrics, and the name of the frozen weights. A checkpoint counts once it was read back and its checksums agree; until
two of these are newer, nothing is deleted.
"""

import asyncio
import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxmodels.rules import nearest, path_name
from jaxmodels.training.checksum import checksums
from jaxmodels.training.state import TrainState

FORMAT = 1  # of the item `about`
PART = 2**28  # bytes read back at once


class Damaged(Exception):
    """A checkpoint that cannot be read, or that is not what was saved."""


class Checkpoints:
    """The checkpoints of one run, in WORKDIR/checkpoints. Close it, or use it as a context.

    Args:
        workdir: folder of the run.
        keep: the newest checkpoints that were read back and agree; older ones go when the next is saved.
        best: name of a metric; the checkpoint with its highest value is kept too, the first on ties.
        reference: name of the frozen weights, such as {'backbone': 'vit_b16', 'sha256': ...}; who resumes must have
            the same.

    Raises:
        ValueError: `keep` is below 1.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        keep: int = 2,
        best: str | None = None,
        reference: Mapping[str, str] | None = None,
    ):
        if keep < 1:
            raise ValueError(f"keep: found {keep}, expected at least 1")
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._keep, self._metric, self._reference = keep, best, dict(reference or {})
        options = ocp.CheckpointManagerOptions(max_to_keep=None, cleanup_tmp_directories=True)
        handlers = {"state": ocp.StandardCheckpointHandler(), "about": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        self._verified: set[int] = set()  # read back by this process, or restored
        self._damaged: set[int] = set()
        self._pending: int | None = None  # being saved, or saved and not read back
        self._abstract: dict[str, jax.ShapeDtypeStruct] = {}  # of the leaves, as saved last
        self._scores: dict[int, float] = {}
        for step in self._steps():
            with contextlib.suppress(Damaged):
                self._score(step, _read_about(self.folder / str(step)))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The step of the newest checkpoint, the one being saved included, known damaged ones excluded."""
        return max((step for step in self._steps() if step not in self._damaged), default=None)

    def best(self) -> int | None:
        """The step with the highest value of the metric `best`, the first on ties; None when no checkpoint has it."""
        return min(self._scores, key=lambda step: (-self._scores[step], step), default=None)

    def save(self, ts: TrainState, *, metrics: Mapping[str, float] | None = None, wait: bool = False) -> None:
        """Saves in the background, once the save before is complete, read back and good.

        Args:
            ts: the state.
            metrics: of an evaluation of it; none given, it is no candidate for the best.
            wait: return only when this checkpoint is complete on disk and read back.

        Raises:
            OSError: the disk is full, or this or an earlier save failed; older checkpoints are still whole.
            ValueError: `metrics` lacks the one that tells the best.
        """
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        if metrics and self._metric is not None and self._metric not in metrics:
            raise ValueError(f"keep_best: no metric '{self._metric}'{nearest(self._metric, metrics)}")
        step, leaves = int(ts.step), _flat(ts)
        self._settle()
        free, needed = shutil.disk_usage(self.folder).free, 2 * sum(leaf.nbytes for leaf in leaves.values())
        if free < needed:
            raise OSError(f"{self.folder}: the disk is full: a checkpoint needs {needed} bytes, found {free} free")
        if step in self._verified:
            return
        about = _about(leaves, metrics, self._reference)
        items = ocp.args.Composite(state=ocp.args.StandardSave(leaves), about=ocp.args.JsonSave(about))
        self._abstract = _abstract(leaves)
        with self._failing_as_os_error():
            if step in self._steps():
                self._delete(step)  # it was damaged, or is ahead of where the run went on
            self._manager.save(step, args=items, force=True)  # forced: a damaged one may be ahead
        self._pending = step
        if wait:
            self._settle()

    def check(self) -> None:
        """Raises what a save in the background ran into; costs nothing while there is none.

        Raises:
            OSError: the save failed; older checkpoints are still whole.
        """
        if self._pending is not None and not self._manager.is_saving_in_progress():
            self._wait()

    def restore(self, template: TrainState) -> TrainState:
        """The newest whole checkpoint, in the shapes, dtypes and shardings of `template`.

        A damaged one is passed over with a warning that names it.

        Raises:
            ValueError: there is none, or it belongs to another method, size or frozen weights; the message names the
                first difference.
        """
        wanted = _abstract(_flat(template))
        steps = self._steps()
        for step in reversed(steps):
            found = self._verify(step, wanted)
            if found is not None:
                self._abstract = wanted
                return jax.tree_util.tree_map_with_path(lambda path, _: found[_key(path)], template)  # noqa: B023
        if steps:
            raise ValueError(f"--resume: {self.folder}: every checkpoint is damaged ({', '.join(map(str, steps))})")
        raise ValueError(f"--resume: {self.folder} holds no checkpoint")

    def close(self) -> None:
        """Waits for a save in progress and reads it back."""
        try:
            # the other processes may be elsewhere when one fails, and reading back waits for them
            if jax.process_count() == 1 or sys.exc_info()[0] is None:
                self._settle()
        finally:
            with self._failing_as_os_error():
                self._manager.close()

    def _wait(self) -> None:
        try:
            with self._failing_as_os_error():
                self._manager.wait_until_finished()
        except OSError:
            self._pending = None  # there is nothing to read back
            raise

    def _settle(self) -> None:
        """Waits for the save in progress, reads it back, and deletes what it makes superfluous."""
        if self._pending is None:
            return
        self._wait()
        step, self._pending = self._pending, None
        if jax.process_index() == 0:
            with self._failing_as_os_error():
                _flush(self.folder / str(step))
        self._verify(step, self._abstract, keep=False)
        newest = sorted(self._verified)[-self._keep :]
        if len(newest) < self._keep:
            return
        while (best := self.best()) is not None and best not in self._verified:  # saved before this process began
            self._verify(best, self._abstract, keep=False)
        with self._failing_as_os_error():
            for old in self._steps():
                if old < newest[0] and old != best:
                    self._delete(old)

    def _verify(
        self, step: int, wanted: Mapping[str, jax.ShapeDtypeStruct], *, keep: bool = True
    ) -> dict[str, jax.Array] | None:
        """The leaves of a checkpoint, which counts from now on, or {} without `keep`; or a warning and None."""
        try:
            leaves, about = self._read(step, wanted, keep)
        except Damaged as error:
            self._damaged.add(step)
            self._verified.discard(step)
            self._scores.pop(step, None)
            warnings.warn(f"{self.folder / str(step)} is damaged and passed over: {error}", stacklevel=3)
            return None
        self._verified.add(step)
        self._damaged.discard(step)
        self._score(step, about)
        return leaves

    def _read(
        self, step: int, wanted: Mapping[str, jax.ShapeDtypeStruct], keep: bool
    ) -> tuple[dict[str, jax.Array], dict]:
        folder = self.folder / str(step)
        with _everywhere():
            about = _read_about(folder)
        _compare(about, wanted, self._reference, folder)
        read: dict[str, jax.Array] = {}
        # What is compared only is read in parts: a second copy of everything may be more than a device can hold.
        for part in [wanted] if keep else _parts(wanted):
            with _everywhere():
                leaves = _read_leaves(folder / "state", part)
            for name, found in checksums({name: leaves[name] for name in part}).items():
                saved = about["leaves"][name]["checksum"]
                if found != saved:
                    raise Damaged(f"'{name}' has the checksum {found:08x}, saved was {saved:08x}")
            if keep:
                read = leaves
        return read, about

    def _score(self, step: int, about: Mapping[str, Any]) -> None:
        value = about["metrics"].get(self._metric)
        if value is not None and not math.isnan(value):
            self._scores[step] = value

    def _delete(self, step: int) -> None:
        if jax.process_index() == 0:  # first what makes it a checkpoint: half deleted, it is none
            shutil.rmtree(self.folder / str(step) / "about", ignore_errors=True)
        self._manager.delete(step)
        self._damaged.discard(step)
        self._verified.discard(step)
        self._scores.pop(step, None)

    @contextlib.contextmanager
    def _failing_as_os_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever Orbax and its storage raise
            raise OSError(f"{self.folder}: a checkpoint could not be saved ({_reason(error)})") from error


def has_checkpoint(workdir: str | Path) -> bool:
    """Whether a run has a complete checkpoint to resume from; what a kill left of a first one is none."""
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.latest() is not None


@contextlib.contextmanager
def _everywhere() -> Iterator[None]:
    """Raises `Damaged` in every process when reading failed in one of them."""
    error: Exception | None = None
    try:
        yield
    except Exception as raised:  # whatever Orbax, its storage and JSON raise
        error = raised
    whole = error is None
    if jax.process_count() > 1:
        whole = bool(np.all(multihost_utils.process_allgather(np.array(whole))))
    if not whole:
        raise Damaged("another process cannot read it" if error is None else _reason(error)) from error


def _about(leaves: Mapping[str, jax.Array], metrics: Mapping[str, float], reference: Mapping[str, str]) -> dict:
    sums = checksums(leaves)
    described = {
        name: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "checksum": sums[name]}
        for name, leaf in leaves.items()
    }
    about = {"format": FORMAT, "leaves": described, "metrics": dict(metrics), "reference": dict(reference)}
    return {**about, "sha256": _digest(about)}


def _digest(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _read_about(folder: Path) -> dict:
    try:
        about = ocp.JsonCheckpointHandler().restore(folder / "about")
        if about.pop("sha256") != _digest(about):
            raise Damaged("its description changed since it was saved")
    except Damaged:
        raise
    except Exception as error:  # missing, cut, or no JSON
        raise Damaged(f"its description cannot be read ({_reason(error)})") from error
    return about


def _parts(wanted: Mapping[str, jax.ShapeDtypeStruct]) -> Iterator[dict[str, jax.ShapeDtypeStruct]]:
    """The leaves in groups of at most PART bytes, or of one leaf."""
    part: dict[str, jax.ShapeDtypeStruct] = {}
    size = 0
    for name, leaf in wanted.items():
        nbytes = leaf.size * leaf.dtype.itemsize
        if part and size + nbytes > PART:
            yield part
            part, size = {}, 0
        part[name] = leaf
        size += nbytes
    if part:
        yield part


def _read_leaves(folder: Path, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, _Patient()))
    restored = ocp.checkpoint_utils.construct_restore_args(dict(wanted))
    args = ocp.args.PyTreeRestore(dict(wanted), restored, partial_restore=True)
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry).restore(folder, args=args)


class _Patient(ocp.type_handlers.ArrayHandler):
    """Waits for all reads when one fails: Orbax would abandon the others, and each would print a traceback later."""

    async def deserialize(self, *args, **kwargs):
        before = asyncio.all_tasks()
        try:
            return await super().deserialize(*args, **kwargs)
        except Exception:
            await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)
            raise


def _compare(about: Mapping[str, Any], wanted: Mapping[str, Any], reference: Mapping[str, str], folder: Path) -> None:
    """Raises a ValueError when a whole checkpoint is not this run's."""
    if about["format"] != FORMAT:
        raise ValueError(f"--resume: {folder}: found format {about['format']}, expected {FORMAT}")
    for key in sorted({*about["reference"], *reference}):
        found, expected = about["reference"].get(key), reference.get(key)
        if found != expected:
            raise ValueError(f"--resume: {folder}: reference '{key}': found {found!r}, expected {expected!r}")
    saved = about["leaves"]
    for name, leaf in wanted.items():
        if name not in saved:
            raise ValueError(f"--resume: {folder} has no '{name}'{nearest(name, saved)}")
        shape, dtype = tuple(saved[name]["shape"]), saved[name]["dtype"]
        if shape != leaf.shape:
            raise ValueError(f"--resume: {folder}: '{name}' is {shape}, expected {leaf.shape}")
        if dtype != str(leaf.dtype):
            raise ValueError(f"--resume: {folder}: '{name}' is {dtype}, expected {leaf.dtype}")
    left = [name for name in saved if name not in wanted]
    if left:
        raise ValueError(f"--resume: {folder}: nothing reads '{left[0]}'{nearest(left[0], wanted)}")


def _flush(folder: Path) -> None:
    """Makes the operating system write a folder out, so that it outlives a power cut too."""
    for path in (folder.parent, folder, *folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: BaseException) -> str:
    """One line: the first of what is at the bottom of it."""
    while not isinstance(error, Damaged) and error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _abstract(leaves: Mapping[str, jax.Array]) -> dict[str, jax.ShapeDtypeStruct]:
    return {n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for n, x in leaves.items()}


def _key(path: tuple[Any, ...]) -> str:
    return path_name(path).replace("/", ":")  # Orbax makes folders of '/'


def _flat(ts: TrainState) -> dict[str, jax.Array]:
    return {_key(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(ts)}
