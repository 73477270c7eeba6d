"""graph_method: tasks, masks, NaN labels, training, edges split over devices; encoders before a model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxmodels.graphs import losses, metrics
from jaxmodels.graphs.encoders import RRWP, Encoded, LapPE
from jaxmodels.graphs.graph import make_graph
from jaxmodels.graphs.graph_method import graph_method
from jaxmodels.graphs.peers import Peer
from jaxmodels.graphs.schedule import warmup_power
from jaxmodels.training.mesh import make_mesh
from tests.graphs.tiny import batch_of, quick, random_graph, small, started

KEY = jax.random.key(0)


class Fixed(nn.Module):
    """Outputs that do not depend on the graph."""

    values: tuple

    @nn.compact
    def __call__(self, graph):
        return self.param("scale", nn.initializers.ones, ()) * jnp.array(self.values)


def loss_of(values, label, *, task, mask=None, loss="plain"):
    """Loss, metrics and gradient for given outputs at the first nodes of a padded graph."""
    graph = batch_of(random_graph(0, nodes=len(values)), nodes=len(values) + 1, edges=8, count=2)
    rows = [*values, values[0]]
    module = Fixed(tuple(map(tuple, rows)))
    method = graph_method(module, task=task, loss=loss)
    batch = {"graph": graph, "label": np.array([*label, label[0]]), "mask": mask}
    variables = method.init(KEY, batch)
    (value, aux), grads = jax.value_and_grad(method.loss, has_aux=True)(variables, batch, KEY)
    assert np.isfinite(grads["params"]["scale"])
    return float(value), {name: mean.value() for name, mean in aux.metrics.items()}


def test_single_counts_masked_real_rows():
    values = [(0.0, 1.0), (2.0, 0.0), (0.0, 3.0)]
    value, found = loss_of(values, [1, 1, 0], task="single", mask=np.array([1, 1, 0, 1]))
    expected = np.mean([np.log1p(np.exp(-1.0)), np.log1p(np.exp(2.0))])
    assert value == pytest.approx(expected, rel=1e-6) and found["accuracy"] == 0.5
    assert found["loss"] == pytest.approx(value)


def test_unlabelled_entries_do_not_count():
    value, found = loss_of([(1.0, -1.0), (0.0, 2.0)], [(1.0, np.nan), (np.nan, 0.0)], task="multilabel")
    assert value == pytest.approx(np.mean([np.log1p(np.exp(-1.0)), np.log1p(np.exp(2.0))]), rel=1e-6)
    assert found["entry_accuracy"] == 0.5
    value, _ = loss_of([(1.0,), (3.0,)], [0.5, np.nan], task="regression")
    assert value == pytest.approx(0.5)
    value, _ = loss_of([(1.0,), (3.0,)], [np.nan, np.nan], task="binary")
    assert value == 0.0


def test_weighted_and_focal_losses():
    values, label = [(0.0, 1.0), (2.0, 0.0), (0.0, 3.0)], [1, 1, 0]
    each = -np.asarray(jax.nn.log_softmax(jnp.array(values)))[np.arange(3), label]
    weights = np.array([1 / 3, 1 / 3, 2 / 3])
    assert loss_of(values, label, task="single", loss="weighted")[0] == pytest.approx(
        (weights * each).sum() / weights.sum()
    )
    assert loss_of(values, label, task="single", loss="focal")[0] == pytest.approx(
        ((1 - np.exp(-each)) ** 2 * each).mean()
    )
    plain, _ = losses.bce(jnp.zeros(4), jnp.array([1.0, 0, 0, 0]), jnp.ones(4, bool))
    rare, _ = losses.bce(jnp.zeros(4), jnp.array([1.0, 0, 0, 0]), jnp.ones(4, bool), kind="weighted")
    np.testing.assert_allclose(rare / plain, [0.75, 0.25, 0.25, 0.25], rtol=1e-6)


def test_predictions_by_task():
    batch = {"graph": batch_of(random_graph(0))}
    for task, outputs, shape in (("single", 3, (24, 3)), ("binary", 1, (24,)), ("multilabel", 3, (24, 3))):
        method = graph_method(Peer("mlp", outputs), task=task)
        out = jax.jit(lambda key, m=method: m.predict(m.init(key, batch), batch))(KEY)
        assert out.shape == shape
        if task == "single":
            np.testing.assert_allclose(jnp.exp(out).sum(-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(task="singel"), "did you mean 'single'"),
        (dict(level="edge"), "level: found 'edge'"),
        (dict(level="graph"), "expected 'node' as the module has"),
        (
            dict(loss="focal", task="binary"),
            "expected one of plain, weighted for the task 'binary'",
        ),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        graph_method(small(), **options)
    with pytest.raises(ValueError, match="batch: found None"):
        graph_method(small()).init(KEY, None)


def test_edges_split_over_devices_train_as_on_one():
    graph = batch_of(random_graph(0, nodes=15, edges=60, attributes=2), nodes=16, edges=64, count=2)
    label = np.random.default_rng(0).integers(0, 3, 16)
    method = graph_method(small())
    variables = {"params": started(small(), 3, 2), "state": {}}

    def step(variables, graph):
        batch = {"graph": graph, "label": label}
        return jax.value_and_grad(lambda v: method.loss(v, batch, KEY)[0])(variables)

    mesh = make_mesh("data:8")
    split = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    placed = {name: jax.device_put(getattr(graph, name), split) for name in ("senders", "receivers", "edges")}
    others = {name: jax.device_put(getattr(graph, name), whole) for name in ("nodes", "n_node", "n_edge")}
    compiled = quick(step).lower(jax.device_put(variables, whole), graph._replace(**placed, **others)).compile()
    found = compiled(jax.device_put(variables, whole), graph._replace(**placed, **others))
    expected = quick(step)(variables, graph)
    assert "all-reduce" in compiled.as_text()
    assert len(placed["senders"].sharding.device_set) == 8
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


def test_training_lowers_the_loss():
    batch = {"graph": batch_of(random_graph(0), random_graph(1)), "label": np.arange(24) % 3}
    method = graph_method(small(dropout=0.1))
    variables, optimizer = {"params": started(small()), "state": {}}, optax.adam(warmup_power(3e-2, warmup=3))

    @quick
    def step(params, moments, key):
        value, grads = jax.value_and_grad(lambda p: method.loss({**variables, "params": p}, batch, key)[0])(params)
        updates, moments = optimizer.update(grads, moments)
        return optax.apply_updates(params, updates), moments, value

    params, moments, values = variables["params"], optimizer.init(variables["params"]), []
    for key in jax.random.split(KEY, 25):
        params, moments, value = step(params, moments, key)
        values.append(float(value))
    assert values[-1] < 0.9 * values[0]


def test_an_encoder_stands_before_a_model():
    rng = np.random.default_rng(0)
    nodes = {"x": rng.normal(size=(4, 2)), "eigvecs": rng.normal(size=(4, 3)), "eigvals": rng.normal(size=(4, 3))}
    nodes["eigvecs"][:, 2] = np.nan
    batch = batch_of(make_graph({k: v.astype(np.float32) for k, v in nodes.items()}, [0, 1], [1, 2]), nodes=5, edges=2)
    method = graph_method(Encoded(LapPE(features=4, hidden=5), Peer("mlp", 3)))
    variables = method.init(KEY, {"graph": batch})
    out = method.predict(variables, {"graph": batch})
    assert out.shape == (5, 3) and np.isfinite(out).all()
    flipped = LapPE(features=4, hidden=5)
    params = {"params": variables["params"]["encoder"]}
    first, second = (flipped.apply(params, batch.nodes, rngs={"sign": jax.random.key(i)}) for i in (0, 3))
    np.testing.assert_array_equal(first[:, :2], batch.nodes["x"])
    assert np.abs(first - second).max() > 1e-4
    walks = {"x": jnp.ones((3, 2)), "rrwp": jnp.ones((3, 4))}
    added, _ = RRWP().init_with_output(KEY, walks)
    assert added.shape == (3, 2) and not np.allclose(added, 1.0)


def test_metrics_refuse_what_they_cannot_score():
    with pytest.raises(ValueError, match="no task with both labels"):
        metrics.roc_auc([1.0, 1.0], [0.2, 0.3])
    with pytest.raises(ValueError, match="scores: found the shape"):
        metrics.roc_auc([1.0, 0.0], [0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match="average: found 'mean'"):
        metrics.average_precision([1.0, 0.0], [0.2, 0.3], average="mean")
    with pytest.raises(ValueError, match="average: found 'mean'"):
        metrics.f1([1], [[0.2, 0.3]], average="mean")
    with pytest.raises(ValueError, match="warmup: found 0"):
        warmup_power(1.0, warmup=0)
    with pytest.raises(ValueError, match="decay: found 2.0"):
        warmup_power(1.0, decay=2.0)
