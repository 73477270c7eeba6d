import collections
import copyreg
import os
import pickle
import struct

import numpy as np
import pytest
import scipy.sparse

from jaxmodels.data.restricted_pickle import load_pickle

PLAIN = {
    "id": [1, -2, 2**80, 1.5, True, None, "é", b"\x00\xff", b"", ""],
    ("e", ("r",)): {(3, (4,)), (5, (6,))},
    7: (frozenset({1, "a"}), set(), {}, [], ()),
    "shared": [["x"]] * 2,
}


@pytest.fixture
def written(tmp_path):
    def write(data):
        file = tmp_path / "data.pkl"
        file.write_bytes(data)
        return file

    return write


class Calls:
    """Pickles as `function(*args)`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def refused(file, match, **options):
    with pytest.raises(ValueError, match=match) as error:
        load_pickle(file, **options)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers_come_back(written, protocol):
    for arrays in (False, True):
        assert load_pickle(written(pickle.dumps(PLAIN, protocol)), arrays=arrays) == PLAIN


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("factory", [set, list, int, dict, None])
def test_a_defaultdict_is_a_plain_dict(written, protocol, factory):
    data = collections.defaultdict(factory, {(1, (2,)): {3}})
    found = load_pickle(written(pickle.dumps(data, protocol)))
    assert type(found) is dict and found == data


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["f4", ">f8", "i1", "<i8", "u2", "?", "c8", "S3", "U2"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4)])
def test_arrays_come_back_on_request(written, protocol, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    for order in (array, np.asfortranarray(array)):
        file = written(pickle.dumps({"a": [order, order]}, protocol))
        for found in load_pickle(file, arrays=True)["a"]:
            assert type(found) is np.ndarray and found.dtype == array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found, array)
            assert found.flags.writeable
        refused(file, "refused 'numpy.*as arrays were not asked for")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_csr_matrices_come_back_on_request(written, protocol):
    matrix = scipy.sparse.csr_matrix(np.array([[0, 1.5, 0], [2, 0, 0]], np.float32))
    file = written(pickle.dumps(matrix, protocol))
    found = load_pickle(file, arrays=True)
    assert isinstance(found, scipy.sparse.csr_matrix) and found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), matrix.toarray())
    refused(file, "refused 'scipy.sparse._csr.csr_matrix', as arrays were not asked for")


def python2_array(data: bytes, shape: int, dtype: bytes = b"i4") -> bytes:
    """What Python 2 wrote for a vector: its bytes as a `str`."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"K%c\x85cnumpy\ndtype\nU%c%sK\x00K\x01\x87R" % (shape, len(dtype), dtype)
        + b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U%c%stb" % (len(data), data)
    )


def python2_csr(indices: bytes, indptr: bytes, columns: int = 3) -> bytes:
    return (
        b"\x80\x02cscipy.sparse.csr\ncsr_matrix\n)\x81}(U\x06_shapeK\x02K%c\x86" % columns
        + b"U\x04data" + python2_array(b"\x05\0\0\0\x00\x01\0\0", 2)
        + b"U\x07indices" + python2_array(indices, 2)
        + b"U\x06indptr" + python2_array(indptr, 3)
        + b"ub."
    )  # fmt: skip


def int32(*values):
    return struct.pack(f"<{len(values)}i", *values)


def test_the_arrays_of_python_2_come_back(written):
    found = load_pickle(written(b"\x80\x02" + python2_array(int32(200, -7), 2) + b"."), arrays=True)
    assert found.dtype == np.int32 and found.tolist() == [200, -7]
    found = load_pickle(written(python2_csr(int32(1, 0), int32(0, 1, 2))), arrays=True)
    assert found.toarray().tolist() == [[0, 5, 0], [256, 0, 0]]
    assert load_pickle(written(b"\x80\x02U\x01\xe9."), arrays=True) == "é"


