"""Counts of published data sets, where a copy is at hand: JAXMODELS_DATA names a folder holding `graphs` and `kg`."""

import os
from pathlib import Path

import numpy as np
import pytest

from jaxmodels.data.graph_gin import gin_graphs
from jaxmodels.data.graph_npz import heterophilous
from jaxmodels.data.graph_tu import tu_graphs
from jaxmodels.data.planetoid import planetoid
from jaxmodels.data.query_files import read_queries, write_queries
from jaxmodels.data.query_structures import STRUCTURES
from jaxmodels.data.triples import knowledge_graph


def published(name):
    if not os.environ.get("JAXMODELS_DATA"):
        pytest.skip("JAXMODELS_DATA is not set: expected a folder with graphs/ and kg/")
    path = Path(os.environ["JAXMODELS_DATA"]) / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def sizes(split):
    return [len(part) for part in split]


@pytest.mark.parametrize(
    "name, shape, classes, edges, public, fixed",
    [
        ("cora", (2708, 1433), [351, 217, 418, 818, 426, 298, 180], 10556, [140, 500, 1000], [1192, 796, 497]),
        ("citeseer", (3327, 3703), [264, 590, 668, 701, 596, 508], 9104, [120, 500, 1000], [1596, 1065, 666]),
    ],
)
def test_citations(name, shape, classes, edges, public, fixed):
    data = planetoid(published(f"graphs/{name}"), name)
    assert data.x.shape == shape and np.bincount(data.labels).tolist() == classes
    assert len(data.senders) == edges and [sizes(split) for split in data.splits] == [public]
    assert np.bincount(data.labels[data.splits[0].train]).tolist() == [20] * len(classes)
    assert (data.x.sum(axis=1) == 0).sum() >= (15 if name == "citeseer" else 0)
    splits = planetoid(published(f"graphs/{name}"), name, splits="geom-gcn").splits
    smaller = {4: [1017, 679, 424], 5: [1017, 679, 424]} if name == "citeseer" else {}  # so published
    assert [sizes(split) for split in splits] == [smaller.get(i, fixed) for i in range(10)]


@pytest.mark.parametrize(
    "name, shape, classes, rows, split, metric",
    [
        ("minesweeper", (10000, 7), [8000, 2000], 39402, [5000, 2500, 2500], "roc_auc"),
        ("texas", (183, 1703), [33, 1, 18, 101, 30], 279, [87, 59, 37], "accuracy"),
        ("cornell", (183, 1703), [38, 16, 30, 82, 17], 277, [87, 59, 37], "accuracy"),
        ("wisconsin", (251, 1703), [10, 70, 118, 32, 21], 450, [120, 80, 51], "accuracy"),
        ("actor", (7600, 932), [853, 1337, 1630, 1815, 1965], 26659, [3648, 2432, 1520], "accuracy"),
        ("chameleon_filtered", (890, 2325), [242, 134, 209, 164, 141], 8854, [409, 287, 194], "accuracy"),
        ("squirrel_filtered", (2223, 2089), [756, 516, 397, 321, 233], 46998, [1053, 718, 452], "accuracy"),
    ],
)
def test_heterophilous_graphs(name, shape, classes, rows, split, metric):
    file = published(f"graphs/{name}/{name}.npz")
    data = heterophilous(file)
    assert data.x.shape == shape and np.bincount(data.labels).tolist() == classes and data.metric == metric
    assert len(data.splits) == 10 and sizes(data.splits[0]) == split
    loops = int((data.senders == data.receivers).sum())
    assert len(heterophilous(file, undirected=False).senders) == rows and len(data.senders) == 2 * rows - loops
    forward = set(zip(data.senders.tolist(), data.receivers.tolist(), strict=True))
    assert {(b, a) for a, b in forward} == forward


