import collections
import os
import pickle

import numpy as np
import pytest

from jaxmodels.data.query_files import Lists, Queries, QueryData, empty_lists, read_queries, write_queries
from jaxmodels.data.query_folder import read_query_folder
from jaxmodels.data.query_structures import STRUCTURES, flatten, letters, name_of, structure_of

TOKENS = {  # entity ids below 6, relation ids below 4
    "1p": [1, 2],
    "2p": [1, 2, 3],
    "3p": [1, 2, 3, 0],
    "2i": [1, 2, 5, 3],
    "3i": [1, 2, 5, 3, 4, 0],
    "ip": [1, 2, 5, 3, 0],
    "pi": [1, 2, 3, 5, 0],
    "2in": [1, 2, 5, 3, -2],
    "3in": [1, 2, 5, 3, 4, 0, -2],
    "inp": [1, 2, 5, 3, -2, 0],
    "pin": [1, 2, 3, 5, 0, -2],
    "pni": [1, 2, 3, -2, 5, 0],
    "2u-DNF": [1, 2, 5, 3, -1],
    "up-DNF": [1, 2, 5, 3, -1, 0],
    "2u-DM": [1, 2, -2, 5, 3, -2, -2],
    "up-DM": [1, 2, -2, 5, 3, -2, -2, 0],
}


def nested(structure, tokens):
    """The query of a row of tokens."""
    rest = iter(tokens)

    def fill(part):
        return tuple(fill(inner) if isinstance(inner, tuple) else next(rest) for inner in part)

    return fill(structure)


def lists(*rows):
    return Lists(np.cumsum([0, *map(len, rows)]).astype(np.int32), np.array([i for row in rows for i in row], np.int32))


def made(tokens, easy, hard):
    return Queries(np.array(tokens, np.int32), easy, hard)


DATA = QueryData(
    entities=tuple("abcdef"),
    relations=("likes", "knows"),
    train={"1p": made([[0, 1], [1, 2]], empty_lists(2), lists([3, 5], [0]))},
    valid={name: made([row], lists([0, 2]), lists([4])) for name, row in TOKENS.items()},
    test={"2in": made([TOKENS["2in"], [2, 0, 3, 1, -2]], lists([], [1]), lists([3, 4], [0]))},
)


def same(a, b):
    assert (a.entities, a.relations) == (b.entities, b.relations)
    for split in ("train", "valid", "test"):
        of_a, of_b = getattr(a, split), getattr(b, split)
        assert of_a.keys() == of_b.keys()
        for name in of_a:
            for x, y in zip(of_a[name].easy + of_a[name].hard, of_b[name].easy + of_b[name].hard, strict=True):
                np.testing.assert_array_equal(x, y, strict=True)
            np.testing.assert_array_equal(of_a[name].tokens, of_b[name].tokens, strict=True)


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_has_its_tokens(name):
    query = nested(STRUCTURES[name], TOKENS[name])
    assert flatten(name, query) == TOKENS[name] and name_of(STRUCTURES[name]) == name
    marks = {"e": (0, 6), "r": (0, 4), "n": (-2, -1), "u": (-1, 0)}
    assert all(
        token in range(*marks[kind]) for kind, token in zip(letters(STRUCTURES[name]), TOKENS[name], strict=True)
    )
    for wrong in ((query,), query[:-1], [*query], (*query[:-1], 1.5)):
        with pytest.raises(ValueError, match="expected the nesting of"):
            flatten(name, wrong)


def test_an_unknown_structure_is_named_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"structure \(\('e', \('r',\)\), \('e', \('r', 'm'\)\)\): .*did you mean 2in = "
    ):
        name_of((("e", ("r",)), ("e", ("r", "m"))))
    with pytest.raises(ValueError, match=r"structure \['e'\]: expected one of 1p, 2p"):
        name_of(["e"])
    with pytest.raises(ValueError, match="no query structure '2u-DFN'; did you mean '2u-D"):
        structure_of("2u-DFN")


