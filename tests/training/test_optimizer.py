import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmodels.rules import split
from jaxmodels.training.optimizer import adamw, decayed, sgd

GROUPS = (("head/.*", "head"), ("tuner/.*", "tuner"), (".*", "frozen"))


def params():
    return {
        "backbone": {"kernel": jnp.ones((4, 4))},
        "tuner": {"block0/attn": {"a": jnp.ones((4, 2))}, "cls_token": jnp.ones((1, 1, 4))},
        "head": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)},
    }


def step(optimizer, gradient=1.0):
    trained, _ = split(params(), GROUPS)
    grads = jax.tree.map(lambda x: gradient * jnp.ones_like(x), trained)
    updates, _ = optimizer.update(grads, optimizer.init(trained), trained)
    return updates


def test_groups_have_their_own_rate_and_only_matrices_decay():
    updates = step(adamw(GROUPS, 0.1, weight_decay=0.5, factors={"head": 2.0}))
    np.testing.assert_allclose(updates["tuner"]["block0/attn"]["a"], -0.1 * 1.5, rtol=1e-5)
    np.testing.assert_allclose(updates["tuner"]["cls_token"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.2 * 1.5, rtol=1e-5)
    np.testing.assert_allclose(updates["head"]["bias"], -0.2, rtol=1e-5)
    assert updates["backbone"]["kernel"] is None


def test_schedules_pass_through_the_groups():
    schedule = optax.piecewise_constant_schedule(0.1, {1: 0.5})
    optimizer = sgd(GROUPS, schedule, momentum=0.0, factors={"tuner": 3.0})
    trained, _ = split(params(), GROUPS)
    state = optimizer.init(trained)
    grads = jax.tree.map(jnp.ones_like, trained)
    rates = []
    for _ in range(2):
        updates, state = optimizer.update(grads, state, trained)
        rates.append((-float(updates["head"]["bias"][0]), -float(updates["tuner"]["block0/attn"]["a"][0, 0])))
    np.testing.assert_allclose(rates, [(0.1, 0.3), (0.05, 0.15)], rtol=1e-6)


def test_sgd_adds_decay_to_the_gradient():
    updates = step(sgd(GROUPS, 0.1, weight_decay=0.5))
    np.testing.assert_allclose(updates["head"]["kernel"], -0.15, rtol=1e-6)
    np.testing.assert_allclose(updates["head"]["bias"], -0.1, rtol=1e-6)


def test_clipping_divides_by_the_norm_of_what_trains():
    updates = step(sgd(GROUPS, 1.0, momentum=0.0, clip=1.0), gradient=5.0)
    assert float(optax.tree.norm(updates)) == pytest.approx(1.0, rel=1e-5)


def test_moments_cover_trained_leaves_only():
    trained, _ = split(params(), GROUPS)
    moments = [x for x in jax.tree.leaves(adamw(GROUPS, 0.1).init(trained)) if x.ndim]
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in jax.tree.leaves(trained))


def test_decay_rule():
    found = decayed({"a": jnp.ones((2, 2)), "q": {"bias": jnp.ones((2, 2))}, "pos_embed": jnp.ones((1, 2, 2))})
    assert found == {"a": True, "q": {"bias": False}, "pos_embed": False}


def test_an_unknown_group_is_an_error():
    with pytest.raises(ValueError, match="factors: no group 'heads'; the method trains head, tuner"):
        adamw(GROUPS, 0.1, factors={"heads": 2.0})
