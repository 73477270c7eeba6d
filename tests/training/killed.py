"""A run to be killed (test_killed.py), and the stored checkpoint of tests/goldens/checkpoint.

python -m tests.training.killed WORKDIR                 # trains, resuming what it finds
python -m tests.training.killed --write-fixture         # writes tests/goldens/checkpoint anew
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.training.checkpoint import Checkpoints
from jaxmodels.training.fit import fit
from jaxmodels.training.state import TrainState
from tests.training.small import small_run

FIXTURE = Path(__file__).parents[1] / "goldens" / "checkpoint"
STEPS = 120


def train(workdir: Path) -> None:
    """Trains to the end from the newest checkpoint; writes the final parameters to final.npz."""
    jax.config.update("jax_compilation_cache_dir", str(workdir.parent / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    method, batches, optimizer = small_run()
    with Checkpoints(workdir) as checkpoints:
        resume = checkpoints.latest() is not None
    run = fit(method, batches, optimizer, steps=STEPS, workdir=workdir, save_every=2, log_every=1, resume=resume)
    leaves = jax.tree_util.tree_leaves_with_path(run.variables)
    np.savez(workdir / "final.npz", **{jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})


def fixture_state() -> TrainState:
    """The state in the stored checkpoint."""
    weights = jnp.arange(6, dtype=jnp.float32).reshape(2, 3) / 7
    return TrainState(
        jnp.asarray(3, jnp.int32),
        {"head": {"kernel": weights, "bias": jnp.asarray([0.5, -1.0, 3e-8], jnp.float32)}, "frozen": None},
        {"mu": (weights - 0.4).astype(jnp.bfloat16), "count": jnp.asarray(3, jnp.int32)},
        {"active": jnp.asarray([True, False, True])},
        None,
        jnp.asarray([0, 2**32 - 5], jnp.uint32),
    )


def values_of(ts: TrainState) -> dict:
    """Every leaf as plain lists; floats of 16 and 32 bits are whole in JSON."""
    leaves = jax.tree_util.tree_leaves_with_path(ts)
    wide = {jnp.dtype(jnp.bfloat16): np.float64, jnp.dtype(jnp.float32): np.float64}
    return {
        jax.tree_util.keystr(path): np.asarray(leaf).astype(wide.get(leaf.dtype, leaf.dtype)).tolist()
        for path, leaf in leaves
    }


def write_fixture() -> None:
    """Writes the stored checkpoint and its values."""
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoints(folder, reference={"backbone": "vit_tiny"}) as checkpoints:
            checkpoints.save(fixture_state(), metrics={"accuracy": 0.75}, wait=True)
        for path in Path(folder).rglob("commit_success.txt"):
            path.write_text("complete\n")  # Orbax writes where the folder was; nothing reads it
        shutil.rmtree(FIXTURE / "checkpoints", ignore_errors=True)
        shutil.copytree(Path(folder) / "checkpoints", FIXTURE / "checkpoints")
    (FIXTURE / "values.json").write_text(json.dumps(values_of(fixture_state()), indent=1) + "\n")


if __name__ == "__main__":
    write_fixture() if sys.argv[1:] == ["--write-fixture"] else train(Path(sys.argv[1]))
