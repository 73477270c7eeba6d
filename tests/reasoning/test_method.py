import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmodels.reasoning.adam import drop_updates, query_adam
from jaxmodels.reasoning.method import alternation, plain, query_method, sample_others
from jaxmodels.reasoning.robust_loss import Robust, cross_entropy, per_query, pointwise, subsampling_weight, weighted
from jaxmodels.rules import leaf_names
from jaxmodels.training.mesh import make_mesh, placement, put_batch
from jaxmodels.training.state import begin, train_step
from tests.reasoning.small import ENTITIES, MODELS, random_params, random_queries

KEY = jax.random.key(0)


def rows_of(name, count=2, negatives=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "query": random_queries(name, count, seed).astype(np.int32),
        "positive": rng.integers(ENTITIES, size=count).astype(np.int32),
        "negative": rng.integers(ENTITIES, size=(count, negatives)).astype(np.int32),
        "weight": rng.uniform(0.2, 0.5, count).astype(np.float32),
    }


def batch_of(*names, **more):
    return {name: rows_of(name, **more) for name in names}


def test_the_loss_has_one_normaliser_over_all_structures():
    model = MODELS["gqe"]()
    method = query_method(model, ("1p", "2i"))
    params, batch = random_params(model), batch_of("1p", "2i")
    value, aux = method.loss({"params": params, "state": {}}, batch, KEY)
    parts = {}
    for name, rows in batch.items():
        one, _ = method.loss({"params": params, "state": {}}, {name: rows}, KEY)
        parts[name] = float(one) * rows["weight"].sum(), rows["weight"].sum()
    np.testing.assert_allclose(value, sum(a for a, _ in parts.values()) / sum(b for _, b in parts.values()), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["loss"].value(), value, rtol=1e-6)
    padded = jax.tree.map(lambda x: np.concatenate([x, x]), batch)
    for rows in padded.values():
        rows["weight"][2:] = 0.0
    again, _ = method.loss({"params": params, "state": {}}, padded, KEY)
    np.testing.assert_allclose(again, value, rtol=1e-6)


def test_negatives_come_from_the_key_and_may_leave_out_answers():
    answers = jnp.array([[0, 1, 2, 3, 12, 12], [5, 12, 12, 12, 12, 12], [6, 7, 8, 9, 10, 11]])
    found = np.asarray(sample_others(KEY, answers, 4000, ENTITIES))
    for row, known in zip(found, answers, strict=True):
        free = sorted(set(range(ENTITIES)) - set(np.asarray(known).tolist()))
        counts = np.bincount(row, minlength=ENTITIES)
        assert sorted(np.flatnonzero(counts)) == free
        assert counts[free].min() > 0.7 * 4000 / len(free)
    model = MODELS["gqe"]()
    batch = {"1p": {k: v for k, v in rows_of("1p").items() if k != "negative"}}
    variables = {"params": random_params(model), "state": {}}
    method = query_method(model, ("1p",), negatives=2)
    losses = [float(method.loss(variables, batch, key)[0]) for key in (KEY, KEY, jax.random.key(1))]
    assert losses[0] == losses[1] != losses[2]
    filtered = query_method(model, ("1p",), negatives=2, filter_negatives=True)
    with pytest.raises(ValueError, match="batch, query 1p: has no 'answers', which filter_negatives needs"):
        filtered.loss(variables, batch, KEY)
    only = {"1p": batch["1p"] | {"answers": np.tile(np.delete(np.arange(ENTITIES), 7), (2, 1)).astype(np.int32)}}
    explicit = {"1p": batch["1p"] | {"negative": np.full((2, 2), 7, np.int32)}}
    np.testing.assert_allclose(filtered.loss(variables, only, KEY)[0], filtered.loss(variables, explicit, KEY)[0])


def test_wrong_batches_are_named():
    model = MODELS["gqe"]()
    method = query_method(model, ("1p", "2i"))
    variables = {"params": random_params(model), "state": {}}
    batch = batch_of("1p")
    with pytest.raises(ValueError, match="batch: holds query structure '3p', expected some of 1p, 2i"):
        method.loss(variables, batch_of("3p"), KEY)
    del batch["1p"]["weight"]
    with pytest.raises(ValueError, match="batch, query 1p: has no 'weight', found negative, positive, query"):
        method.loss(variables, batch, KEY)
    with pytest.raises(ValueError, match=r"query 2i: found tokens of shape \(2, 2\), expected \(n, 4\): e r e r"):
        method.predict(variables, {"2i": rows_of("1p")})
    with pytest.raises(ValueError, match="gqe has no negation, which query pni needs"):
        query_method(model, ("1p", "pni"))
    with pytest.raises(ValueError, match="no query structure '1q'"):
        query_method(model, ("1q",))
    with pytest.raises(ValueError, match="negatives: found 0"):
        query_method(model, ("1p",), negatives=0)


def test_an_abstract_batch_has_the_shapes_of_a_real_one():
    method = query_method(MODELS["betae"](), ("1p", "2in"), negatives=3)
    abstract, real = method.batch(5), {"1p": rows_of("1p", 3), "2in": rows_of("2in", 2)}
    assert leaf_names(abstract) == leaf_names(real)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == jax.tree.map(lambda x: (x.shape, x.dtype), real)
    shapes = jax.eval_shape(method.init, KEY, None)
    value, aux = jax.eval_shape(method.loss, shapes, abstract, KEY)
    assert value.shape == () and set(aux.metrics) == {"loss", "positive_loss", "negative_loss"}