@pytest.mark.parametrize(
    "name, classes, nodes, edges, most, width, tested",
    [
        ("MUTAG", [63, 125], 17.93, 39.59, 28, 7, 180),
        ("PROTEINS", [663, 450], 39.06, 145.63, 620, 3, 1110),
        ("NCI1", [2053, 2057], 29.87, 64.6, 111, 37, 4110),
        ("IMDBBINARY", [500, 500], 19.77, 193.06, 136, 136, 1000),
    ],
)
def test_graphs_in_the_text_format_of_gin(name, classes, nodes, edges, most, width, tested):
    data = gin_graphs(published(f"graphs/{name}"))
    assert np.bincount(data.labels).tolist() == classes
    counts = [len(graph.x) for graph in data.graphs]
    assert round(np.mean(counts), 2) == nodes and max(counts) == most
    assert round(np.mean([len(graph.senders) for graph in data.graphs]), 2) == edges
    assert {graph.x.shape[1] for graph in data.graphs} == {width}
    assert {len(split.test) for split in data.splits} == {tested // 10}
    assert len(np.unique(np.concatenate([split.test for split in data.splits]))) == tested


@pytest.mark.parametrize("name, edges", [("MUTAG", 7442), ("PROTEINS", 162088)])
def test_both_text_formats_hold_the_same_graphs(name, edges):
    tu, gin = tu_graphs(published(f"graphs/{name}/raw"), name=name), gin_graphs(published(f"graphs/{name}"))
    assert sum(len(graph.senders) for graph in tu.graphs) == edges
    assert sorted(map(summary, tu.graphs)) == sorted(map(summary, gin.graphs))


def summary(graph):
    return len(graph.x), len(graph.senders), sorted(np.bincount(graph.senders).tolist())


@pytest.mark.parametrize(
    "name, entities, relations, counts, dropped",
    [
        ("FB15k-237", 14505, 237, (272115, 17526, 20438), (9, 28)),
        ("WN18RR", 40559, 11, (86835, 2824, 2924), (210, 210)),
        ("kinship", 104, 25, (8544, 1068, 1074), (0, 0)),
        ("umls", 135, 46, (5216, 652, 661), (0, 0)),
        ("nations", 14, 55, (1592, 199, 201), (0, 0)),
        ("countries_S1", 271, 2, (1110, 24, 24), (0, 0)),
    ],
)
def test_knowledge_graphs(name, entities, relations, counts, dropped):
    graph = knowledge_graph(published(f"kg/{name}"))
    assert (len(graph.entities), len(graph.relations)) == (entities, relations)
    assert (len(graph.train), len(graph.valid), len(graph.test)) == counts
    assert (graph.dropped["valid"], graph.dropped["test"]) == dropped
    assert graph.duplicates["train"] == (name == "countries_S1")
    if name == "WN18RR":
        assert all(len(entity) == 8 for entity in graph.entities)
        assert (graph.train[:, 0] == graph.train[:, 2]).sum() == 7


@pytest.mark.parametrize("name", ["umls", "kinship"])
def test_queries_are_about_the_triples_beside_them_and_come_back(name, tmp_path):
    file = published(f"kg/{name}/queries_v1.npz")
    data, graph = read_queries(file), knowledge_graph(file.parent)
    assert (data.entities, data.relations) == (graph.entities, graph.relations)
    shapes = {name for name in STRUCTURES if not name.endswith("DM")}
    assert data.valid.keys() == data.test.keys() == shapes
    assert data.train.keys() == shapes - {"ip", "pi", "2u-DNF", "up-DNF"}
    assert {len(queries.tokens) for name, queries in data.test.items() if name != "1p"} == {300}
    for split in (data.valid, data.test):
        assert all(
            1 <= np.diff(found.hard.ptr).min() <= np.diff(found.hard.ptr).max() <= 100 for found in split.values()
        )
    edges = {(head, relation): [] for head, relation, _ in graph.train.tolist()}
    for head, relation, tail in graph.train.tolist():
        edges[head, relation].append(tail)
    one = data.train["1p"]
    for i, (head, relation) in enumerate(one.tokens.tolist()):
        if relation % 2 == 0:
            assert one.hard.idx[one.hard.ptr[i] : one.hard.ptr[i + 1]].tolist() == sorted(edges[head, relation])
    write_queries(tmp_path / "again.npz", data)
    with np.load(file) as first, np.load(tmp_path / "again.npz") as second:
        assert set(first.files) == set(second.files)
        for key in first.files:
            np.testing.assert_array_equal(first[key], second[key], strict=True)
