"""Batches of rows: the same numbers as on the padded graph, on one device and on eight; cost linear in the graph."""

import jax
import numpy as np
import optax
import pytest

from jaxmodels.graphs.graph import batch_graphs, make_graph
from jaxmodels.graphs.graph_method import graph_method
from jaxmodels.graphs.peers import Peer
from jaxmodels.graphs.rows import graph_of, graph_rows, node_rows, node_shapes, on_rows
from jaxmodels.training.mesh import default_device, make_mesh, placement, put_batch
from jaxmodels.training.state import begin, train_step
from tests.graphs.tiny import quick, random_graph, small, started

KEY = jax.random.key(0)
SGD = optax.sgd(1.0)


def whole(seed=0, nodes=21, edges=60, attributes=2):
    graph = random_graph(seed, nodes=nodes, edges=edges, attributes=attributes)
    random = np.random.default_rng(seed)
    return graph, random.integers(0, 3, nodes), (random.random(nodes) < 0.6).astype(np.float32)


def test_rows_give_what_the_padded_graph_gives():
    graph, label, mask = whole()
    rows = node_rows(graph, label, mask, shards=8)
    assert {len(value) % 8 for value in rows.values()} == {0}
    padded = batch_graphs([graph], nodes=24, edges=64, count=2)
    for found, expected in zip(jax.tree.leaves(graph_of(rows)), jax.tree.leaves(padded), strict=True):
        np.testing.assert_array_equal(found, expected)
    method = graph_method(Peer("gcn", 3))
    variables = method.init(KEY, {"graph": padded})
    old = {"graph": padded, "label": rows["label"], "mask": rows["mask"]}
    assert float(on_rows(method).loss(variables, rows, KEY)[0]) == float(method.loss(variables, old, KEY)[0])
    np.testing.assert_array_equal(on_rows(method).predict(variables, rows), method.predict(variables, old))


def test_an_empty_graph_in_a_batch_changes_nothing():
    one, two, empty = (
        random_graph(0, attributes=2),
        random_graph(1, nodes=3, edges=4, attributes=2),
        random_graph(2, nodes=0, edges=0, attributes=2),
    )
    module = small(level="graph")
    method = on_rows(graph_method(module, level="graph"))
    variables = {"params": started(module, 3, 2), "state": {}}
    predict = quick(method.predict)
    with_empty = graph_rows([one, empty, two], np.arange(3), nodes=16, edges=16, count=8)
    without = graph_rows([one, two], np.arange(2), nodes=16, edges=16, count=8)
    alone = graph_rows([empty], np.arange(1), nodes=16, edges=16, count=8)
    found, expected = predict(variables, with_empty), predict(variables, without)
    np.testing.assert_allclose(found[np.array([0, 2])], expected[:2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], predict(variables, alone)[0], rtol=1e-5, atol=1e-6)
    assert with_empty["mask"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0] and np.isfinite(found).all()


def test_a_method_that_knows_its_shapes_needs_no_batch():
    graph, label, mask = whole(attributes=None)
    rows = node_rows(graph, label, mask, shards=4)
    shapes = node_shapes(21, 60, 3, shards=4)
    assert {name: np.shape(value) for name, value in rows.items()} == {n: s.shape for n, s in shapes.items()}
    method = on_rows(graph_method(Peer("gcn", 3)), shapes)
    params = jax.eval_shape(lambda key: method.init(key, None), KEY)["params"]
    assert params["layer0"]["linear"]["kernel"].shape == (3, 64)
    assert method.batch(24) == shapes
    with pytest.raises(ValueError, match="batch_size: found 16, expected 24, the rows of the graph"):
        method.batch(16)


def three_steps(method, variables, rows, mesh):
    """Losses, parameters after every step, and the program, of plain SGD at rate 1."""
    ts, frozen = begin(method, SGD, variables, seed=0)
    placed = None if mesh is None else placement(ts, frozen, method.shardings, mesh)
    ts, frozen = jax.device_put((ts, frozen), default_device() if placed is None else placed.trees)
    batch = put_batch(rows, mesh)
    step = train_step(method, SGD, placement=placed).lower(ts, frozen, batch).compile()
    losses, params = [], [jax.tree.map(np.array, ts.trained)]
    for _ in range(3):
        ts, metrics = step(ts, frozen, batch)
        losses.append(metrics["loss"].value())
        params.append(jax.tree.map(np.array, ts.trained))
    return losses, params, step.as_text()


def test_a_graph_over_eight_devices_trains_as_on_one():
    graph, label, mask = whole(nodes=61, edges=240, attributes=None)
    rows = node_rows(graph, label, mask, shards=8)
    mesh = make_mesh("data:8")
    placed = put_batch(rows, mesh)["senders"]
    assert len(placed.sharding.device_set) == 8 and placed.addressable_shards[0].data.shape == (30,)
    module = small(dropout=0.2)
    variables, method = {"params": started(module), "state": {}}, on_rows(graph_method(module))
    one, eight = (three_steps(method, variables, rows, each) for each in (None, mesh))
    assert "all-reduce" in eight[2] and "all-reduce" not in one[2]
    np.testing.assert_allclose(one[0], eight[0], rtol=1e-5)
    assert len(set(one[0])) == 3
    # At rate 1 a step of SGD is the gradient; between large parameters it loses digits, so its scale is theirs.
    for before, after, others in zip(one[1], one[1][1:], eight[1][1:], strict=False):
        for start, found, expected in zip(*map(jax.tree.leaves, (before, after, others)), strict=True):
            assert np.abs(start - found).max() > 0
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(start).max())


def costs(step, variables, sizes, edges=lambda nodes: 4 * nodes):
    found = [
        step.lower(variables, node_shapes(nodes - 8, edges(nodes), 3)).compile().cost_analysis() for nodes in sizes
    ]
    return np.array([[each["flops"], each["bytes accessed"]] for each in found])


@pytest.mark.parametrize("linear_order", [pytest.param(False, marks=pytest.mark.slow), True])
def test_cost_is_linear_in_nodes_and_edges(linear_order):
    """Operations and bytes at n, 2n and 4n nodes with four edges each: of a training step, and of a loss."""
    method = on_rows(graph_method(small(linear_order=linear_order)))
    variables = {"params": started(small()), "state": {}}

    def loss(v, b):
        return method.loss(v, b, KEY)[0]

    found = costs(quick(loss if linear_order else jax.grad(loss)), variables, (4096, 8192, 16384))
    np.testing.assert_allclose(found[1:] / found[:-1], 2.0, rtol=0.02)


def test_the_measure_of_cost_sees_what_is_not_linear():
    method = on_rows(graph_method(Peer("gcn", 3, width=4)))
    variables = jax.eval_shape(
        lambda key: on_rows(graph_method(Peer("gcn", 3, width=4)), node_shapes(8, 8, 3)).init(key, None), KEY
    )
    step = quick(lambda v, b: method.loss(v, b, KEY)[0])
    found = costs(step, variables, (128, 256), edges=lambda nodes: nodes**2)
    assert (found[1] / found[0] > 3.5).all()


def test_an_edge_beyond_the_nodes_and_nan_features_are_refused():
    with pytest.raises(ValueError, match="receivers: found node 7, expected 0 to 2, as there are 3 nodes"):
        make_graph(np.ones((3, 2)), [0], [7])
    features = np.ones((3, 2))
    features[1, 0] = np.nan
    with pytest.raises(ValueError, match="nodes: found NaN in row 1, expected numbers"):
        make_graph(features, [0], [1])