def test_a_step_on_eight_devices_is_the_step_on_one():
    method = query_method(MODELS["query2box"](row_multiple=4), ("1p", "2i"))
    optimizer = optax.sgd(0.1)  # Adam makes steps of the rounding errors of gradients that are zero
    variables = {"params": random_params(MODELS["query2box"](row_multiple=4)), "state": {}}
    batch = batch_of("1p", "2i")
    ends = []
    for mesh in (None, make_mesh("data:2,model:4")):
        ts, frozen = begin(method, optimizer, variables, seed=0)
        placed = None if mesh is None else placement(ts, frozen, method.shardings, mesh)
        if placed is not None:
            ts, frozen = jax.device_put((ts, frozen), placed.trees)
            assert len(ts.trained["entity"]["embedding"].addressable_shards[0].data) == ENTITIES // 4
        ts, _ = train_step(method, optimizer, placement=placed)(ts, frozen, put_batch(batch, mesh))
        ends.append(jax.tree.map(np.asarray, ts.trained))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *ends)


def test_a_batch_of_paths_leaves_the_intersection_and_its_moments_alone():
    model = MODELS["gqe"]()
    params = jax.tree.map(jnp.asarray, random_params(model))
    transform = query_adam(0.01, drops=(3,))

    @jax.jit
    def step(params, opt, gradient):
        moved, opt = transform.update(gradient, opt, params)
        return jax.tree.map(jnp.add, params, moved), opt

    ones = jax.tree.map(jnp.ones_like, params)
    path = ones | {"intersection": jax.tree.map(jnp.zeros_like, ones["intersection"])}
    opt = transform.init(params)
    moved, opt = step(params, opt, ones)
    kept = jax.tree.leaves(moved["intersection"])
    moved, opt = step(moved, opt, path)
    for a, b in zip(jax.tree.leaves(moved["intersection"]), kept, strict=True):
        np.testing.assert_array_equal(a, b)
    counts = {
        n: int(s.inner_state.count) for n, s in opt[0].inner.inner_states.items() if n in ("embeddings", "intersection")
    }
    assert counts == {"embeddings": 2, "intersection": 1}
    before = moved
    moved, opt = step(moved, opt, ones)
    np.testing.assert_allclose(before["relation"]["embedding"] - moved["relation"]["embedding"], 0.01, rtol=1e-3)
    before = moved
    moved, opt = step(moved, opt, jax.tree.map(lambda x: -5.0 * x, ones))
    # New moments at the drop: the first step of Adam goes by the rate against the gradient's sign, whatever was before.
    np.testing.assert_allclose(before["relation"]["embedding"] - moved["relation"]["embedding"], -0.002, rtol=1e-3)


def test_drops_of_the_rate():
    assert drop_updates(3) == (6,)
    assert drop_updates(450_000) == (675_003, 1_012_503)
    assert drop_updates(10, updates_per_step=1) == (6, 9)
    assert alternation(("1p", "2i", "3p")) == (("1p", "3p"), ("2i",), ("1p", "3p"))
    assert alternation(("1p",)) == (("1p",),)


def test_the_robust_loss_is_bounded_symmetric_and_never_flat():
    s = jnp.array([-80.0, -50.0, -3.0, 0.0, 4.0, 60.0])
    np.testing.assert_allclose(pointwise(s, Robust(q=1.0)) + pointwise(-s, Robust(q=1.0)), 1.0, rtol=1e-6)
    slope = jax.vmap(jax.grad(lambda x: pointwise(x, Robust(q=0.3))))(s)
    expected = -np.exp(0.3 * np.asarray(jax.nn.log_sigmoid(s), np.float64)) / (1 + np.exp(np.asarray(s, np.float64)))
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-30)
    traced = jax.jit(cross_entropy)(jnp.float32(-2.0), 0.0)
    np.testing.assert_allclose(traced, 2.0)
    mixed = pointwise(s, Robust(mix=0.25))
    np.testing.assert_allclose(mixed, 0.75 * pointwise(s) + 0.25 * pointwise(s, Robust(q=1.0)), rtol=1e-5)
    p, n = jnp.array([[1.0]]), jnp.array([[-1.0, 0.5]])
    one = per_query(p, n, Robust(q=0.5, sides="positive"))
    np.testing.assert_allclose(one.negative, per_query(p, n).negative)
    assert one.positive[0] < per_query(p, n).positive[0]
    smooth = per_query(p, n, Robust(eps=0.1)).positive
    np.testing.assert_allclose(smooth, 0.9 * pointwise(p)[0] + 0.1 * pointwise(-p)[0], rtol=1e-6)
    total = weighted(one, jnp.array([2.0]))
    np.testing.assert_allclose(total.total, (total.positive + total.negative) / 2)
    np.testing.assert_allclose(subsampling_weight(jnp.array([0, 12])), [0.5, 0.25])


@pytest.mark.parametrize(
    ("robust", "message"),
    [
        (Robust(q=1.5), "q: found 1.5, expected 0 to 1"),
        (Robust(q=0.3, mix=0.1), "mix: found 0.1 beside q 0.3"),
        (Robust(sides="left"), "sides: found 'left', expected both or positive"),
        (Robust(warm=3), "warm: found 3, expected 0 where q is 0"),
        (Robust(q=0.3, warm=3), "warm: found 3, expected 0 for the plain objective"),
    ],
)
def test_robust_options_without_meaning(robust, message):
    with pytest.raises(ValueError, match=message):
        plain(robust)
