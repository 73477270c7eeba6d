"""Peers against the layers of PyTorch Geometric, with weights carried across."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.graphs.convolutions import GATConv, GCNConv, GINConv, SAGEConv
from jaxmodels.graphs.graph import make_graph
from jaxmodels.graphs.peers import PEERS, Peer
from tests.graphs.tiny import batch_of, forward, quick, random_graph, started

# A duplicate edge, a self loop, one that is listed twice, an isolated node.
GRAPH = make_graph(
    np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32),
    [0, 0, 1, 2, 2, 3, 4, 3, 3],
    [1, 1, 2, 2, 3, 1, 0, 3, 3],
)


def layers(torch, pyg):
    def gin():
        mlp = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
        return pyg.GINConv(mlp, eps=0.3, train_eps=True)

    return {
        "gcn": (GCNConv(4), pyg.GCNConv(3, 4), {"linear/kernel": "lin.weight", "bias": "bias"}),
        "gat": (GATConv(4, 2), pyg.GATConv(3, 4, heads=2), GAT),
        "gat mean": (GATConv(4, 2, concat=False), pyg.GATConv(3, 4, heads=2, concat=False), GAT),
        "gin": (GINConv(4), gin(), GIN),
        "sage": (SAGEConv(4), pyg.SAGEConv(3, 4), SAGE),
    }


GAT = {"linear/kernel": "lin.weight", "source": "att_src", "target": "att_dst", "bias": "bias"}
GIN = {
    "eps": "eps", "first/kernel": "nn.0.weight", "first/bias": "nn.0.bias", "second/kernel": "nn.2.weight",
    "second/bias": "nn.2.bias",
}  # fmt: skip
SAGE = {"neighbours/kernel": "lin_l.weight", "neighbours/bias": "lin_l.bias", "own/kernel": "lin_r.weight"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["gcn", "gat", "gat mean", "gin", "sage"])
def test_a_layer_equals_pytorch_geometrics(name):
    torch = pytest.importorskip("torch", reason="compares with torch")
    pyg = pytest.importorskip("torch_geometric.nn", reason="compares with torch_geometric")
    ours, theirs, table = layers(torch, pyg)[name]
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
        edges = torch.from_numpy(np.stack([GRAPH.senders, GRAPH.receivers]).astype(np.int64))
        expected = theirs(torch.from_numpy(GRAPH.nodes), edges).numpy()
    arrays = {key: value.detach().numpy() for key, value in theirs.state_dict().items()}

    def leaf(path, like):
        key = jax.tree_util.keystr(path, simple=True, separator="/")
        value = arrays[table[key]]
        return jnp.asarray((value.T if key.endswith("kernel") else value).reshape(like.shape))

    shapes = jax.eval_shape(ours.init, jax.random.key(0), GRAPH, GRAPH.nodes)["params"]
    params = jax.tree_util.tree_map_with_path(leaf, shapes)
    out = quick(lambda p, x: ours.apply({"params": p}, GRAPH, x))(params, jnp.asarray(GRAPH.nodes))
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", PEERS)
def test_a_peer_sees_its_graph_alone_and_an_mlp_none(kind):
    module = Peer(kind, 3, width=8, heads=2)
    graphs = [random_graph(0), random_graph(1, nodes=0), random_graph(2, nodes=1, edges=0)]
    out = np.asarray(forward(module)(started(module), batch_of(*graphs)))
    alone = np.asarray(forward(module)(started(module), batch_of(graphs[0])))
    np.testing.assert_allclose(out[:5], alone[:5], atol=1e-5)
    without = graphs[0]._replace(senders=graphs[0].senders[:1], receivers=graphs[0].receivers[:1], n_edge=np.array([1]))
    changed = np.abs(np.asarray(forward(module)(started(module), batch_of(without)))[:5] - alone[:5]).max()
    assert changed > 1e-4 if kind != "mlp" else changed == 0


CHOICES = [dict(residual=True), dict(depth=3), dict(level="graph"), dict(level="graph", pool="mean")]


@pytest.mark.parametrize("options", CHOICES)
def test_options_of_a_peer(options):
    module = Peer("gin", 3, width=4, **options)
    base = Peer("gin", 3, width=4, level=options.get("level", "node"))
    batch = batch_of(random_graph(0), random_graph(1, nodes=0), random_graph(2))
    out, other = (np.asarray(forward(m)(started(m), batch)) for m in (module, base))
    assert np.isfinite(out).all() and out.shape == ((24, 3) if options.get("level") != "graph" else (5, 3))
    if options != dict(level="graph"):
        assert np.abs(out - other)[:3].max() > 1e-4
    if "level" in options:
        alone = np.asarray(forward(module)(started(module), batch_of(random_graph(2))))
        np.testing.assert_allclose(out[2], alone[0], atol=1e-4)


@pytest.mark.parametrize("residual", [False, True])
def test_input_dropout_acts_on_features_alone(residual):
    graph = batch_of(random_graph(0))
    plain, module = (Peer("sage", 2, residual=residual, input_dropout=rate) for rate in (0.0, 0.5))
    params, x, key = started(plain), jnp.asarray(graph.nodes), jax.random.key(0)
    run_with = quick(lambda x, **rngs: module.apply({"params": params}, graph._replace(nodes=x), rngs=rngs))
    np.testing.assert_array_equal(run_with(x), forward(plain)(params, graph))
    assert np.abs(run_with(x, dropout=key) - run_with(x))[:5].max() > 1e-4
    np.testing.assert_array_equal(run_with(0 * x, dropout=key), run_with(0 * x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(kind="gcm"), "did you mean 'gcn'"),
        (dict(kind="gat", width=9), "width: found 9"),
        (dict(kind="gcn", depth=0), "depth: found 0"),
        (dict(kind="gin", dropout=1.0), "dropout: found 1.0, expected 0 <= dropout < 1"),
        (dict(kind="mlp", dropout=-0.1), "dropout: found -0.1"),
        (dict(kind="sage", input_dropout=1.0), "input_dropout: found 1.0, expected 0 <= input_dropout < 1"),
        (dict(kind="gcn", residual=True, level="graph"), "residual"),
        (dict(kind="gcn", pool="max"), "pool: found 'max'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(Peer(outputs=2, **options).init, jax.random.key(0), batch_of(random_graph(0)))
