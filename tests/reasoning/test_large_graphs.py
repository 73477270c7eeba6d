"""Entity tables over several devices: the same numbers, and never the whole table on the way."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmodels.planning.collectives import collectives
from jaxmodels.planning.training import plan_train
from jaxmodels.reasoning.adam import query_adam
from jaxmodels.reasoning.gqe import gqe
from jaxmodels.reasoning.method import query_method
from jaxmodels.reasoning.metrics import filtered_ranks
from jaxmodels.reasoning.query_model import scores_of_all
from jaxmodels.training.mesh import make_mesh, placement, put_batch
from jaxmodels.training.state import begin, train_step
from tests.reasoning.small import random_params

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
ROWS, DIM = 4096, 8  # a table that is larger than anything else in the programs below
MODEL = gqe(4090, 6, dim=DIM, gamma=6.0, row_multiple=8)
METHOD = query_method(MODEL, ("1p", "2i"), negatives=3)


def rows_of(width, count=4):
    rng = np.random.default_rng(0)
    query = rng.integers(6, size=(count, width)).astype(np.int32)
    query[:, ::2] = rng.integers(4090, size=(count, width // 2))
    near = {"positive": rng.integers(4090, size=count), "negative": rng.integers(4090, size=(count, 3))}
    ids = {name: value.astype(np.int32) for name, value in near.items()}
    return {"query": query, **ids, "weight": rng.uniform(0.2, 0.5, count).astype(np.float32)}


BATCH = {"1p": rows_of(2), "2i": rows_of(4)}


@pytest.mark.parametrize("mesh", ["data:2,model:4", "model:8"])
def test_a_step_on_a_spread_table_is_the_step_on_one_device_and_gathers_no_table(mesh):
    optimizer = optax.sgd(1.0)
    variables = {"params": random_params(MODEL), "state": {}}
    ends = []
    for spread in (None, make_mesh(mesh)):
        ts, frozen = begin(METHOD, optimizer, jax.tree.map(jnp.array, variables), seed=0)
        placed = None if spread is None else placement(ts, frozen, METHOD.shardings, spread)
        if placed is not None:
            ts, frozen = jax.device_put((ts, frozen), placed.trees)
            part = ts.trained["entity"]["embedding"].addressable_shards[0].data
            assert len(part) == ROWS // spread.shape["model"]
        step, batch = train_step(METHOD, optimizer, placement=placed), put_batch(BATCH, spread)
        if spread is not None:
            sent = collectives(step.lower(ts, frozen, batch).compile().as_text(), devices=8)
            table = ROWS * DIM * 4
            others = [each for each in sent if each.kind != "all-reduce"]  # rows of the batch change places
            assert sent and sum(each.bytes for each in others) < table // 64
            assert sum(each.bytes for each in sent if each.group == spread.shape["model"]) < table // 4
        ts, _ = step(ts, frozen, batch)
        ends.append(jax.tree.map(np.asarray, ts.trained))
    before = np.asarray(variables["params"]["entity"]["embedding"])
    assert np.abs(ends[0]["entity"]["embedding"] - before).max() > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *ends)


def ranked(params, easy, hard, query):
    scores = scores_of_all(MODEL, params, "2i", query, chunk=256)
    return scores, filtered_ranks(scores, easy, hard)


def test_scores_and_ranks_over_a_spread_table_are_those_of_one_device():
    rng = np.random.default_rng(1)
    kind = rng.choice(3, p=[0.98, 0.01, 0.01], size=(4, 4090))
    params, query = random_params(MODEL), BATCH["2i"]["query"]
    rest = jnp.asarray(kind == 1), jnp.asarray(kind == 2), jnp.asarray(query)
    mesh = make_mesh("data:2,model:4")
    shape = placement(*begin(METHOD, optax.sgd(1.0), {"params": params, "state": {}}, seed=0), METHOD.shardings, mesh)
    placed = jax.device_put(params, shape.trees[0].trained)
    assert len(placed["entity"]["embedding"].sharding.device_set) == 8
    for one, spread in zip(jax.jit(ranked)(params, *rest), jax.jit(ranked)(placed, *rest), strict=True):
        np.testing.assert_allclose(spread, one, rtol=1e-5, atol=1e-5)


def test_ranking_holds_scores_but_never_a_distance_of_every_entity_in_every_dimension():
    queries, entities, dim = 8, 4090, 64
    wide = gqe(entities, 6, dim=dim, gamma=6.0)
    params = jax.eval_shape(wide.init, jax.random.key(0))
    mask = jax.ShapeDtypeStruct((queries, entities), bool)

    def every(params, easy, hard, query):
        return filtered_ranks(scores_of_all(wide, params, "1p", query, chunk=128), easy, hard)

    def held(function):
        query = jax.ShapeDtypeStruct((queries, 2), jnp.int32)
        compiled = jax.jit(function).lower(params, mask, mask, query).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    table, scores = entities * dim * 4, queries * entities * 4
    assert held(every) < 2 * table + 16 * scores < queries * entities * dim * 4


@pytest.mark.slow
@needs_libtpu
def test_five_million_entities_fit_a_slice_once_the_table_is_spread():
    method = query_method(gqe(5_000_000, 2_000, dim=400, row_multiple=16), ("1p",), negatives=128)
    options = {"chips": "v5e:4x4", "batch_size": 512}
    spread = plan_train(method, query_adam(1e-4), mesh="model:16", **options)
    assert spread.fits and spread.trained > 2e9
    assert spread.collectives and {each.kind for each in spread.collectives} == {"all-reduce"}
    rows = 512 * (1 + 1 + 128) * 400 * 4  # of the anchors, positives and negatives of a batch: 1.3 % of the table
    assert rows <= sum(each.bytes for each in spread.collectives) < 1.1 * rows
    whole = plan_train(method, query_adam(1e-4), mesh="data:16", **options)
    assert not whole.fits
