import numpy as np
import pytest

from jaxmodels.data.triples import divided_graph, knowledge_graph, numbered_triples, read_triples
from tests.data.graph_folders import write

TRAIN = "001\tlikes\tbob\n1\tis/a.b\t001\n001\tlikes\tbob\nbob\tlikes\tbob\n"


def folder(tmp_path, suffix=".txt", **changes):
    files = {"train": TRAIN, "valid": "bob\tlikes\t1\nbob\tlikes\teve\n", "test": "1\thates\tbob\n1\tlikes\tbob\n\n"}
    for name, text in (files | changes).items():
        write(tmp_path / f"{name}{suffix}", text)
    return tmp_path


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_names_are_numbered_as_training_names_them(tmp_path, suffix):
    graph = knowledge_graph(folder(tmp_path, suffix))
    assert graph.entities == ("001", "bob", "1") and graph.relations == ("likes", "is/a.b")
    assert graph.train.tolist() == [[0, 0, 1], [2, 2, 0], [1, 0, 1]] and graph.train.dtype == np.int32
    assert graph.valid.tolist() == [[1, 0, 2]] and graph.test.tolist() == [[2, 0, 1]]
    assert graph.dropped == {"train": 0, "valid": 1, "test": 1}
    assert graph.duplicates == {"train": 1, "valid": 0, "test": 0}
    assert graph.num_relations == 4


def test_splits_may_be_empty_after_dropping(tmp_path):
    graph = knowledge_graph(folder(tmp_path, valid="eve\tlikes\teve\n"))
    assert graph.valid.shape == (0, 3) and graph.dropped["valid"] == 1


@pytest.mark.parametrize(
    "line, shown",
    [
        ("bob\tlikes", "bob<TAB>likes"),
        ("bob likes 1", "bob likes 1"),
        ("bob\tlikes\t1\t2", "bob<TAB>likes<TAB>1<TAB>2"),
        ("bob\t\t1", "bob<TAB><TAB>1"),
    ],
)
def test_a_line_without_three_names_is_named(tmp_path, line, shown):
    with pytest.raises(ValueError, match="valid.txt:3: expected 'head<TAB>relation<TAB>tail', found '") as error:
        knowledge_graph(folder(tmp_path, valid=f"1\tlikes\tbob\n\n{line}\n"))
    assert f"found '{shown}'" in str(error.value)


def test_a_missing_or_empty_file_is_named(tmp_path):
    (folder(tmp_path) / "test.txt").unlink()
    with pytest.raises(
        ValueError, match="expected test.txt or test.txt.gz .triples, tab-separated., found train.txt, valid"
    ):
        knowledge_graph(tmp_path)
    with pytest.raises(ValueError, match="train.txt: .*found no line"):
        knowledge_graph(folder(tmp_path, train="\n"))
    with pytest.raises(ValueError, match="none.txt: found no such file"):
        read_triples(tmp_path / "none.txt")


def test_ids_are_read_as_they_are(tmp_path):
    file = write(tmp_path / "train.txt", "3\t1\t0\n0\t0\t3\n3\t1\t0\n")
    assert numbered_triples(file, num_entities=4, num_relations=2).tolist() == [[3, 1, 0], [0, 0, 3]]
    for sizes in ((3, 2), (4, 1)):
        with pytest.raises(ValueError, match=r"train.txt: triple 0 is \[3, 1, 0\]; expected entities below"):
            numbered_triples(file, num_entities=sizes[0], num_relations=sizes[1])
    with pytest.raises(ValueError, match="train.txt:2: expected 3 integers, found 'a"):
        numbered_triples(write(file, "1\t0\t1\na\t0\t1\n"), num_entities=4, num_relations=2)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\tr\tb\n")
    assert read_triples(tmp_path / "a.txt") == [("a", "r", "b")]


def test_one_file_is_divided_and_leaves_no_name_without_a_triple(tmp_path):
    every = [(f"e{i}", f"r{i % 3}", f"e{(i * 7 + 1) % 40}") for i in range(40)] * 2
    every += [(f"e{i}", "r0", f"e{i + 1}") for i in range(30)]
    file = tmp_path / "all.tsv"
    file.write_text("".join("\t".join(each) + "\n" for each in every))
    graph = divided_graph(file, share=0.1, seed=3)
    named = {
        split: [(graph.entities[h], graph.relations[r // 2], graph.entities[t]) for h, r, t in getattr(graph, split)]
        for split in ("train", "valid", "test")
    }
    together = [each for part in named.values() for each in part]
    assert sorted(together) == sorted(set(every)) and len(named["valid"]) == len(named["test"]) == len(set(every)) // 10
    assert graph.dropped == {"train": 0, "valid": 0, "test": 0}
    assert graph.duplicates["train"] == len(every) - len(set(every))
    again = divided_graph(file, share=0.1, seed=3)
    assert all((getattr(graph, s) == getattr(again, s)).all() for s in named)
    assert divided_graph(file, share=0.1, seed=4).entities != graph.entities
    with pytest.raises(ValueError, match="held_out: found 0.5, expected above 0 and below 0.5"):
        divided_graph(file, share=0.5)
    file.write_text("a\tr\tb\n")
    with pytest.raises(ValueError, match="all.tsv: its 1 triples are too few to hold out 0.1 of them twice"):
        divided_graph(file)
