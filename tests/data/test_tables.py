import gzip

import numpy as np
import pytest

from jaxmodels.data.tables import npz_arrays, npz_names, table
from tests.data.graph_folders import write


@pytest.mark.parametrize("name", ["t.txt", "t.csv.gz"])
@pytest.mark.parametrize("text", ["1,2\n3,4\n", "1, 2\r\n\n3, 4", "\n1 2\n3\t4\n\n"])
def test_numbers_are_read_whatever_separates_them(tmp_path, name, text):
    found = table(write(tmp_path / name, text), np.int64)
    assert found.dtype == np.int64 and found.tolist() == [[1, 2], [3, 4]]


def test_a_single_column_stays_a_column_and_an_empty_file_has_no_rows(tmp_path):
    assert table(write(tmp_path / "a", "5\n"), np.int64, columns=1).shape == (1, 1)
    assert table(write(tmp_path / "a", "5\n6\n"), np.float64).shape == (2, 1)
    assert table(write(tmp_path / "a", "\n\n"), np.int64, columns=2).shape == (0, 2)


def test_blanks_between_commas_are_nan_on_request(tmp_path):
    file = write(tmp_path / "a", ",1,\n2, ,nan\n\n3,4,5\n,,\n")
    np.testing.assert_array_equal(
        table(file, np.float64, blank_is_nan=True),
        [[np.nan, 1, np.nan], [2, np.nan, np.nan], [3, 4, 5], [np.nan] * 3],
    )
    with pytest.raises(ValueError, match="a:2: expected 1 numbers, found '2, ,nan'"):
        table(file, np.float64)


@pytest.mark.parametrize(
    "text, columns, complaint",
    [
        ("1,2\n\n3\n", None, ":3: expected 2 integers, found '3'"),
        ("1,2\n3,x\n", None, ":2: expected 2 integers, found '3,x'"),
        ("1,2\n3,1.5\n", 2, ":2: expected 2 integers, found '3,1.5'"),
        ("1,2\n3,4\n", 3, ":1: expected 3 integers, found '1,2'"),
        ("1,2\n3,4,5\n", 2, ":2: expected 2 integers"),
        ("1\n99999999999999999999999\n", 1, ": .*"),
    ],
)
def test_the_first_wrong_line_is_named(tmp_path, text, columns, complaint):
    for name in ("t.txt", "t.txt.gz"):
        with pytest.raises(ValueError, match=name + complaint) as error:
            table(write(tmp_path / name, text), np.int64, columns=columns)
        assert "\n" not in str(error.value)


def test_a_file_that_is_missing_cut_or_no_text_is_named(tmp_path):
    with pytest.raises(ValueError, match="none.txt: found no such file"):
        table(tmp_path / "none.txt", np.int64)
    zipped = gzip.compress(b"1,2\n" * 1000)
    for data in (zipped[:-9], zipped[: len(zipped) // 2], b"1,2\n"):
        (tmp_path / "cut.gz").write_bytes(data)
        with pytest.raises(ValueError, match="cut.gz: expected a complete gzip file"):
            table(tmp_path / "cut.gz", np.int64)
    (tmp_path / "bytes").write_bytes(b"1,2\n\xff\xfe\n")
    with pytest.raises(ValueError, match="bytes: expected UTF-8 text"):
        table(tmp_path / "bytes", np.int64)


def test_arrays_are_read_by_name_and_never_unpickled(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, edges=np.arange(3), labels=np.ones(2), objects=np.array([{}], object))
    assert npz_names(file) == ["edges", "labels", "objects"]
    assert list(npz_arrays(file, ["labels", "edges"])) == ["labels", "edges"]
    for names, complaint in (
        (["edge"], "no array 'edge'; did you mean 'edges'.*found edges, labels"),
        (["objects"], "Object arrays"),
    ):
        with pytest.raises(ValueError, match=f"a.npz: expected an .npz file of plain arrays: .*{complaint}") as error:
            npz_arrays(file, names)
        assert "\n" not in str(error.value)
    whole = file.read_bytes()
    for data in (b"", b"text", whole[: len(whole) // 2], whole[:200] + b"\0" * 50 + whole[250:]):
        file.write_bytes(data)
        with pytest.raises(ValueError, match="a.npz: expected an .npz file"):
            npz_arrays(file, ["edges", "labels"])
    with open(file, "wb") as stream:
        np.save(stream, np.ones(2))
    with pytest.raises(ValueError, match="one bare array"):
        npz_arrays(file, ["edges"])
    with pytest.raises(ValueError, match="none.npz: found no such file"):
        npz_arrays(tmp_path / "none.npz", ["edges"])