def test_our_own_file_comes_back(tmp_path):
    file = tmp_path / "queries.npz"
    write_queries(file, DATA)
    same(read_queries(file), DATA)
    some = read_queries(file, splits=("test",))
    assert not some.train and not some.valid and some.test.keys() == {"2in"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["queries.npz"]
    with np.load(file) as stored:
        assert stored["train/1p/answers_idx"].tolist() == [3, 5, 0] and "train/1p/easy_idx" not in stored
        assert stored["test/2in/hard_ptr"].dtype == np.int32 and stored["n_relation"] == 4
    with pytest.raises(ValueError, match="split 'val': expected one of train, valid, test"):
        read_queries(file, splits=("val",))


@pytest.mark.parametrize(
    "split, name, queries, complaint",
    [
        ("test", "2x", made([[0, 1]], lists([]), lists([1])), "no query structure '2x'"),
        ("test", "2p", made([[0, 1]], lists([]), lists([1])), r"expected \(n, 3\) tokens of 2p, found \(1, 2\)"),
        (
            "test",
            "1p",
            made([[0, 1], [6, 1]], lists([], []), lists([1], [1])),
            "query 1 has entity 6 at 0; expected 0 to 5",
        ),
        ("test", "1p", made([[0, 4]], lists([]), lists([1])), "query 0 has relation 4 at 1; expected 0 to 3"),
        ("test", "2in", made([[1, 2, 5, 3, -1]], lists([]), lists([1])), "query 0 has negation -1 at 4; expected -2"),
        ("test", "2u-DNF", made([[1, 2, 5, 3, -2]], lists([]), lists([1])), "has union -2 at 4; expected -1"),
        ("test", "1p", made([[0, 1]], lists([]), lists([1], [2])), "expected 1 lists of answers"),
        ("test", "1p", made([[0, 1]], lists([]), lists([6])), "answers 6 to 6; expected entities 0 to 5"),
        ("test", "1p", made([[0, 1]], lists([]), lists([2, 1])), "expected rising answers"),
        ("test", "1p", made([[0, 1]], lists([]), lists([2, 2])), "expected rising answers"),
        ("test", "1p", made([[0, 1], [1, 1]], lists([2], [3]), lists([3], [2, 3])), "query 1 has entity 3 among both"),
        ("train", "1p", made([[0, 1]], lists([2]), lists([3])), "expected no easy answers"),
    ],
)
def test_what_is_wrong_is_not_written(tmp_path, split, name, queries, complaint):
    file = tmp_path / "queries.npz"
    write_queries(file, DATA)
    with pytest.raises(ValueError, match=complaint):
        write_queries(file, DATA._replace(**{split: {name: queries}}))
    same(read_queries(file), DATA)


def test_a_write_that_fails_leaves_the_older_file(tmp_path, monkeypatch):
    file = tmp_path / "queries.npz"
    write_queries(file, DATA)

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space left"):
        write_queries(file, DATA._replace(test={}))
    same(read_queries(file), DATA)
    assert [entry.name for entry in tmp_path.iterdir()] == ["queries.npz"]


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"test/2nn/queries": np.zeros((1, 5), int)}, "no query structure '2nn'; did you mean"),
        ({"test/2in/easy_ptr": None}, "no array 'test/2in/easy_ptr'; did you mean"),
        ({"test/2in/easy_ptr": np.array([0, 2, 1])}, "test/2in: expected 2 lists of answers"),
        ({"test/2in/hard_idx": np.array([3, 9, 0])}, "test/2in: answers 0 to 9"),
        ({"test/2in/queries": np.zeros((2, 5))}, "test/2in: expected integer tokens, found float64"),
        ({"n_entity": np.int32(7)}, "n_entity=7, n_relation=4; expected 6 and 4"),
        ({"entities": None}, "no array 'entities'"),
    ],
)
def test_a_stored_file_that_does_not_fit_is_refused(tmp_path, change, complaint):
    file = tmp_path / "queries.npz"
    write_queries(file, DATA)
    with np.load(file) as stored:
        arrays = dict(stored) | change
    np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=f"queries.npz: .*{complaint}") as error:
        read_queries(file)
    assert "\n" not in str(error.value)


