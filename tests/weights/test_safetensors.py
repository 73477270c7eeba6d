"""Checkpoint files: what is read, what is refused, and that writing is all or nothing."""

import json
import resource

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxmodels.weights.files import read_arrays, read_metadata, replacing, write_npz, write_safetensors

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(3, np.int32),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 2), np.float32),
}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
        assert (found[name].shape, found[name].dtype) == (expected[name].shape, expected[name].dtype)


def test_what_is_written_is_read_back_by_us_and_by_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    transposed = {"t": np.arange(6.0).reshape(2, 3).T}
    write_safetensors(path, ARRAYS | transposed, metadata={"who": "me"})
    same(read_arrays(path), ARRAYS | transposed)
    same(load_file(path), ARRAYS | transposed)
    assert read_metadata(path) == {"who": "me"}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_exactly(tmp_path, dtype):
    half = np.array([1.5, -0.25, 3e4], dtype)
    write_safetensors(tmp_path / "x.safetensors", {"a": half})
    same(read_arrays(tmp_path / "x.safetensors"), {"a": half.astype(np.float32)})
    write_npz(tmp_path / "x.npz", {"a": half})
    same(read_arrays(tmp_path / "x.npz"), {"a": half.astype(np.float32)})


def test_double_precision_is_kept(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", {"a": np.array([1 / 3])})
    assert read_arrays(tmp_path / "x.safetensors")["a"][0] == 1 / 3


def shards(folder, index):
    save_file({"a": ARRAYS["a"], "not in the index": ARRAYS["a"]}, folder / "model-00001-of-00002.safetensors")
    save_file({"flags": ARRAYS["flags"]}, folder / "model-00002-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(index if isinstance(index, str) else json.dumps(index))


INDEX = {"weight_map": {"a": "model-00001-of-00002.safetensors", "flags": "model-00002-of-00002.safetensors"}}


def test_shards_are_joined_by_their_index(tmp_path):
    shards(tmp_path, INDEX)
    expected = {name: ARRAYS[name] for name in ("a", "flags")}
    same(read_arrays(tmp_path), expected)
    same(read_arrays(tmp_path / "model.safetensors.index.json"), expected)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "expected JSON with a 'weight_map'"),
        ({"weights": {}}, "expected JSON with a 'weight_map'"),
        ({"weight_map": {"b": "model-00001-of-00002.safetensors"}}, "'b' is not in model-00001-of-00002.safetensors"),
        ({"weight_map": {"a": "../model.safetensors"}}, "shard '../model.safetensors' lies elsewhere"),
        ({"weight_map": {"a": "absent.safetensors"}}, "absent.safetensors: expected a checkpoint, found no such file"),
    ],
)
def test_a_wrong_index_is_an_error(tmp_path, index, message):
    shards(tmp_path, index)
    with pytest.raises(ValueError, match=message):
        read_arrays(tmp_path)


def test_a_folder_with_one_file(tmp_path):
    save_file({"a": ARRAYS["a"]}, tmp_path / "model.safetensors")
    same(read_arrays(tmp_path), {"a": ARRAYS["a"]})


def test_folders_without_a_backbone_say_what_they_hold(tmp_path):
    with pytest.raises(ValueError, match="expected model.safetensors or .*, found nothing"):
        read_arrays(tmp_path)
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(ValueError, match="which is a tuner"):
        read_arrays(tmp_path)


def test_pickles_and_unknown_files_are_refused(tmp_path):
    for name, message in (("x.pth", "convert it to .safetensors"), ("x.h5", "found '.h5', expected .safetensors")):
        (tmp_path / name).write_bytes(b"\x80\x04.")
        with pytest.raises(ValueError, match=message):
            read_arrays(tmp_path / name)
    with pytest.raises(ValueError, match="y.safetensors: expected a checkpoint, found no such file"):
        read_arrays(tmp_path / "y.safetensors")
    with pytest.raises(ValueError, match="found no such file"):
        read_metadata(tmp_path / "y.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_file_cut_anywhere_is_damaged(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    (write_npz if suffix == ".npz" else write_safetensors)(path, ARRAYS)
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 20, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"x{suffix}: is damaged or no") as caught:
            read_arrays(path)
        assert "\n" not in str(caught.value)


def test_an_npz_with_damaged_bytes_is_an_error(tmp_path):
    path = tmp_path / "x.npz"
    write_npz(path, {"a": np.arange(1000.0)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match="x.npz: is damaged"):
        read_arrays(path)


def test_an_npz_with_objects_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="x.npz: is damaged or no .npz of plain arrays"):
        read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("write", [write_safetensors, write_npz])
def test_a_full_disk_leaves_the_old_file(tmp_path, write):
    path = tmp_path / "x"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError):
            write(path, {"a": np.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
