import numpy as np
import pytest

from jaxmodels.data.graph_gin import gin_graphs
from jaxmodels.data.graph_ogb import ogb_graphs, ogb_nodes
from jaxmodels.data.graph_tu import tu_graphs
from tests.data.graph_folders import GIN, OGB_GRAPHS, OGB_NODES, gin_files, ogb_files, tu_files, write


def pairs(graph):
    return list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))


def more_tu(folder, **changes):
    """The two graphs twice, so that each class has two members."""
    tu_files(folder)
    for part in ("A", "graph_indicator", "graph_labels", "node_labels", "node_attributes", "edge_labels"):
        file = folder / f"{folder.name}_{part}.txt"
        shift = {"A": 5, "graph_indicator": 2}.get(part, 0)
        lines = file.read_text().splitlines()
        if shift:
            lines += [", ".join(str(int(n) + shift) for n in line.split(",")) for line in lines]
        else:
            lines *= 2
        file.write_text("\n".join(lines) + "\n")
    return tu_files_changed(folder, changes)


def tu_files_changed(folder, changes):
    for part, text in changes.items():
        file = folder / f"{folder.name}_{part}.txt"
        file.unlink() if text is None else file.write_text(text)
    return folder


def test_tu_files_become_graphs(tmp_path):
    data = tu_graphs(more_tu(tmp_path / "DS"), folds=2)
    assert len(data.graphs) == 4 and data.labels.tolist() == [1, 0, 1, 0] and data.num_classes == 2
    first, second = data.graphs[:2]
    assert first.x.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]] and second.x.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert pairs(first) == [(0, 1), (1, 0), (1, 2), (2, 1)] and pairs(second) == [(0, 1), (1, 0)]
    assert pairs(data.graphs[2]) == pairs(first) and first.edge_features is None
    assert sorted(np.concatenate([split.test for split in data.splits])) == [0, 1, 2, 3]


def test_tu_attributes_edge_labels_and_degrees(tmp_path):
    folder = more_tu(tmp_path / "DS")
    (folder / "raw").mkdir()
    for file in folder.glob("*.txt"):
        file.rename(folder / "raw" / file.name)
    data = tu_graphs(folder, attributes=True, edge_labels=True, folds=2)
    assert data.graphs[1].x.tolist() == [[1, 0, 0, 3.5, 1], [0, 0, 1, 4.5, 1]]
    assert data.graphs[0].edge_features.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert data.graphs[1].edge_features.tolist() == [[1, 0], [1, 0]]
    (folder / "raw/DS_node_labels.txt").unlink()
    assert tu_graphs(folder / "raw", name="DS", folds=2).graphs[0].x.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    "part, text, complaint",
    [
        ("A", "1, 2\n2, 11\n", "DS_A.txt:2: edge 2, 11; expected nodes 1 to 10"),
        ("A", "0, 2\n", "DS_A.txt:1: edge 0, 2"),
        ("A", "1, 2\n3, 4\n", "DS_A.txt:2: edge 3, 4; its nodes are of two graphs"),
        ("A", "1, 2\n3\n", "DS_A.txt:2: expected 2 integers, found '3'"),
        ("A", None, r"expected DS_A.txt \(of the TU text format\), found DS_edge_labels.txt"),
        ("graph_indicator", "1\n2\n1\n", "DS_graph_indicator.txt:3: graph 1 after 2"),
        ("graph_indicator", "1\n2\n4\n", "DS_graph_indicator.txt: graph 3 has no nodes"),
        ("graph_indicator", "1\n2\n3\n5\n", "DS_graph_indicator.txt:4: graph 5; expected 1 to 4"),
        ("graph_labels", "", "DS_graph_indicator.txt:1: graph 1; expected 1 to 0"),
        ("node_labels", "1\n2\n", "DS_node_labels.txt: expected 10 lines, found 2"),
        ("node_attributes", "1\n" * 4 + "nan\n" * 6, "DS_node_attributes.txt: features of row 4 hold NaN"),
        ("edge_labels", "1\n", "DS_edge_labels.txt: expected 14 lines, found 1"),
    ],
)
def test_tu_files_that_do_not_fit_are_refused(tmp_path, part, text, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        tu_graphs(more_tu(tmp_path / "DS", **{part: text}), attributes=True, edge_labels=True, folds=2)
    assert "\n" not in str(error.value)


def test_gin_text_becomes_graphs_with_its_folds(tmp_path):
    data = gin_graphs(gin_files(tmp_path / "MINI"))
    assert data.labels.tolist() == [1, 0] and data.num_classes == 2
    assert data.graphs[0].x.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]
    assert data.graphs[1].x.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert pairs(data.graphs[0]) == [(0, 1), (1, 0), (1, 2), (2, 1)]
    assert pairs(data.graphs[1]) == [(0, 1), (1, 0)]  # the file names it in one direction
    assert len(data.splits) == 10 and [part.tolist() for part in data.splits[9]] == [[1], [], [0]]


