import json
import shutil
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import jaxmodels as jm
from jaxmodels.training import checkpoint
from jaxmodels.training.checkpoint import Checkpoints
from jaxmodels.training.state import TrainState
from tests.training.killed import FIXTURE, fixture_state, values_of
from tests.training.small import small_run

REFERENCE = {"backbone": "vit_b16", "sha256": "0a1b"}


def state(step, *, width=64, dtype=jnp.float32):
    """A state of every dtype, a function of the step."""
    random = np.random.default_rng(step)
    w = jnp.asarray(random.normal(size=(8, width)), dtype)
    return TrainState(
        jnp.asarray(step, jnp.int32),
        {"layer": {"w": w, "frozen": None}},
        {"mu": w.astype(jnp.bfloat16), "count": jnp.asarray(step, jnp.int32)},
        {"active": jnp.asarray(random.random(3) > 0.5)},
        None,
        jax.random.key_data(jax.random.key(step)),
    )


def steps_in(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def write(workdir, steps, **options):
    with Checkpoints(workdir, **options) as checkpoints:
        for step in steps:
            checkpoints.save(state(step), wait=True)


def restored(workdir, template=None, **options):
    """The state that a new process would find, and the warnings."""
    with warnings.catch_warnings(record=True) as caught, Checkpoints(workdir, **options) as checkpoints:
        warnings.simplefilter("always")
        found = checkpoints.restore(state(0) if template is None else template)
    return found, [str(each.message) for each in caught]


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_newest_two_are_kept_and_come_back_bitwise(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3, 4, 5):
            checkpoints.save(state(step))
            assert checkpoints.latest() == step
    assert steps_in(tmp_path) == [4, 5]
    found, caught = restored(tmp_path)
    chex.assert_trees_all_equal(found, state(5))
    chex.assert_trees_all_equal_dtypes(found, state(5))
    assert caught == []


def test_more_or_fewer_can_be_kept(tmp_path):
    for keep, kept in ((1, [4]), (3, [2, 3, 4])):
        write(tmp_path / str(keep), (1, 2, 3, 4), keep=keep)
        assert steps_in(tmp_path / str(keep)) == kept
    with pytest.raises(ValueError, match="keep: found 0, expected at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_two_whole_ones_are_on_disk_at_every_moment_and_deleted_last(tmp_path, monkeypatch):
    """What was read back and made durable, in the order it happened."""
    events = []
    read, flush, delete = Checkpoints._read, checkpoint._flush, Checkpoints._delete
    monkeypatch.setattr(checkpoint, "_flush", lambda folder: (events.append(f"flush {folder.name}"), flush(folder))[1])
    monkeypatch.setattr(Checkpoints, "_read", lambda s, n, *w: (events.append(f"read {n}"), read(s, n, *w))[1])
    monkeypatch.setattr(Checkpoints, "_delete", lambda s, n: (events.append(f"delete {n}"), delete(s, n))[1])
    write(tmp_path, (1, 2, 3))
    assert events == ["flush 1", "read 1", "flush 2", "read 2", "flush 3", "read 3", "delete 1"]


def test_one_that_cannot_be_read_back_is_named_and_nothing_goes_for_it(tmp_path, monkeypatch):
    read = checkpoint._read_leaves

    def fails(folder, wanted):
        if folder.parent.name in ("3", "4"):
            raise OSError("input/output error")
        return read(folder, wanted)

    monkeypatch.setattr(checkpoint, "_read_leaves", fails)
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(state(step))
        with pytest.warns(UserWarning, match="checkpoints/3 is damaged and passed over: input/output error"):
            checkpoints.save(state(4))
        assert steps_in(tmp_path)[:3] == [1, 2, 3] and checkpoints.latest() == 4
        with pytest.warns(UserWarning, match="checkpoints/4 is damaged"):
            checkpoints.save(state(5), wait=True)
        assert steps_in(tmp_path) == [2, 3, 4, 5]  # two that are whole, and what is newer than the older of them
        checkpoints.save(state(6), wait=True)
        assert steps_in(tmp_path) == [5, 6]


def test_what_changes_between_device_and_disk_is_seen(tmp_path, monkeypatch):
    saved = ocp.args.StandardSave

    def flipped(leaves):
        return saved({**leaves, "trained:layer:w": leaves["trained:layer:w"].at[3, 1].add(1e-6)})

    monkeypatch.setattr(ocp.args, "StandardSave", flipped)
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(UserWarning, match="'trained:layer:w' has the checksum [0-9a-f]{8}, saved was [0-9a-f]{8}"):
            checkpoints.save(state(1), wait=True)
        assert checkpoints.latest() is None


def test_the_best_is_kept_beside_the_newest_two(tmp_path):
    with Checkpoints(tmp_path, best="val_accuracy") as checkpoints:
        assert checkpoints.best() is None
        for step, value in ((1, 0.2), (2, 0.7), (3, 0.7), (4, 0.3), (5, float("nan"))):
            checkpoints.save(state(step), metrics={"val_accuracy": value, "loss": 1.0}, wait=True)
        checkpoints.save(state(6), wait=True)  # not evaluated
        assert checkpoints.best() == 2 and steps_in(tmp_path) == [2, 5, 6]
        with pytest.raises(ValueError, match="no metric 'val_accuracy'; did you mean 'val_acuracy'"):
            checkpoints.save(state(7), metrics={"val_acuracy": 1.0})
    with Checkpoints(tmp_path, best="val_accuracy") as checkpoints:  # another process
        assert checkpoints.best() == 2
        checkpoints.restore(state(0))
        for step in (7, 8):
            checkpoints.save(state(step), wait=True)
        assert steps_in(tmp_path) == [2, 7, 8]
        checkpoints.save(state(9), metrics={"val_accuracy": 0.8})
        assert checkpoints.best() == 2  # until the new one was read back
    assert steps_in(tmp_path) == [8, 9]


def test_a_best_that_was_damaged_since_gives_way_to_the_next(tmp_path):
    with Checkpoints(tmp_path, best="score") as checkpoints:
        for step, value in ((1, 3.0), (2, 2.0), (3, 1.0)):
            checkpoints.save(state(step), metrics={"score": value}, wait=True)
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "state" / "d")
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "state" / "ocdbt.process_0")
    with Checkpoints(tmp_path, best="score") as checkpoints:
        checkpoints.restore(state(0))
        assert checkpoints.best() == 1
        with pytest.warns(UserWarning, match="checkpoints/1 is damaged"):
            checkpoints.save(state(4), wait=True)
        assert checkpoints.best() == 2
        checkpoints.save(state(5), wait=True)
    assert steps_in(tmp_path) == [2, 4, 5]