def test_a_matrix_that_does_not_fit_is_refused(written):
    refused(written(python2_csr(int32(1, 3), int32(0, 1, 2))), "columns 1 to 3, some outside", arrays=True)
    refused(written(python2_csr(int32(1, -1), int32(0, 1, 2))), "columns -1 to 1, some outside", arrays=True)
    for starts in ((1, 1, 2), (0, 1, 3), (0, 3, 2)):
        refused(written(python2_csr(int32(1, 0), int32(*starts))), "row starts do not fit", arrays=True)
    refused(written(b"\x80\x02" + python2_array(int32(1), 2) + b"."), "found 4 bytes", arrays=True)
    refused(written(b"\x80\x02cscipy.sparse.csr\ncsr_matrix\n)\x81."), "CSR matrix of shape NoneType", arrays=True)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "payload, name",
    [
        (Calls(os.system, "touch ran"), "(posix|nt).system"),
        (Calls(eval, "open('ran', 'w')"), "(builtins|__builtin__).eval"),
        (Calls(getattr, "", "format"), "getattr"),
        (Calls(collections.Counter, "ab"), "collections.Counter"),
        (Calls(collections.OrderedDict), "collections.OrderedDict"),
        (complex(1, 2), "complex"),
        (os.path.join, "join"),
        (np.random.default_rng, "default_rng"),
    ],
)
def test_what_is_not_on_the_list_is_refused_and_not_run(written, tmp_path, monkeypatch, payload, name, protocol):
    monkeypatch.chdir(tmp_path)
    for value in (payload, [{"deep": (payload,)}]):
        for arrays in (False, True):
            refused(written(pickle.dumps(value, protocol)), f"refused '.*{name}'", arrays=arrays)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data, what",
    [
        (b"\x80\x04\x8c\x08builtins\x8c\x0cset.__init__\x93.", "refused 'builtins.set.__init__'"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0emarray.os.path\x93.", "refused 'numpy.marray.os.path'"),
        (b"cos\nsystem\n(S'touch ran'\ntR.", "refused 'os.system'"),
        (b"(S'touch ran'\nios\nsystem\n.", "refused opcode INST"),
        (b"(cos\nsystem\nS'touch ran'\no.", "refused opcode OBJ"),
        (b"Psome id\n.", "refused opcode PERSID"),
        (b"K\x01Q.", "refused opcode BINPERSID"),
        (b"\x80\x02\x82\xf0.", "refused opcode EXT1"),
        (b"\x80\x05\x97.", "refused opcode NEXT_BUFFER"),
        (b"c__builtin__\nset\n}S'_make'\nK\x01sb.", "refused to change a constructor"),
        (b"c__builtin__\nset\nN}S'_make'\nK\x01s\x86b.", "refused to change a constructor"),
        (b"c__builtin__\nset\n.", "a constructor where data were expected"),
        (b"]c__builtin__\nset\na.", "a constructor where data were expected"),
        (b"}c__builtin__\nset\nK\x01s.", "unhashable"),
        (b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.", "takes 0 positional"),
        (b"c__builtin__\nset\nX\x02\x00\x00\x00ab\x85R.", "a set of str"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00rot\x86R.", "refused '_codecs.encode'"),
        (b"K\x01)R.", "not callable"),
        (b"]r\xff\xff\xff\xff.", "memo number 4294967295"),
        (b"]p4000000000\n.", "memo number 4000000000"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00.", "truncated"),
        (b"", "truncated"),
        (b"K\x01", "truncated"),
        (b"S'no end", "truncated"),
        (b"cos\n", "truncated"),
        (b"K\x01.K", "1 bytes follow its end"),
        (b"\xffabc", "no opcode 255"),
        (b"version https://git-lfs.github.com/spec/v1\n", "no opcode 110|expected a pickle"),
        (b"a.", "expected a pickle of plain data"),
        (b"h\x05.", "Memo value not found"),
    ],
)
def test_every_other_way_out_is_closed(written, tmp_path, monkeypatch, data, what):
    monkeypatch.chdir(tmp_path)
    refused(written(data), what)
    refused(written(data), what, arrays=True)
    assert not (tmp_path / "ran").exists()


def test_an_extension_code_is_refused_even_when_the_process_knows_it(written):
    copyreg.add_extension("posix", "system", 240)
    try:
        data = pickle.dumps(os.system, 2)
        assert pickle.loads(data) is os.system  # and is now in the cache of extensions  # noqa: S301
        refused(written(data), "refused opcode EXT1")
    finally:
        copyreg.remove_extension("posix", "system", 240)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.array([{}, None], object),
        np.zeros(2, [("a", "i4"), ("b", "O")]),
        np.zeros(2, [("a", "i4")]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, "V3"),
    ],
    ids=str,
)
def test_arrays_of_objects_and_records_are_refused(written, array, protocol):
    refused(written(pickle.dumps(array, protocol)), "refused", arrays=True)


def test_every_cut_of_a_good_file_is_one_error(written):
    for value, arrays in ((PLAIN, False), (scipy.sparse.csr_matrix(np.eye(2)), True)):
        for protocol in (2, 4, 5):
            data = pickle.dumps(value, protocol)
            for length in range(0, len(data), 3):
                refused(written(data[:length]), "expected a pickle of plain data", arrays=arrays)


def test_a_damaged_file_is_an_error_or_other_data_but_never_a_crash(written):
    data = bytearray(pickle.dumps({"a": np.arange(9), "b": PLAIN}, 4))
    generator = np.random.default_rng(0)
    for _ in range(300):
        damaged = data.copy()
        damaged[generator.integers(len(data))] = generator.integers(256)
        try:
            load_pickle(written(bytes(damaged)), arrays=True)
        except ValueError as error:
            assert "\n" not in str(error)


def test_bombs_are_refused_or_stay_small(written):
    laughs: list = ["ha"]
    for _ in range(40):
        laughs = [laughs] * 10
    found = load_pickle(written(pickle.dumps(laughs, 4)))  # 10 ** 40 lines, of 41 lists
    assert found[0] is found[9]
    for _ in range(40):
        laughs = [laughs]
    refused(written(pickle.dumps(laughs, 4)), "nested deeper than 64")
    refused(written(b"\x80\x02]q\x00h\x00a."), "nested deeper than 64, or one that holds itself")
    refused(written(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."), "nested deeper")
    refused(written(pickle.dumps(list(range(99)))), "limit of 50", max_bytes=50)


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "none.pkl", "found no such file")
    refused(tmp_path, "expected a pickle")
