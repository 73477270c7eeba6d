"""Random parts of a graph: every node once an epoch, exactly the edges inside, few sizes."""

import jax
import numpy as np
import pytest

from jaxmodels.graphs.graph import make_graph
from jaxmodels.graphs.graph_method import graph_method
from jaxmodels.graphs.node_parts import NodeParts
from jaxmodels.graphs.peers import Peer
from jaxmodels.graphs.rows import on_rows

NODES, EDGES = 50, 400


def numbered(nodes=NODES, edges=EDGES):
    """A graph whose features are the numbers of its nodes, and attributes those of its edges."""
    ends = np.random.default_rng(0).integers(0, nodes, (2, edges))
    number = np.arange(nodes, dtype=np.float32)[:, None]
    return make_graph(number, *ends, edges=np.arange(edges, dtype=np.float32)[:, None])


def parts(**options):
    graph = numbered()
    label, mask = np.arange(NODES), (np.arange(NODES) % 2).astype(np.float32)
    return graph, NodeParts(graph, label, mask, **{"parts": 3, "seed": 1, **options})


def test_an_epoch_has_every_node_once_and_the_edges_inside_of_parts():
    graph, batches = parts()
    whose, found = np.zeros(NODES, int), []
    for step in range(3):
        batch = batches[step]
        real = batch["real"] > 0
        own = batch["nodes"][real, 0].astype(int)
        np.testing.assert_array_equal(batch["label"][real], own)
        np.testing.assert_array_equal(batch["mask"][real], own % 2)
        assert not batch["mask"][~real].any() and {len(leaf) % 8 for leaf in batch.values()} == {0}
        whose[own] += step + 1
        inside = batch["receivers"] < real.sum()
        number = batch["edges"][inside, 0].astype(int)
        np.testing.assert_array_equal(own[batch["senders"][inside]], graph.senders[number])
        np.testing.assert_array_equal(own[batch["receivers"][inside]], graph.receivers[number])
        found.append(number)
    assert set(whose) == {1, 2, 3}  # every node is in one part
    expected = np.flatnonzero(whose[graph.senders] == whose[graph.receivers])
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), expected)


def test_parts_are_new_each_epoch_and_the_same_for_a_seed():
    _, batches = parts()
    _, again = parts()
    _, other = parts(seed=2)
    for step in (0, 4, 1):
        jax.tree.map(np.testing.assert_array_equal, batches[step], again[step])
    assert not np.array_equal(batches[0]["nodes"], batches[3]["nodes"])
    assert not np.array_equal(batches[0]["nodes"], other[0]["nodes"])


def test_all_parts_share_few_sizes_also_where_edges_crowd():
    _, batches = parts()
    assert {len(batches[step]["receivers"]) for step in range(60)} == {batches.sizes[0]} and len(batches.sizes) == 3
    assert {len(batches[step]["nodes"]) for step in range(60)} == {24}
    one = NodeParts(numbered(), np.arange(NODES), np.ones(NODES), parts=1)
    assert one.sizes == [EDGES] and len(one[0]["receivers"]) == EDGES
    ends = np.zeros(EDGES, int)  # all edges in one part of each epoch
    hub = NodeParts(make_graph(np.ones((NODES, 1)), ends, ends), np.arange(NODES), np.ones(NODES), parts=5)
    assert hub.sizes == [EDGES] and {len(hub[step]["receivers"]) for step in range(10)} == {EDGES}


def test_a_part_without_counted_nodes_moves_nothing():
    graph = numbered()
    method = on_rows(graph_method(Peer("gcn", NODES)))
    batch = NodeParts(graph, np.arange(NODES), np.zeros(NODES), parts=2)[0]
    variables = method.init(jax.random.key(0), batch)
    value, grads = jax.value_and_grad(lambda p: method.loss({**variables, "params": p}, batch, jax.random.key(1))[0])(
        variables["params"]
    )
    assert float(value) == 0.0 and not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("number", [0, NODES + 1])
def test_wrong_numbers_of_parts(number):
    with pytest.raises(ValueError, match=f"parts: found {number}, expected 1 to {NODES}, the number of nodes"):
        parts(parts=number)
