"""DPCML as a method: options have effects, vectors stay where they must, training learns, errors name what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmodels as jm
from jaxmodels.recommendation.dpcml import Objective, dpcml
from jaxmodels.recommendation.known import known_of
from jaxmodels.recommendation.preference import hardest, preference

USERS, ITEMS, DIM = 12, 20, 4
PAIRS = np.nonzero(np.random.default_rng(0).random((USERS, ITEMS)) < 0.3)
KNOWN = known_of(*PAIRS, num_users=USERS, num_items=ITEMS)
BATCH = {"user": PAIRS[0][:16], "positive": PAIRS[1][:16], "weight": np.ones(16, np.float32)}


def built(vectors=3, norm="dpcml", counts=None, **objective):
    method = dpcml(USERS, ITEMS, dim=DIM, vectors=vectors, norm=norm, counts=counts, objective=Objective(**objective))
    return method, method.init(jax.random.key(0), {"known": KNOWN})


def value(method, variables, batch=BATCH):
    return float(method.loss(variables, batch, jax.random.key(1))[0])


@pytest.mark.parametrize(
    "changed",
    [
        {"margin": 1.5}, {"form": "mean"}, {"form": "topk", "beta": 0.3}, {"form": "soft"}, {"negatives": 3},
        {"strategy": "popular"}, {"diversity": 0.0}, {"low": 0.2}, {"bounds": "paper"}, {"reduction": "mean"},
    ],
    ids=lambda changed: "-".join(map(str, changed.items())),
)  # fmt: skip
def test_every_option_changes_the_loss(changed):
    usual = {"low": 0.1, "high": 0.3}
    assert value(*built(**usual)) != value(*built(**{**usual, **changed}))


def test_cvar_at_its_best_threshold_is_the_mean_of_the_hardest():
    far = jnp.asarray(np.random.default_rng(0).random((5, 8)))
    near, options = jnp.full(5, 0.5), {"margin": 0.6, "beta": 0.4}
    hinge = jnp.maximum(0.6 + near[:, None] - far, 0)
    threshold = jnp.sort(hinge, axis=1)[:, -hardest(8, 0.4)]
    best = preference(near, far, form="cvar", threshold=threshold, **options)
    np.testing.assert_allclose(best, preference(near, far, form="topk", **options), rtol=1e-6)
    worse = preference(near, far, form="cvar", threshold=threshold + 0.1, **options)
    assert (worse >= best - 1e-6).all() and (worse > best).any()


def test_padding_rows_do_not_count():
    method, variables = built()
    padded = {name: np.concatenate([x, x[:4]]) for name, x in BATCH.items()}
    padded["weight"][16:] = 0
    negative = np.random.default_rng(0).integers(0, ITEMS, (20, 5))
    one = value(method, variables, {**BATCH, "negative": negative[:16]})
    assert value(method, variables, {**padded, "negative": negative}) == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize("norm", ["dpcml", "sphere", "ball", "none"])
def test_vectors_stay_where_the_norm_says(norm):
    method, variables = built(norm=norm, form="nearest")
    batches = [BATCH] * 5
    params = jm.fit(method, batches, optax.adam(0.5), steps=5, variables=variables).variables["params"]
    user, item = (np.linalg.norm(params[name].reshape(-1, DIM), axis=-1) for name in ("user", "item"))
    if norm in ("dpcml", "sphere"):
        np.testing.assert_allclose(user, 1, rtol=1e-5)
    if norm == "sphere":
        np.testing.assert_allclose(item, 1, rtol=1e-5)
    if norm == "ball":
        assert max(user.max(), item.max()) <= 1 + 1e-5
    if norm == "none":
        assert item.max() > 1.2 and np.abs(user - 1).max() > 0.1


def test_fewer_vectors_for_some_users_are_never_the_nearest_and_never_trained():
    counts = np.array([1] * 6 + [3] * 6)
    method, variables = built(counts=counts, norm="none")
    grads = jax.grad(lambda p: method.loss({**variables, "params": p}, BATCH, jax.random.key(1))[0])(
        variables["params"]
    )
    assert (np.asarray(grads["user"])[:6, DIM:] == 0).all() and (np.asarray(grads["user"])[0, :DIM] != 0).any()
    moved = jax.tree.map(jnp.array, variables)
    moved["params"]["user"] = moved["params"]["user"].at[:6, DIM:].set(7.0)
    users = {"user": np.arange(6)}
    np.testing.assert_array_equal(method.predict(moved, users), method.predict(variables, users))


def test_training_ranks_positives_above_the_others():
    method, variables = built(vectors=2, diversity=1.0)
    rows = {"user": PAIRS[0], "positive": PAIRS[1], "weight": np.ones(len(PAIRS[0]), np.float32)}
    after = jm.fit(method, [rows] * 150, optax.adam(0.05), steps=150, variables=variables).variables
    scores = np.asarray(method.predict(after, {"user": np.arange(USERS)}))
    positive = np.zeros((USERS, ITEMS), bool)
    positive[PAIRS] = True
    auc = np.mean([(s[p][:, None] > s[~p][None]).mean() for s, p in zip(scores, positive, strict=True)])
    assert auc > 0.9


def test_a_step_over_devices_equals_one_device():
    method, variables = built()
    batches = [{k: np.concatenate([v, v]) for k, v in BATCH.items()}] * 2
    optimizer = optax.sgd(0.1)
    alone = jm.fit(method, batches, optimizer, steps=2, variables=variables).variables["params"]
    mesh = jm.make_mesh("data:2,model:4")
    spread = jm.fit(method, batches, optimizer, steps=2, variables=variables, mesh=mesh).variables["params"]
    for name in alone:
        np.testing.assert_allclose(spread[name], alone[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "hard"}, "form: found 'hard', expected one of mean, nearest"),
        ({"beta": 0.0}, "beta: found 0.0"),
        ({"strategy": "two"}, "strategy: found 'two', expected one of uniform, popular"),
        ({"negatives": 0}, "negatives: found 0"),
        ({"norm": "cube"}, "norm: found 'cube'"),
        ({"vectors": 0}, "found vectors=0"),
        ({"counts": np.full(USERS, 9)}, "counts: expected 12 numbers from 1 to vectors=3"),
    ],
)
def test_options_without_meaning_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        built(**options)


def test_without_known_positives_negatives_must_come_with_the_batch():
    method, _ = built()
    variables = method.init(jax.random.key(0), None)
    with pytest.raises(ValueError, match="batch: found no 'negative'"):
        method.loss(variables, BATCH, jax.random.key(0))