def query_folder(folder, data=DATA, **changes):
    """The published layout of the same data; easy answers that are empty are left out, as a defaultdict would."""
    files = {
        "id2ent": dict(enumerate(data.entities)),
        "id2rel": {2 * i + k: sign + name for i, name in enumerate(data.relations) for k, sign in enumerate("+-")},
    }
    for split in ("train", "valid", "test"):
        queries, easy, hard = (collections.defaultdict(set) for _ in range(3))
        for name, found in getattr(data, split).items():
            for i, row in enumerate(found.tokens.tolist()):
                query = nested(STRUCTURES[name], row)
                queries[STRUCTURES[name]].add(query)
                for answers, part in ((easy, found.easy), (hard, found.hard)):
                    listed = part.idx[part.ptr[i] : part.ptr[i + 1]].tolist()
                    answers.update({query: set(listed)} if listed else {})
        files[f"{split}-queries"] = queries
        files |= (
            {"train-answers": hard}
            if split == "train"
            else {f"{split}-easy-answers": easy, f"{split}-hard-answers": hard}
        )
    folder.mkdir(exist_ok=True)
    (folder / "stats.txt").write_text("numentity: 6\nnumrelations: 4\n")
    for name, value in (files | changes).items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(value))
    return folder


def test_the_published_folder_holds_the_same(tmp_path):
    same(read_query_folder(query_folder(tmp_path)), DATA)
    some = read_query_folder(tmp_path, splits=("valid",))
    assert some.valid.keys() == STRUCTURES.keys() and not some.train and not some.test


def test_relations_of_other_names_stay_as_they_are(tmp_path):
    folder = query_folder(tmp_path, id2rel={0: "likes", 1: "likes_inverse", 2: "+a", 3: "-b"})
    assert read_query_folder(folder, splits=()).relations == ("likes", "+a")


class Payload:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    "change, complaint",
    [
        (
            {"test-queries": {("e", ("r", "x")): {(1, (2, 3))}}},
            r"structure \('e', \('r', 'x'\)\): .*did you mean 2p = ",
        ),
        ({"test-queries": {("e", ("r",)): {(1, 2)}}}, r"test-queries.pkl: query \(1, 2\): expected the nesting of 1p"),
        ({"test-queries": {("e", ("r",)): {("1", (2,))}}}, "expected the nesting of 1p"),
        ({"test-queries": {("e", ("r",)): {(6, (2,))}}, "test-hard-answers": {(6, (2,)): {1}}}, "entity 6 at 0"),
        ({"test-queries": {("e", ("r",)): {(2**70, (2,))}}}, "expected integer tokens"),
        ({"test-queries": {("e", ("r",)): 5}}, "test-queries.pkl: 'int' object is not iterable"),
        ({"test-queries": [1]}, "test-queries.pkl: expected a dict, found list"),
        ({"test-hard-answers": {}}, r"test-hard-answers.pkl: expected a set of entity ids for the query .*no answers"),
        (
            {"test-hard-answers": {nested(STRUCTURES["2in"], [1, 2, 5, 3, -2]): [1]}},
            r"test-hard-answers.pkl: .*found \[1\]",
        ),
        ({"test-easy-answers": {nested(STRUCTURES["2in"], [1, 2, 5, 3, -2]): {2**70}}}, "expected entities 0 to 5"),
        ({"test-easy-answers": {nested(STRUCTURES["2in"], [1, 2, 5, 3, -2]): {3}}}, "entity 3 among both"),
        ({"train-queries": Payload()}, "train-queries.pkl: .*refused 'posix.system'"),
        ({"id2ent": {0: "a"}}, "id2ent.pkl: expected names of the ids 0 to 5 of stats.txt, found 1 entries"),
    ],
)
def test_a_published_folder_that_does_not_fit_is_refused(tmp_path, monkeypatch, change, complaint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=complaint) as error:
        read_query_folder(query_folder(tmp_path / "kg", **change))
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists()


def test_missing_files_and_counts_are_named(tmp_path):
    folder = query_folder(tmp_path)
    (folder / "test-easy-answers.pkl").unlink()
    with pytest.raises(ValueError, match=r"expected test-easy-answers.pkl \(query -> answers\), found id2ent.pkl"):
        read_query_folder(folder)
    (folder / "stats.txt").write_text("numentity: 6\n")
    with pytest.raises(ValueError, match="stats.txt: expected 'numentity: N' and 'numrelations: R'"):
        read_query_folder(folder)
    (folder / "stats.txt").write_text("numentity: 6\nnumrelations: 3\n")
    (folder / "id2rel.pkl").write_bytes(pickle.dumps({0: "a", 1: "b", 2: "c"}))
    with pytest.raises(ValueError, match="3 relations; expected an even number"):
        read_query_folder(folder)
