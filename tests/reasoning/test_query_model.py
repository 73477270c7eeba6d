import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.data.query_structures import STRUCTURES
from jaxmodels.reasoning.betae import Beta, divergence, divergences, regularized, terms
from jaxmodels.reasoning.query2box import query2box
from jaxmodels.reasoning.query_model import (
    embed,
    from_published,
    manhattan,
    scores,
    scores_of_all,
    supported,
    to_published,
)
from jaxmodels.training.mesh import make_mesh, param_shardings
from tests.reasoning.small import ENTITIES, MODELS, RELATIONS, random_params, random_queries


@pytest.mark.parametrize("name", MODELS)
def test_chunks_of_all_entities_are_the_scores_of_each(name):
    model = MODELS[name](row_multiple=5)
    params, rows = random_params(model), jnp.asarray(random_queries("up-DNF", 3))
    assert params["entity"]["embedding"].shape[0] == 15
    everyone = jnp.broadcast_to(jnp.arange(ENTITIES)[None], (3, ENTITIES))
    one = jax.jit(lambda p: scores(model, p, "up-DNF", rows, everyone))(params)
    for chunk in (4, 100):
        found = jax.jit(lambda p, c=chunk: scores_of_all(model, p, "up-DNF", rows, chunk=c))(params)
        np.testing.assert_allclose(found, one, rtol=1e-4, atol=1e-4)


def test_a_table_over_eight_devices_scores_as_on_one_and_is_not_gathered():
    model = MODELS["betae"](row_multiple=16)
    params, rows = random_params(model), jnp.asarray(random_queries("2i", 3))
    mesh = make_mesh("model:8")
    placed = jax.device_put(params, param_shardings(params, model.shardings, mesh))
    assert len(placed["entity"]["embedding"].sharding.device_set) == 8
    assert placed["entity"]["embedding"].addressable_shards[0].data.shape == (2, 8)
    every = jax.jit(lambda p: scores_of_all(model, p, "2i", rows, chunk=8))
    np.testing.assert_allclose(every(placed), every(params), rtol=1e-5, atol=2e-6)  # gamma less a divergence
    text = every.lower(placed).compile().as_text()
    assert not [line for line in text.splitlines() if "all-gather" in line and "f32[16,8]" in line]


def test_disjuncts_count_by_their_best():
    model = MODELS["gqe"]()
    params, rows = random_params(model), jnp.asarray(random_queries("2u-DNF", 4))
    ids = jnp.arange(8).reshape(4, 2)
    branches = [scores(model, params, "1p", rows[:, columns], ids) for columns in (slice(0, 2), slice(2, 4))]
    np.testing.assert_array_equal(scores(model, params, "2u-DNF", rows, ids), jnp.maximum(*branches))


def test_de_morgan_of_a_union_is_the_written_structure():
    model = MODELS["betae"]()
    params, rows = random_params(model), jnp.asarray(random_queries("2u-DNF", 2))
    (found,) = embed(model, params, "2u-DNF", rows, union="dm")
    negation = jnp.full((2, 1), -2, rows.dtype)
    written = jnp.concatenate([rows[:, :2], negation, rows[:, 2:4], negation, negation], axis=1)
    (expected,) = embed(model, params, "2u-DM", written)
    np.testing.assert_array_equal(found.alpha, expected.alpha)
    assert len(embed(model, params, "2u-DNF", rows)) == 2


def test_a_structure_of_ones_own_needs_no_code():
    HOP = STRUCTURES["1p"]
    four = (HOP, HOP, HOP, HOP)
    model = MODELS["query2box"]()
    (box,) = embed(model, random_params(model), four, jnp.asarray(random_queries(four, 3)))
    assert box.center.shape == box.offset.shape == (3, 4)


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_of_the_published_names_comes_back(name):
    model = MODELS[name](row_multiple=8)
    params = jax.tree.map(np.array, random_params(model))
    params["entity"]["embedding"][ENTITIES:] = 0.0
    state = to_published(model, params)
    assert state["entity_embedding"].shape[0] == ENTITIES and state["gamma"] == 6.0
    assert state["embedding_range"] == (6.0 + 2.0) / 4
    assert state["center_net.layer2.weight"].shape[0] == 4
    jax.tree.map(np.testing.assert_array_equal, from_published(model, state), params)


def test_a_foreign_checkpoint_is_told_apart():
    model = MODELS["gqe"]()
    state = to_published(model, random_params(model))
    with pytest.raises(ValueError, match="checkpoint: found gamma 12.0, expected the model's 6.0"):
        from_published(model, state | {"gamma": np.array([12.0])})
    with pytest.raises(ValueError, match="nothing reads 'offset_embedding'"):
        from_published(model, state | {"offset_embedding": np.zeros((6, 4))})
    del state["relation_embedding"]
    with pytest.raises(ValueError, match="checkpoint: has no 'relation_embedding'"):
        from_published(model, state)


def test_what_models_cannot_do_is_said():
    model = MODELS["gqe"]()
    params = random_params(model)
    with pytest.raises(ValueError, match=r"gqe has no negation, which query 2in needs \(union=dnf\)"):
        embed(model, params, "2in", jnp.asarray(random_queries("2in", 1)))
    with pytest.raises(ValueError, match=r"gqe has no negation, which query 2u-DNF needs \(union=dm\)"):
        embed(model, params, "2u-DNF", jnp.asarray(random_queries("2u-DNF", 1)), union="dm")
    with pytest.raises(ValueError, match="union: found 'max', expected dnf or dm"):
        embed(model, params, "1p", jnp.asarray(random_queries("1p", 1)), union="max")
    for name in ("2p", "2u-DNF"):
        with pytest.raises(ValueError, match=rf"query {name}: found tokens of shape \(1, 2\), expected"):
            embed(model, params, name, jnp.zeros((1, 2), jnp.int32))
    with pytest.raises(ValueError, match="activation: found 'relux'; did you mean 'relu'"):
        query2box(ENTITIES, RELATIONS, activation="relux")
    assert [n for n in STRUCTURES if not supported(model, n)] == [
        "2in", "3in", "inp", "pin", "pni", "2u-DM", "up-DM",
    ]  # fmt: skip


def test_gradients_at_corners_are_those_of_pytorch():
    here = jnp.array([[[1.0, 2.0]]])
    assert jax.grad(lambda x: manhattan(x, here).sum())(jnp.array([[[1.0, 3.0]]])).tolist() == [[[0.0, 1.0]]]
    at = jnp.array([-0.95, -0.96, -0.9, 2e9])
    np.testing.assert_array_equal(jax.vmap(jax.grad(regularized))(at), [1.0, 0.0, 1.0, 0.0])


def test_divergences_by_products_are_those_of_pairs():
    rng = np.random.default_rng(0)
    p, q = (Beta(*jnp.asarray(rng.uniform(0.1, 5, (2, n, 3)), jnp.float32)) for n in (5, 4))
    each = [
        [divergence(Beta(p.alpha[j], p.beta[j]), Beta(q.alpha[i], q.beta[i])).sum() for j in range(5)] for i in (0, 3)
    ]
    found = divergences(terms(jnp.concatenate(p, axis=-1)), q)
    np.testing.assert_allclose(found[jnp.array([0, 3])], np.array(each), rtol=1e-4, atol=1e-5)