def test_an_error_in_the_background_surfaces_at_the_next_check(tmp_path, monkeypatch):
    async def fails(self, x, directory):
        raise OSError("no space left on device\nsecond line")

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state(1), wait=True)
        checkpoints.check()
        monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", fails)
        checkpoints.save(state(2))
        while checkpoints._manager.is_saving_in_progress():
            pass
        with pytest.raises(OSError, match=r"a checkpoint could not be saved \(.*no space left on device\)$"):
            checkpoints.check()
        checkpoints.check()  # said once
        assert checkpoints.latest() == 1
        monkeypatch.undo()
        checkpoints.save(state(3), wait=True)  # once there is room again
    chex.assert_trees_all_equal(restored(tmp_path)[0], state(3))
    assert steps_in(tmp_path) == [1, 3]


def test_fit_stops_at_the_step_after_a_save_that_failed(tmp_path, monkeypatch):
    async def fails(self, x, directory):
        raise OSError("no space left on device")

    done = []
    method, batches, optimizer = counting()
    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", fails)
    with pytest.raises(OSError, match="no space left on device"):
        jm.fit(method, batches, optimizer, steps=10**6, workdir=tmp_path, save_every=1000, log_every=1000,
               on_log=lambda row: done.append(row["step"]))  # fmt: skip
    assert done in ([1000], [1000, 2000])  # by the next save at the latest


def counting():
    from tests.training.test_fit import Ones, counting_method

    method = counting_method()
    return method, Ones(), jm.sgd(method.groups, 0.1)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    write(folder, (1, 2))
    return folder


