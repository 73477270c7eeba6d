"""Building, padding and masking graphs; the adjacency against dense matrices."""

import jax.numpy as jnp
import jraph
import numpy as np
import pytest

from jaxmodels.graphs.adjacency import edge_sums, missing_loops, symmetric
from jaxmodels.graphs.blocks import blocks_of
from jaxmodels.graphs.graph import batch_graphs, bucket, graph_mask, make_graph, node_graph, node_mask
from tests.graphs.tiny import batch_of, random_graph


@pytest.mark.parametrize(
    ("nodes", "senders", "receivers", "edges", "message"),
    [
        (np.ones((3, 2)), [0, 3], [1, 2], None, "senders: found node 3, expected 0 to 2"),
        (np.ones((3, 2)), [0, 1], [1, -1], None, "receivers: found node -1"),
        (np.ones((3, 2)), [0, 1], [1], None, "receivers: found 1 edges, expected 2"),
        (np.ones((3, 2)), [0.5], [1], None, "senders: found float64"),
        (np.ones((0, 2)), [0], [0], None, "there are 0 nodes"),
        (np.array([[1.0], [np.nan]]), [0], [1], None, "nodes: found NaN in row 1"),
        (np.array([[1.0], [2.0], [-np.inf]]), [0], [1], None, "nodes: found infinity in row 2, expected numbers"),
        (np.ones((3, 2)), [0], [1], np.array([[np.inf]]), "edges: found infinity in row 0"),
        (np.ones((3, 2)), [0], [1], np.ones((2, 1)), "edges: found the shape"),
        (np.ones((3, 2)), [0], [1], np.array([[np.nan]]), "edges: found NaN in row 0"),
        (np.ones(3), [0], [1], None, "nodes: found the shapes"),
        ({"x": np.ones((3, 1)), "y": np.ones((2, 1))}, [0], [1], None, "nodes: found the shapes"),
    ],
)
def test_a_wrong_graph_is_refused(nodes, senders, receivers, edges, message):
    with pytest.raises(ValueError, match=message):
        make_graph(nodes, senders, receivers, edges=edges)


def test_a_wrong_batch_is_refused():
    graph = random_graph(0)
    with pytest.raises(ValueError, match="nodes: found 5, expected at least 6"):
        batch_graphs([graph], nodes=5)
    with pytest.raises(ValueError, match="graph 1: found features"):
        batch_graphs([graph, random_graph(0, width=2)])
    with pytest.raises(ValueError, match="graphs: found none"):
        batch_graphs([])
    with pytest.raises(ValueError, match="without a padding graph"):
        blocks_of(graph)
    with pytest.raises(ValueError, match="expected growth > 1"):
        bucket(3, growth=1.0)


def test_padding_is_jraphs_and_empty_graphs_are_real():
    graphs = [random_graph(0), random_graph(1, nodes=0), random_graph(2, nodes=1, edges=0), random_graph(3, nodes=0)]
    batch = batch_of(*graphs, count=7)
    theirs = jraph.pad_with_graphs(jraph.batch_np(graphs), 24, 40, 7)
    for name in ("nodes", "senders", "receivers", "n_node", "n_edge"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(theirs, name))
    assert graph_mask(batch).tolist() == [True] * 4 + [False] * 3
    assert node_mask(batch).tolist() == [True] * 6 + [False] * 18
    assert node_graph(batch)[:7].tolist() == [0] * 5 + [2, 4]


def test_a_data_set_falls_into_few_buckets():
    sizes = {bucket(size) for size in range(1, 100_001)}
    assert len(sizes) < 25 and all(size % 8 == 0 for size in sizes)
    assert all(bucket(size) >= size and bucket(size) < 1.6 * size for size in range(64, 5000, 97))


def dense(graph, nodes):
    matrix = np.zeros((nodes, nodes))
    np.add.at(matrix, (graph.receivers, graph.senders), 1.0)
    return matrix


def test_adjacency_counts_duplicates_and_adds_missing_loops_once():
    graph = make_graph(np.ones((4, 2)), [0, 0, 1, 2, 2, 2], [1, 1, 2, 2, 2, 0])
    matrix = dense(graph, 4)
    matrix += np.diag(matrix.diagonal() == 0)
    root = matrix.sum(1) ** -0.5
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(symmetric(graph) @ jnp.asarray(x), (root[:, None] * matrix * root) @ x, rtol=1e-5)
    assert missing_loops(graph).tolist() == [1.0, 1.0, 0.0, 1.0]


def test_edge_attributes_are_summed_where_they_arrive():
    values = np.array([[1.0], [2.0], [4.0]], np.float32)
    graph = make_graph(np.ones((3, 1)), [0, 0, 2], [1, 1, 2], edges=values)
    assert edge_sums(graph)[:, 0].tolist() == [1.0, 4.0, 4.0]


def test_blocks_never_mix_graphs():
    graphs = [random_graph(i, nodes=n, edges=min(4, 4 * n)) for i, n in enumerate((5, 0, 1, 9))]
    batch = batch_of(*graphs, count=6)
    for size, blocks in ((1, 24), (4, 10), (16, 7)):
        layout = blocks_of(batch, size=size)
        slots = np.asarray(layout.slot)
        assert len(set(slots)) == 24 and layout.mask.shape == (blocks, size, 1)
        owner = np.asarray(layout.owner)[slots // size]
        np.testing.assert_array_equal(owner[:15], np.asarray(node_graph(batch))[:15])
        np.testing.assert_array_equal(np.asarray(layout.gather(layout.spread(jnp.asarray(batch.nodes)))), batch.nodes)
        assert layout.nodes.tolist() == [5, 1, 1, 9, 9]
        assert np.asarray(layout.mask).sum() == 15
    with pytest.raises(ValueError, match="block: found 0"):
        blocks_of(batch, size=0)


def test_a_single_graph_is_one_block():
    layout = blocks_of(batch_of(random_graph(0), count=2), size=4)
    assert layout.mask.shape == (1, 24, 1) and layout.mask.sum() == 5
