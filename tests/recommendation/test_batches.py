"""Batches of pairs, two-stage sampling on the device, tables with spare rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmodels as jm
from jaxmodels.recommendation.batches import PairBatches
from jaxmodels.recommendation.dpcml import Objective, dpcml
from jaxmodels.recommendation.known import known_of, popularity_of
from jaxmodels.recommendation.samplers import candidate_weights
from jaxmodels.recommendation.spare_rows import with_spare_rows
from jaxmodels.recommendation.two_stage import two_stage_others
from tests.quick import quick

USERS, ITEMS = 5, 11
PAIRS = np.nonzero(np.random.default_rng(0).random((USERS, ITEMS)) < 0.4)
KNOWN = known_of(*PAIRS, num_users=USERS, num_items=ITEMS)


@pytest.mark.parametrize("times", [1, 3])
def test_an_epoch_has_every_pair_as_often_as_it_should(times):
    batches = PairBatches(*PAIRS, 8, seed=1, times=times)
    for epoch in (0, 2):
        rows = [batches[epoch * batches.per_epoch + i] for i in range(batches.per_epoch)]
        assert all(len(row["user"]) == 8 for row in rows)
        found = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        counted = found["weight"] > 0
        pairs = sorted(zip(found["user"][counted], found["positive"][counted], strict=True))
        assert pairs == sorted([*zip(*PAIRS, strict=True)] * times)
    again = PairBatches(*PAIRS, 8, seed=1, times=times)
    np.testing.assert_array_equal(again[3]["positive"], batches[3]["positive"])
    other = PairBatches(*PAIRS, 8, seed=2, times=times)
    assert (other[0]["positive"] != batches[0]["positive"]).any() or (other[0]["user"] != batches[0]["user"]).any()
    np.testing.assert_array_equal(
        PairBatches(*PAIRS, 8, seed=1, times=times, rows=[2, 3])[1]["user"], batches[1]["user"][2:4]
    )
    with pytest.raises(ValueError, match="--batch_size=0"):
        PairBatches(*PAIRS, 0, seed=1)


def test_two_stage_draws_follow_the_published_weights():
    item = np.random.default_rng(1).normal(size=(ITEMS, 3)).astype(np.float32)
    item /= np.linalg.norm(item, axis=1, keepdims=True)
    users, positives = np.arange(USERS), np.array([PAIRS[1][PAIRS[0] == u][0] for u in range(USERS)])
    popularity = popularity_of(KNOWN, ITEMS) + 1
    draw = quick(
        lambda key: two_stage_others(
            key, KNOWN, jnp.asarray(users), jnp.asarray(positives), 1, popularity, jnp.asarray(item), candidates=ITEMS
        )
    )
    found = np.concatenate([np.asarray(draw(key)) for key in jax.random.split(jax.random.key(0), 1500)], axis=1)
    weights = candidate_weights(item, positives, np.arange(ITEMS))
    dense = np.zeros((USERS, ITEMS), bool)
    dense[PAIRS] = True
    for user in users:
        expected = np.where(dense[user], 0, weights[user])
        if expected.sum() < 1e-6:
            continue
        share = np.bincount(found[user], minlength=ITEMS) / found.shape[1]
        assert share[dense[user]].sum() == 0
        np.testing.assert_allclose(share, expected / expected.sum(), atol=0.06)


def test_two_stage_candidates_are_popular_and_distinct():
    popularity = jnp.asarray([0, 0, 0, 0, 0, 0, 5, 5, 5, 5, 5])
    none = known_of(np.zeros(0, int), np.zeros(0, int), num_users=2, num_items=ITEMS)._replace(items=jnp.zeros(1, int))
    item = jnp.asarray(np.random.default_rng(1).normal(size=(ITEMS, 3)), jnp.float32)
    draw = quick(
        lambda key: two_stage_others(key, none, jnp.arange(2), jnp.array([0, 1]), 4, popularity, item, candidates=5)
    )
    found = np.asarray(draw(jax.random.key(1)))
    assert found.min() >= 6 and all(len(set(row)) == 4 for row in found.tolist())


def test_spare_rows_change_nothing():
    goal = Objective(form="cvar", beta=0.5, diversity=1.0, low=0.1, high=0.3, negatives=4)
    method = dpcml(USERS, ITEMS, dim=3, vectors=2, objective=goal)
    given = {"known": KNOWN}
    shapes = jax.eval_shape(lambda key: method.init(key, given)["params"], jax.random.key(0))
    padded = with_spare_rows(method, shapes, 4)
    assert with_spare_rows(method, shapes, 1) is method
    batches, found = PairBatches(*PAIRS, 8, seed=0), {}
    for name, each in (("plain", method), ("padded", padded)):
        variables = each.init(jax.random.key(0), given)
        found[name] = jm.fit(each, batches, optax.adam(0.1), steps=3, variables=variables).variables
    for name, rows in (("user", USERS), ("item", ITEMS), ("threshold", USERS)):
        plain, wide = found["plain"]["params"][name], found["padded"]["params"][name]
        assert len(wide) == -(-rows // 4) * 4 and (np.asarray(wide)[rows:] == 0).all()
        np.testing.assert_allclose(wide[:rows], plain, rtol=1e-5, atol=1e-6)
    users = {"user": np.arange(USERS)}
    scores = [each.predict(found[name], users) for name, each in (("plain", method), ("padded", padded))]
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5)