@pytest.mark.parametrize("damage", ["deleted", "cut", "emptied", "flipped"])
def test_whatever_happens_to_a_file_the_newest_whole_state_comes_back(two, tmp_path, damage):
    """Some files are not needed for reading: then the newest comes back, bitwise; else the one before, with a word."""
    fell_back = set()
    for name in [path.relative_to(two) for path in files_of(two / "checkpoints" / "2")]:
        workdir = tmp_path / name.name
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(two, workdir)
        spoil(workdir / name, damage)
        found, caught = restored(workdir)
        if caught:
            assert len(caught) == 1 and "checkpoints/2 is damaged and passed over: " in caught[0], name
            assert "\n" not in caught[0]
            fell_back.add("/".join(name.parts[2:-1]))
        chex.assert_trees_all_equal(found, state(1 if caught else 2))
    assert {"about", "state", "state/ocdbt.process_0/d"} <= fell_back


def spoil(path, damage):
    content = path.read_bytes()
    middle = len(content) // 2
    if damage == "deleted":
        path.unlink()
    elif damage == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :])
    else:
        path.write_bytes(content[:middle] if damage == "cut" else b"")


def test_a_folder_whose_deletion_was_cut_short_is_passed_over(two, tmp_path):
    for part in ("about", "state", "_CHECKPOINT_METADATA"):
        workdir = tmp_path / part
        shutil.copytree(two, workdir)
        path = workdir / "checkpoints" / "2" / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        found, caught = restored(workdir)
        assert int(found.step) == (2 if part == "_CHECKPOINT_METADATA" else 1) and len(caught) == 2 - int(found.step)


def test_none_that_is_whole_is_an_error_that_names_the_folder(two, tmp_path):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.rglob("about/metadata"):
        path.write_text("{}")
    with Checkpoints(tmp_path) as checkpoints, pytest.warns(UserWarning, match="checkpoints/[12] is damaged"):
        assert checkpoints.best() is None
        with pytest.raises(ValueError, match=r"--resume: .*/checkpoints: every checkpoint is damaged \(1, 2\)"):
            checkpoints.restore(state(0))
        assert checkpoints.latest() is None


def test_a_digit_that_changes_in_the_description_is_seen(two, tmp_path):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoints" / "2" / "about" / "metadata"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    found, caught = restored(tmp_path)
    assert int(found.step) == 1 and "its description changed since it was saved" in caught[0]


def test_a_damaged_step_is_saved_again(two, tmp_path):
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / "2" / "about" / "metadata").unlink()
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(UserWarning, match="checkpoints/2 is damaged"):
            assert int(checkpoints.restore(state(0)).step) == 1
        assert checkpoints.latest() == 1
        checkpoints.save(state(2), wait=True)
        checkpoints.save(state(2), wait=True)  # whole: nothing to do
    found, caught = restored(tmp_path)
    assert caught == [] and steps_in(tmp_path) == [1, 2]
    chex.assert_trees_all_equal(found, state(2))


def test_a_step_before_a_damaged_one_is_saved_too(two, tmp_path):
    write(tmp_path, (1, 2, 5))
    (tmp_path / "checkpoints" / "5" / "about" / "metadata").unlink()
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.warns(UserWarning, match="checkpoints/5 is damaged"):
            checkpoints.restore(state(0))
        for step in (3, 4):
            checkpoints.save(state(step))
    assert steps_in(tmp_path) == [3, 4, 5]
    found, caught = restored(tmp_path)
    assert int(found.step) == 4 and len(caught) == 1


def test_frozen_weights_are_named(tmp_path):
    write(tmp_path, (1,), reference=REFERENCE)
    assert int(restored(tmp_path, reference=REFERENCE)[0].step) == 1
    for other, message in (
        ({**REFERENCE, "sha256": "ffff"}, "checkpoints/1: reference 'sha256': found '0a1b', expected 'ffff'"),
        ({"backbone": "vit_b16"}, "reference 'sha256': found '0a1b', expected None"),
        (None, "reference 'backbone': found 'vit_b16', expected None"),
        ({**REFERENCE, "url": "x"}, "reference 'url': found None, expected 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            restored(tmp_path, reference=other)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (lambda: state(0, width=65), r"checkpoints/1: 'trained:layer:w' is \(8, 64\), expected \(8, 65\)"),
        (lambda: state(0, dtype=jnp.bfloat16), "'trained:layer:w' is float32, expected bfloat16"),
        (lambda: state(0)._replace(trained={"layer": {"v": jnp.zeros((8, 64))}}), "has no 'trained:layer:v'"),
        (lambda: state(0)._replace(state={}), "nothing reads 'state:active'"),
    ],
)
def test_another_method_is_an_error_at_once(tmp_path, template, message):
    write(tmp_path, (1,))
    with pytest.raises(ValueError, match=message):
        restored(tmp_path, template())