def test_gin_degrees_and_attributes(tmp_path):
    folder = gin_files(tmp_path / "MINI")
    assert gin_graphs(folder, degrees=True).graphs[0].x.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]
    one_tag = gin_files(tmp_path / "ONE", GIN.replace("\n4 1", "\n0 1").replace("7 0", "0 0"))
    assert gin_graphs(one_tag).graphs[0].x.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert gin_graphs(one_tag, degrees=False).graphs[0].x.tolist() == [[1], [1], [1]]
    rich = gin_files(tmp_path / "RICH", "1\n2 0\n0 1 1 0.5 2\n1 0 -1 3\n", ("0\n", ""))
    assert gin_graphs(rich, attributes=True).graphs[0].x.tolist() == [[1, 0, 0.5, 2], [0, 1, -1, 3]]
    with pytest.raises(ValueError, match="MINI.txt: expected as many attributes for every node, found 0"):
        gin_graphs(folder, attributes=True)
    gin_files(rich, "1\n2 0\n0 1 1 nan 2\n1 0 -1 3\n")
    with pytest.raises(ValueError, match="features of row 0 hold NaN"):
        gin_graphs(rich, attributes=True)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "MINI.txt:1: expected the number of graphs, found ''"),
        ("two\n", "MINI.txt:1: expected the number of graphs, found 'two'"),
        (GIN.replace("2\n3 1", "3\n3 1"), "MINI.txt: ends after 2 of 3 graphs"),
        (GIN[:-4], "MINI.txt: ends within graph 1 of 2, after 1 of 2 nodes"),
        (GIN.replace("2\n3 1", "1\n3 1"), "MINI.txt:6: expected the end after 1 graphs"),
        (GIN.replace("2 -1", "2"), "MINI.txt:6: expected 'nodes class', found '2'"),
        (GIN.replace("0 2 0 2", "0 2 0"), "MINI.txt:4: expected 2 neighbours, found '0'"),
        (GIN.replace("0 2 0 2", "0 2 0 3"), "MINI.txt:4: neighbours 0 to 3; expected 0 to 2"),
        (GIN.replace("0 2 0 2", "0 -2 0 2"), "MINI.txt:4: expected -2 neighbours"),
        (GIN.replace("0 2 0 2", "0 2 0 x"), "MINI.txt:4: expected 2 neighbours, found '0 x'"),
        (GIN.replace("7 0", "7"), "MINI.txt:8: expected 'tag number-of-neighbours neighbours', found '7'"),
        (GIN.replace("2 -1", "0 -1"), "MINI.txt:6: graph 1 has 0 nodes; expected at least one"),
    ],
)
def test_a_gin_line_that_is_wrong_is_named(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        gin_graphs(gin_files(tmp_path / "MINI", text))


def test_gin_folds_that_overlap_or_are_missing_are_refused(tmp_path):
    folder = gin_files(tmp_path / "MINI", folds=("0\n1\n", "0\n"))
    with pytest.raises(ValueError, match="fold 1: train and test share 1 indices"):
        gin_graphs(folder)
    gin_files(folder, folds=("0\n", "2\n"))
    with pytest.raises(ValueError, match="fold 1: test index 2; expected 0 to 1"):
        gin_graphs(folder)
    gin_files(folder)
    (folder / "10fold_idx/test_idx-4.txt").unlink()
    with pytest.raises(ValueError, match="expected test_idx-4.txt"):
        gin_graphs(folder)


def test_ogb_tables_become_graphs(tmp_path):
    folder = ogb_files(tmp_path / "ogbg_mini", OGB_GRAPHS)
    data = ogb_graphs(folder, metric="average_precision", reverse=True, categorical=True)
    assert [len(graph.x) for graph in data.graphs] == [3, 2, 1] and data.graphs[1].x.tolist() == [[7, 8], [9, 10]]
    assert data.graphs[0].x.dtype == np.int32
    assert pairs(data.graphs[0]) == [(0, 1), (1, 0), (1, 2), (2, 1)] and pairs(data.graphs[2]) == []
    assert data.graphs[0].edge_features.tolist() == [[0], [0], [1], [1]]
    assert data.graphs[1].edge_features.tolist() == [[2], [2]]
    nan = np.nan
    np.testing.assert_array_equal(data.labels, np.float32([[1, nan, 0], [nan, 1, nan], [nan, nan, 1]]))
    assert data.num_classes == 3 and data.metric == "average_precision"
    assert [part.tolist() for part in data.splits[0]] == [[0], [1], [2]]
    once = ogb_graphs(folder, metric="roc_auc", reverse=False)
    assert once.graphs[0].x.dtype == np.float32 and pairs(once.graphs[1]) == [(1, 0)]


def test_ogb_tables_become_a_graph_of_nodes(tmp_path):
    folder = ogb_files(tmp_path / "ogbn_mini", OGB_NODES)
    data = ogb_nodes(folder, metric="accuracy", reverse=False)
    assert data.x.tolist() == [[0.5, 1], [1.5, 1], [2.5, 1], [3.5, 1]] and data.labels.tolist() == [3, 0, 1, 3]
    assert data.senders.tolist() == [0, 1, 2] and data.receivers.tolist() == [1, 2, 2] and data.num_classes == 4
    assert [part.tolist() for part in data.splits[0]] == [[0, 2], [1], [3]] and data.edge_features is None
    assert len(ogb_nodes(folder, metric="accuracy", reverse=True).senders) == 5
    assert ogb_nodes(folder, metric="mae", reverse=True).labels.shape == (4, 1)
    ogb_files(folder, {"raw/node_species.csv": "9\n4\n9\n7\n", "split/other/train.csv": "0\n"})
    (folder / "raw/node-feat.csv").unlink()
    species = ogb_nodes(folder, metric="accuracy", reverse=False, split="time")
    assert species.x.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]
    with pytest.raises(ValueError, match="split: expected the folder of one split; found several, of other, time"):
        ogb_nodes(folder, metric="accuracy", reverse=False)
    with pytest.raises(ValueError, match="found no 'tine', of other, time"):
        ogb_nodes(folder, metric="accuracy", reverse=False, split="tine")
    with pytest.raises(ValueError, match="metric='auc': expected one of accuracy"):
        ogb_nodes(folder, metric="auc", reverse=False)


