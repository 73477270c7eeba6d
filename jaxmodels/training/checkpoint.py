"""Checkpoints with Orbax: what trains, optimizer and method state, step and key; never frozen weights.

Saving is asynchronous and atomic: a killed process leaves the previous checkpoint. A batch is a function of the step,
so the step is the whole position in the data, and a resumed run ends bitwise where an uninterrupted one does.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxmodels.rules import nearest, path_name
from jaxmodels.training.state import TrainState


class Checkpoints:
    """The checkpoints of one run, in WORKDIR/checkpoints; the newest two are kept. Close it, or use it as a context."""

    def __init__(self, workdir: str | Path):
        self.folder = Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
        handler = ocp.StandardCheckpointHandler()
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handler)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, ts: TrainState, *, wait: bool = False) -> None:
        """Saves in the background; `wait` returns only when the checkpoint is complete on disk.

        Raises:
            OSError: the disk is full, or this or an earlier save failed; older checkpoints are still whole.
        """
        step, leaves = int(ts.step), _flat(ts)
        free, needed = shutil.disk_usage(self.folder).free, 2 * sum(leaf.nbytes for leaf in leaves.values())
        if free < needed:
            raise OSError(f"{self.folder}: the disk is full: a checkpoint needs {needed} bytes, found {free} free")
        with self._failing_as_os_error():
            if self.latest() != step:
                self._manager.save(step, args=ocp.args.StandardSave(leaves))
            if wait:
                self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _failing_as_os_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever Orbax and its storage raise
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise OSError(f"{self.folder}: a checkpoint could not be saved ({reason})") from error

    def restore(self, template: TrainState) -> TrainState:
        """The newest checkpoint, in the shapes, dtypes and shardings of `template`.

        Raises:
            ValueError: there is none, or it belongs to another method or size; the message names the first difference.
        """
        step = self.latest()
        if step is None:
            raise ValueError(f"--resume: {self.folder} holds no checkpoint")
        found = self._manager.item_metadata(step)
        wanted = _flat(template)
        saved = {name: tuple(meta.shape) for name, meta in found.items()}
        for name, leaf in wanted.items():
            if name not in saved:
                raise ValueError(f"--resume: {self.folder}/{step} has no '{name}'{nearest(name, saved)}")
            if saved[name] != leaf.shape:
                raise ValueError(f"--resume: {self.folder}/{step}: '{name}' is {saved[name]}, expected {leaf.shape}")
        left = [name for name in saved if name not in wanted]
        if left:
            raise ValueError(f"--resume: {self.folder}/{step}: nothing reads '{left[0]}'{nearest(left[0], wanted)}")
        abstract = {n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for n, x in wanted.items()}
        restored = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        return jax.tree_util.tree_map_with_path(lambda path, _: restored[_key(path)], template)

    def close(self) -> None:
        """Waits for a save in progress."""
        with self._failing_as_os_error():
            self._manager.wait_until_finished()
            self._manager.close()


def _key(path: tuple[Any, ...]) -> str:
    return path_name(path).replace("/", ":")  # Orbax makes folders of '/'


def _flat(ts: TrainState) -> dict[str, jax.Array]:
    return {_key(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(ts)}