def test_a_format_from_the_future_is_an_error_at_once(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 2)
        write(tmp_path, (1,))
    with pytest.raises(ValueError, match="checkpoints/1: found format 2, expected 1"):
        restored(tmp_path)


def test_a_checkpoint_holds_what_it_says(tmp_path):
    with Checkpoints(tmp_path, reference=REFERENCE) as checkpoints:
        checkpoints.save(state(1), metrics={"loss": 0.5})
    about = json.loads((tmp_path / "checkpoints" / "1" / "about" / "metadata").read_text())
    assert (about["format"], about["metrics"], about["reference"]) == (1, {"loss": 0.5}, REFERENCE)
    assert about["leaves"]["trained:layer:w"]["shape"] == [8, 64] and "trained:layer:frozen" not in about["leaves"]
    assert {leaf["dtype"] for leaf in about["leaves"].values()} == {"float32", "bfloat16", "int32", "uint32", "bool"}


def test_training_goes_on_on_other_meshes(tmp_path):
    """From eight devices to one to data:2,fsdp:4; the losses are those of one device all along."""
    method, batches, _ = small_run()
    method = method._replace(loss=lambda v, b, k, loss=method.loss: loss(v, b, None))
    optimizer = jm.sgd(method.groups, 1e-2)
    alone = jm.fit(method, batches, optimizer, steps=6, log_every=1)
    rows = []
    for steps, mesh in (
        (2, jm.make_mesh("data:8")),
        (4, jm.make_mesh("data:1", jax.devices()[:1])),
        (6, jm.make_mesh("data:2,fsdp:4")),
    ):
        run = jm.fit(
            method, batches, optimizer, steps=steps, log_every=1, workdir=tmp_path, resume=steps > 2, mesh=mesh
        )
        rows += run.history
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for found, expected in zip(rows, alone.history, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_fit_keeps_the_best_and_names_the_weights(tmp_path):
    method, batches, optimizer = counting()
    values = iter((0.1, 0.9, 0.3, 0.2, 0.4))
    options = {"evaluate": lambda variables: {"accuracy": next(values)}, "evaluate_every": 2, "reference": REFERENCE}
    jm.fit(method, batches, optimizer, steps=8, workdir=tmp_path, keep_best="accuracy", save_every=3, **options)
    assert steps_in(tmp_path) == [4, 6, 8]
    with pytest.raises(ValueError, match="reference 'backbone': found 'vit_b16', expected 'vit_l16'"):
        other = {**options, "reference": {**REFERENCE, "backbone": "vit_l16"}}
        jm.fit(method, batches, optimizer, steps=10, workdir=tmp_path, resume=True, **other)
    for missing in ({"evaluate": None}, {"workdir": None}):
        with pytest.raises(ValueError, match="keep_best: found 'accuracy', expected `evaluate` and a workdir with it"):
            given = {"workdir": tmp_path, **options, **missing}
            jm.fit(method, batches, optimizer, steps=10, keep_best="accuracy", **given)


def test_a_new_run_does_not_mix_with_an_old_one(tmp_path):
    method, batches, optimizer = counting()
    jm.fit(method, batches, optimizer, steps=2, workdir=tmp_path)
    with pytest.raises(ValueError, match="--workdir: .*/checkpoints holds another run: expected --resume or an empty"):
        jm.fit(method, batches, optimizer, steps=4, workdir=tmp_path)
    assert steps_in(tmp_path) == [2]


def test_a_stored_checkpoint_can_be_read_for_ever(tmp_path):
    shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
    template = jax.tree.map(jnp.zeros_like, fixture_state())
    found, caught = restored(tmp_path, template, reference={"backbone": "vit_tiny"}, best="accuracy")
    assert caught == []
    assert values_of(found) == json.loads((FIXTURE / "values.json").read_text())
    with Checkpoints(tmp_path, best="accuracy") as checkpoints:
        assert checkpoints.best() == 3