@pytest.mark.parametrize(
    "name, text, complaint",
    [
        ("raw/edge.csv.gz", "0,1\n1,3\n1,0\n", "edge.csv.gz:2: edge 1,3 of graph 0, which has 3 nodes"),
        ("raw/edge.csv.gz", "0,1\n1,2\n", "edge.csv.gz: expected 3 rows, found 2"),
        ("raw/edge.csv.gz", None, r"expected edge.csv.gz or edge.csv \(of the extracted OGB archive\)"),
        ("raw/num-node-list.csv.gz", "4\n2\n0\n", "num-node-list.csv.gz: graph 2 has 0; expected at least 1"),
        ("raw/num-edge-list.csv.gz", "4\n-1\n0\n", "num-edge-list.csv.gz: graph 1 has -1"),
        ("raw/num-edge-list.csv.gz", "3\n", "num-edge-list.csv.gz: expected 3 rows, found 1"),
        ("raw/node-feat.csv.gz", "1,2\n" * 5, "node-feat.csv.gz: expected 6 rows, found 5"),
        ("raw/node-feat.csv.gz", "1,2\n" * 5 + "1,nan\n", "node-feat.csv.gz: features of row 5 hold NaN"),
        ("raw/node-feat.csv.gz", "1,2\n" * 5 + "1\n", "node-feat.csv.gz:6: expected 2 numbers, found '1'"),
        ("raw/node-feat.csv.gz", None, "expected node-feat.csv.gz or node-feat.csv"),
        ("raw/graph-label.csv.gz", "1\ninf\n0\n", "graph-label.csv.gz: row 1 holds inf, expected 0, 1 or nothing"),
        ("split/scaffold/test.csv.gz", "1\n", "scaffold: val and test share 1 indices"),
    ],
)
def test_ogb_tables_that_do_not_fit_are_refused(tmp_path, name, text, complaint):
    folder = ogb_files(tmp_path / "ogbg_mini", OGB_GRAPHS | {name: text})
    with pytest.raises(ValueError, match=complaint) as error:
        ogb_graphs(folder, metric="roc_auc", reverse=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "metric, text, complaint",
    [
        ("accuracy", "2\n0\n-1\n3\n", "row 2 holds -1, expected a class"),
        ("accuracy", "2\nnan\n0\n3\n", "row 1 holds nothing, expected a class"),
        ("accuracy", "0\n1\n1\n0.5\n", "row 3 holds 0.5, expected a class"),
        ("accuracy", "0\n1\nnan\n0\n", "row 2 holds nothing, expected a class"),
        ("roc_auc", "0\nnan\n7\n1\n", "row 2 holds 7, expected 0, 1 or nothing"),
        ("roc_auc", "0\n1\n1\n-1\n", "row 3 holds -1, expected 0, 1 or nothing"),
        ("average_precision", "0,1\n1,7\n1,\n,\n", "row 1 holds 7, expected 0, 1 or nothing"),
        ("accuracy", "0,1\n1,1\n-1,\n,\n", "row 2 holds -1, expected 0, 1 or nothing"),
        ("mae", "0.5\n1\n1\ninf\n", "row 3 holds inf, expected a number or nothing"),
    ],
)
def test_a_label_that_is_none_is_named_by_file_and_row(tmp_path, metric, text, complaint):
    folder = ogb_files(tmp_path / "ogbn_mini", OGB_NODES, **{"raw/node-label.csv": text})
    with pytest.raises(ValueError, match=f"node-label.csv: {complaint}"):
        ogb_nodes(folder, metric=metric, reverse=False)


def test_unlabelled_rows_of_a_column_of_0_and_1_are_a_task(tmp_path):
    folder = ogb_files(tmp_path / "ogbn_mini", OGB_NODES, **{"raw/node-label.csv": "0\n1\nnan\n1\n"})
    data = ogb_nodes(folder, metric="roc_auc", reverse=False)
    np.testing.assert_array_equal(data.labels, np.float32([[0], [1], [np.nan], [1]]))
    assert data.num_classes == 1


def test_one_graph_is_expected_of_a_node_level_set(tmp_path):
    folder = ogb_files(tmp_path / "ogbg_mini", OGB_GRAPHS)
    write(folder / "raw/node-label.csv", "0\n" * 6)
    with pytest.raises(ValueError, match="expected one graph, found 3"):
        ogb_nodes(folder, metric="accuracy", reverse=True)
