"""Readers of data with several views: every layout gives the same objects, and what is wrong is said in one line."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from jaxmodels.data.view_files import read_views

A = np.arange(12, dtype=np.uint8).reshape(4, 3) + 250  # wraps unless it is cast before it is scaled
B = np.linspace(-1.0, 1.0, 8).reshape(4, 2)
Y = np.array([[1], [1], [2], [2]], np.uint8)


def cell(*views):
    found = np.empty((1, len(views)), object)
    for v, x in enumerate(views):
        found[0, v] = x
    return found


def test_a_matlab_cell_and_numbered_matrices_and_an_npz_are_the_same(tmp_path):
    scipy.io.savemat(tmp_path / "one.mat", {"X": cell(A, scipy.sparse.csr_matrix(B)), "Y": Y})
    scipy.io.savemat(tmp_path / "two.mat", {"X1": A, "X2": B, "Y": Y})
    np.savez(tmp_path / "three.npz", n_views=2, view_0=A, view_1=B, labels=Y.ravel())
    for name in ("one.mat", "two.mat", "three.npz"):
        data = read_views(tmp_path / name)
        np.testing.assert_array_equal(data.views[0], A.astype(np.float64))
        np.testing.assert_allclose(data.views[1], B)
        assert data.classes.tolist() == [0, 0, 1, 1] and data.mask.all() and data.name == name[:-4]
        assert data.labels == ("1", "2")


def test_rows_of_nan_or_a_mask_are_missing_views(tmp_path):
    lacking = B.copy()
    lacking[2] = np.nan
    np.savez(tmp_path / "nan.npz", view_0=A, view_1=lacking)
    mask = [[1, 1], [1, 1], [1, 0], [1, 1]]
    np.savez(tmp_path / "mask.npz", view_0=A, view_1=B, mask=mask)
    scipy.io.savemat(tmp_path / "mask.mat", {"X": cell(A, B), "mask": mask})
    for name in ("nan.npz", "mask.npz", "mask.mat"):
        data = read_views(tmp_path / name)
        assert data.mask.tolist() == [[1, 1], [1, 1], [1, 0], [1, 1]] and data.classes is None
        assert data.views[1][2].tolist() == [0.0, 0.0] and data.views[1][3].tolist() == B[3].tolist()


def test_a_folder_of_tables_by_id_and_by_row(tmp_path):
    by_id, by_row = tmp_path / "by_id", tmp_path / "by_row"
    by_id.mkdir()
    by_row.mkdir()
    (by_id / "audio.csv").write_text("id,loud,high\nb,1,2\na,3,4\n\n")
    (by_id / "text.csv").write_text("id,length\na,5\nc,6\n")
    (by_id / "labels.csv").write_text("id,label\na,cat\nb,dog\nc,cat\n")
    data = read_views(by_id)
    assert data.ids == ("b", "a", "c") and data.names == ("audio", "text")
    assert data.mask.tolist() == [[1, 0], [1, 1], [0, 1]] and data.classes.tolist() == [1, 0, 0]
    assert data.labels == ("cat", "dog")
    assert data.views[0].tolist() == [[1, 2], [3, 4], [0, 0]] and data.views[1].tolist() == [[0], [5], [6]]
    (by_row / "1.csv").write_text("x,y\n1,2\n,\n3,4\n")
    (by_row / "2.csv").write_text("5\n6\nnan\n")
    (by_row / "labels.csv").write_text("0\n1\n0\n")
    data = read_views(by_row)
    assert data.mask.tolist() == [[1, 1], [0, 1], [1, 0]] and data.ids == ("0", "1", "2")
    assert data.classes.tolist() == [0, 1, 0] and data.views[0].tolist() == [[1, 2], [0, 0], [3, 4]]


def test_a_first_row_of_nan_is_an_object_and_no_header(tmp_path):
    (tmp_path / "a.csv").write_text("nan,NaN\n1,2\n3,4\n")
    (tmp_path / "b.csv").write_text("5\n6\n7\n")
    data = read_views(tmp_path)
    assert data.mask.tolist() == [[0, 1], [1, 1], [1, 1]] and data.views[0].tolist() == [[0, 0], [1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "found no .csv files, expected one per view"),
        ({"a.csv": "", "b.csv": "1\n"}, "a.csv: found no rows, expected one per object"),
        ({"a.csv": "x,y\n", "b.csv": "1\n"}, "a.csv: found no rows of numbers below the header"),
        ({"a.csv": "1\n2\n", "b.csv": "1\n"}, "b.csv: found 1 rows, expected 2 as in a.csv"),
        ({"a.csv": "1,2\n1,x\n", "b.csv": "1\n1\n"}, "a.csv:2: found 'x', expected 2 numbers, or an empty row"),
        ({"a.csv": "1,nan\n1,2\n", "b.csv": "1\n1\n"}, "a.csv:1: found 'nan', expected 2 numbers, or an empty row"),
        ({"a.csv": "1,2\n1,\n", "b.csv": "1\n1\n"}, "a.csv:2: found '', expected 2 numbers, or an empty row"),
        ({"a.csv": "1,2\n3\n", "b.csv": "1\n1\n"}, "a.csv:2: found '1 cells', expected 2 numbers"),
        ({"a.csv": "id,x\np,1\np,2\n", "b.csv": "id,x\np,1\n"}, "a.csv:3: id 'p' stands in line 2 already"),
        ({"a.csv": "id,x\np,1\n", "b.csv": "1\n"}, "b.csv: found no column `id`, expected one as in a.csv"),
        ({"a.csv": "1\n\n", "b.csv": "2\n\n"}, "mask, row 1: the object has no view at all"),
        ({"a.csv": "1\n2\n", "b.csv": "2\n3\n", "labels.csv": "1\n"}, "labels.csv: found 1 labels, expected 2"),
        ({"a.csv": "id,x\np,1\n", "b.csv": "id,x\np,1\n", "labels.csv": "id,label\nq,1\n"}, "no label of id 'p'"),
        (
            {"a.csv": "id,x\np,1\n", "b.csv": "id,x\np,1\n", "labels.csv": "id,label\np,1\np,0\n"},
            "labels.csv:3: id 'p' stands in line 2 already",
        ),
        (
            {"a.csv": "id,x\np,1\n", "b.csv": "id,x\np,1\n", "labels.csv": "id,label\np,\n"},
            "labels.csv:2: found an empty label, expected id,label",
        ),
    ],
)
def test_wrong_tables_are_named(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_views(tmp_path)


def test_wrong_files_are_named(tmp_path):
    nan = B.copy()
    nan[1, 0] = np.nan
    cases = {
        "short.npz": (dict(view_0=A, view_1=B[:3]), r"short.npz: view 1: found shape \(3, 2\), expected \(4, features"),
        "gap.npz": (dict(view_0=A, view_1=B, view_3=A), "gap.npz: found view_0, view_1, view_3, expected view_2 too"),
        "none.npz": (dict(x=A), "none.npz: found x, expected view_0, view_1"),
        "nan.npz": (dict(view_0=A, view_1=nan), "nan.npz: view 1, row 1: found NaN or infinity"),
        "all.npz": (dict(view_0=A, view_1=np.full((4, 2), np.nan)), "all.npz: view 1: all 4 objects lack it"),
        "mask.npz": (dict(view_0=A, view_1=B, mask=np.full((4, 2), 2)), "mask.npz: mask: expected zeros and ones"),
        "text.npz": (dict(view_0=A, view_1=A.astype(str)), r"text.npz: view 1: found <U3 \(4, 3\), expected numbers"),
    }
    for name, (arrays, message) in cases.items():
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(ValueError, match=message):
            read_views(tmp_path / name)
    scipy.io.savemat(tmp_path / "other.mat", {"Z": A})
    (tmp_path / "broken.mat").write_bytes(b"no matlab file, but long enough to have a header" * 9)
    hdf = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n"
    (tmp_path / "new.mat").write_bytes(hdf)
    for name, message in (
        ("other.mat", "other.mat: found Z, expected a cell X of views"),
        ("broken.mat", "broken.mat: expected a MATLAB file"),
        ("new.mat", "new.mat: found MATLAB 7.3"),
        ("gone.mat", "gone.mat: found no such file"),
        ("gone.csv", "gone.csv: expected a .mat, a .npz or a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            read_views(tmp_path / name)
