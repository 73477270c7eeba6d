"""N2: symmetries, padding, batches with odd graphs, every option, names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.graphs.graph import make_graph
from jaxmodels.graphs.n2_names import from_official, to_official
from tests.graphs.tiny import batch_of, forward, quick, random_graph, small, started

NODE, GRAPH = small(), small(level="graph")
sizes = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8), st.integers(0, 99)), min_size=1, max_size=3)


def run(module, batch):
    attributes = None if batch.edges is None else batch.edges.shape[1]
    return np.asarray(forward(module)(started(module, 3, attributes), batch))


@settings(max_examples=15, deadline=None)
@given(sizes)
def test_a_batch_gives_what_each_graph_gives_alone(sizes):
    graphs = [random_graph(seed, nodes=n, edges=e if n else 0) for n, e, seed in sizes]
    batch = batch_of(*graphs)
    nodes, scores = run(NODE, batch), run(GRAPH, batch)
    assert np.isfinite(nodes).all() and np.isfinite(scores).all()
    start = 0
    for i, graph in enumerate(graphs):
        alone = batch_of(graph)
        n = int(graph.n_node[0])
        np.testing.assert_allclose(nodes[start : start + n], run(NODE, alone)[:n], atol=1e-5)
        np.testing.assert_allclose(scores[i], run(GRAPH, alone)[0], atol=1e-5)
        start += n


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), st.integers(0, 12), st.integers(0, 99))
def test_the_order_of_nodes_and_edges_does_not_matter(nodes, edges, seed):
    graph, rng = random_graph(seed, nodes=nodes, edges=edges), np.random.default_rng(seed)
    order, shuffled = rng.permutation(nodes), rng.permutation(edges)
    place = np.argsort(order)
    other = make_graph(graph.nodes[order], place[graph.senders][shuffled], place[graph.receivers][shuffled])
    found, expected = run(NODE, batch_of(other)), run(NODE, batch_of(graph))
    np.testing.assert_allclose(found[:nodes], expected[:nodes][order], atol=1e-5)
    np.testing.assert_allclose(run(GRAPH, batch_of(other))[0], run(GRAPH, batch_of(graph))[0], atol=1e-5)


def test_padding_block_size_and_layout_do_not_matter():
    graphs = [random_graph(0), random_graph(1, nodes=1, edges=0)]
    expected = run(NODE, batch_of(*graphs))[:6]
    for module, sizes in ((NODE, dict(nodes=7, edges=16, count=3)), (small(block=7), {})):
        np.testing.assert_allclose(run(module, batch_of(*graphs, **sizes))[:6], expected, atol=1e-5)
    one_block = run(NODE, batch_of(graphs[0], count=2))
    np.testing.assert_allclose(one_block[:5], expected[:5], atol=1e-5)


def test_the_backward_pass_over_many_graphs_keeps_no_pathways():
    module = small(level="graph", pseudo_nodes=7, block=5)  # so that only pathways have axes of 7 and 5, or of 7 and 7
    batch, params = batch_of(random_graph(0), random_graph(1)), started(module)
    _, pull = jax.eval_shape(lambda p: jax.vjp(lambda p: module.apply({"params": p}, batch), p), params)
    kept = [leaf.shape[-2:] for leaf in jax.tree.leaves(pull)]
    assert (7, 4) in kept or (2, 4) in kept  # pseudo nodes or their pieces
    assert not {(7, 5), (5, 7), (7, 7)} & set(kept)


def test_messages_flow_from_senders_to_receivers():
    module = small(steps=1, exchange=False, adaptation=False)
    here, there = (make_graph(np.eye(2, 3, dtype=np.float32), [s], [r]) for s, r in ((0, 1), (1, 0)))
    none = run(module, batch_of(make_graph(np.eye(2, 3, dtype=np.float32), [], [])))
    changed = [(run(module, batch_of(graph)) != none)[:2].any(1).tolist() for graph in (here, there)]
    # The receiver hears from the sender; the sender, whose degree counts what it receives, stays as it was.
    assert changed == [[False, True], [True, False]]


OPTIONS = {
    "steps": dict(steps=3), "class_pieces": dict(class_pieces=2), "head": dict(head="linear"), "norm": dict(norm=False),
    "adaptation": dict(adaptation=False), "local": dict(local=False), "exchange": dict(exchange=False),
    "messages": dict(messages=False), "dense": dict(dense=True), "dense uniform": dict(dense=True, pathway="uniform"),
    "attention": dict(pathway="attention"), "uniform": dict(pathway="uniform"), "shared": dict(shared=False),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_changes_the_outputs(name):
    graph, level = batch_of(random_graph(0), random_graph(1)), "graph" if name == "dense" else "node"
    base, module = (NODE if level == "node" else GRAPH), small(level=level, **OPTIONS[name])
    found, expected = run(module, graph), run(base, graph)
    assert np.isfinite(found).all() and found.shape == expected.shape
    assert np.abs(found - expected)[:2].max() > 1e-5
    if name == "dense uniform":
        assert np.abs(found - run(small(dense=True), graph))[:2].max() > 1e-6


def test_unshared_steps_have_their_own_parameters_and_ablations_none():
    shared, own = started(NODE), started(small(shared=False))
    kernels = own["step"]["state_update"]["linear"]["kernel"]
    assert kernels.shape == (2, *shared["step"]["state_update"]["linear"]["kernel"].shape)
    first = quick(small(shared=False).init)(jax.random.key(0), batch_of(random_graph(0)))["params"]
    assert not np.allclose(*first["step"]["state_update"]["linear"]["kernel"])
    repeated = {**shared, "step": jax.tree.map(lambda x: jnp.stack([x, x]), shared["step"])}
    graph = batch_of(random_graph(0))
    out = forward(small(shared=False))(repeated, graph)
    np.testing.assert_allclose(out, run(NODE, graph), atol=1e-5)
    assert "refine1" not in started(small(adaptation=False))["step"]
    assert "refine2" not in started(small(exchange=False))["step"]
    assert "message_in" not in started(small(messages=False))
    assert "pseudo" not in started(small(dense=True))


def test_linear_order_and_remat_give_the_same_gradients():
    # In float64: some gradients are what is left of large terms, and in float32 mostly their rounding.
    with jax.enable_x64(True):
        graph, params = batch_of(random_graph(0), random_graph(1)), started(GRAPH)
        graph = graph._replace(nodes=graph.nodes.astype(np.float64))
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)

        def gradient(module):
            return quick(jax.grad(lambda p: (module.apply({"params": p}, graph)[:2] ** 2).sum()))(params)

        expected = gradient(GRAPH)
        for module in (small(level="graph", linear_order=True), small(level="graph", remat=True)):
            for a, b in zip(jax.tree.leaves(gradient(module)), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-9 * float(jnp.abs(b).max()) + 1e-14)
    graph = batch_of(random_graph(0), random_graph(1))
    remat = jax.make_jaxpr(jax.grad(lambda p: small(remat=True).apply({"params": p}, graph).sum()))(started(NODE))
    assert "remat" in str(remat) or "checkpoint" in str(remat)


def test_linear_order_never_forms_the_matrix():
    graph = batch_of(random_graph(0), count=2)

    def program(**options):
        module = small(pseudo_nodes=17, **options)
        return str(jax.make_jaxpr(lambda p: module.apply({"params": p}, graph))(started(small(pseudo_nodes=17))))

    assert "17,24]" in program() and "24,17]" in program()
    assert "17,24]" not in program(linear_order=True) and "24,17]" not in program(linear_order=True)


def test_dropout_acts_only_with_its_rng():
    module, graph = small(dropout=0.5), batch_of(random_graph(0))
    run_with = quick(lambda key: module.apply({"params": started(NODE)}, graph, rngs={"dropout": key}))
    first, second = run_with(jax.random.key(0)), run_with(jax.random.key(1))
    np.testing.assert_array_equal(run(module, graph), run(NODE, graph))
    assert np.abs(first - second)[:5].max() > 1e-4
    np.testing.assert_array_equal(first, run_with(jax.random.key(0)))


def test_input_dropout_acts_on_features_alone():
    module, graph = small(input_dropout=0.5), batch_of(random_graph(0))
    params, x, key = started(NODE), jnp.asarray(graph.nodes), jax.random.key(0)
    run_with = quick(lambda x, **rngs: module.apply({"params": params}, graph._replace(nodes=x), rngs=rngs))
    np.testing.assert_array_equal(run_with(x), run(NODE, graph))
    assert np.abs(run_with(x, dropout=key) - run_with(x))[:5].max() > 1e-4
    np.testing.assert_array_equal(run_with(0 * x, dropout=key), run_with(0 * x))


def test_edge_attributes_reach_the_outputs():
    graph = random_graph(0, attributes=2)
    changed = graph._replace(edges=2 * graph.edges)
    assert np.abs(run(NODE, batch_of(graph)) - run(NODE, batch_of(changed)))[:5].max() > 1e-5


def test_integer_features_give_what_they_give_as_floats():
    graph = random_graph(0, attributes=2)
    whole = np.round(3 * graph.nodes)
    found, expected = (run(NODE, batch_of(graph._replace(nodes=whole.astype(kind)))) for kind in (np.int32, np.float32))
    np.testing.assert_array_equal(found, expected)


def test_official_names_go_both_ways():
    for module, level in ((NODE, "node"), (GRAPH, "graph")):
        params = started(module)
        theirs = to_official(params, level=level)
        theirs |= {"node_state_updater.edge_wise_ff.weight": np.zeros((6, 6))}
        back = from_official(theirs, params, level=level)
        assert jax.tree.all(jax.tree.map(np.array_equal, back, params))
    assert theirs["node_state_updater.pnode_agg2.glob2disp.0.weight"].shape == (8, 22)
    with pytest.raises(ValueError, match="has no 'out_ff.lambda_copies'"):
        from_official({k: v for k, v in theirs.items() if k != "out_ff.lambda_copies"}, params, level="graph")
    with pytest.raises(ValueError, match="nothing reads 'extra'"):
        from_official(theirs | {"extra": np.zeros(1)}, params, level="graph")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(level="edge"), "level: found 'edge'"),
        (dict(pathway="attentoin"), "did you mean 'attention'"),
        (dict(head="mlp"), "head: found 'mlp'"),
        (dict(steps=0), "steps: found 0"),
        (dict(dropout=1.0), "dropout: found 1.0"),
        (dict(input_dropout=-0.5), "input_dropout: found -0.5"),
        (dict(class_pieces=3), "class_pieces: found 3"),
        (dict(linear_order=True, pathway="uniform"), "linear_order"),
        (dict(dense=True, pathway="attention"), "dense"),
        (dict(dense=True, adaptation=False), "dense: found adaptation=False, expected True"),
        (dict(dense=True, exchange=False), "dense: found exchange=False, expected True"),
        (dict(level="graph", adaptation=False, exchange=False), "exchange: found adaptation=False and exchange=False"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small(**options).init, jax.random.key(0), batch_of(random_graph(0)))
