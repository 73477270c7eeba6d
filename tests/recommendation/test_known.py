"""Draws on the device: never a known positive, and the right distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.recommendation.known import (
    dense_rows,
    known_of,
    listed,
    popular_others,
    popularity_of,
    uniform_others,
)
from jaxmodels.recommendation.two_stage import two_stage_others

USERS, ITEMS = 6, 9


def matrix(seed, density):
    """A random 0/1 matrix whose rows are not full."""
    random = np.random.default_rng(seed)
    found = random.random((USERS, ITEMS)) < density
    found[np.arange(USERS), random.integers(0, ITEMS, USERS)] = False
    return found


def known_from(dense):
    users, items = np.nonzero(dense)
    return known_of(users, items, num_users=len(dense), num_items=dense.shape[1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_a_drawn_negative_is_never_known(seed, density):
    dense = matrix(seed, density)
    if not dense.any():
        return
    known, users = known_from(dense), jnp.arange(USERS)
    for drawn in (
        uniform_others(jax.random.key(seed), known, users, 8, ITEMS),
        popular_others(jax.random.key(seed), known, users, 8, popularity_of(known, ITEMS) + 1),
        two_stage_others(
            jax.random.key(seed), known, users, users, 8, popularity_of(known, ITEMS) + 1, jnp.eye(ITEMS), candidates=8
        ),  # of so few candidates some users have all
    ):
        drawn = np.asarray(drawn)
        assert drawn.min() >= 0 and drawn.max() < ITEMS
        assert not dense[np.arange(USERS)[:, None], drawn].any()
        assert not np.asarray(listed(known, jnp.repeat(users[:, None], 8, 1), jnp.asarray(drawn))).any()


def test_every_free_item_is_drawn_as_often_as_it_should():
    dense = matrix(3, 0.5)
    known, popularity = known_from(dense), jnp.arange(1, ITEMS + 1)
    for weights, drawn in (
        (np.ones(ITEMS), uniform_others(jax.random.key(0), known, jnp.arange(USERS), 20_000, ITEMS)),
        (np.arange(1, ITEMS + 1), popular_others(jax.random.key(1), known, jnp.arange(USERS), 20_000, popularity)),
    ):
        for user, row in enumerate(np.asarray(drawn)):
            expected = np.where(dense[user], 0, weights)
            share = np.bincount(row, minlength=ITEMS) / len(row)
            np.testing.assert_allclose(share, expected / expected.sum(), atol=0.02)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("free", [0, 511, 512, 999])
def test_the_one_free_item_is_found_in_a_long_list_and_beside_an_empty_one(free, x64):
    dense = np.zeros((2, 1000), bool)
    dense[0] = np.arange(1000) != free
    with jax.enable_x64(x64):
        known = known_from(dense)
        for users in (jnp.array([0]), jnp.array([0, 1])):
            assert (uniform_others(jax.random.key(0), known, users, 3, 1000)[0] == free).all()
            popularity = jnp.ones(1000, jnp.int32)
            assert (popular_others(jax.random.key(0), known, users, 3, popularity)[0] == free).all()


def test_rows_and_membership_are_those_of_the_matrix():
    dense = matrix(5, 0.4)
    known = known_from(dense)
    np.testing.assert_array_equal(dense_rows(known, jnp.arange(USERS), ITEMS, ITEMS), dense)
    users, items = np.meshgrid(np.arange(USERS), np.arange(ITEMS), indexing="ij")
    np.testing.assert_array_equal(listed(known, jnp.asarray(users), jnp.asarray(items)), dense)


def test_wrong_ids_and_full_users_are_named():
    with pytest.raises(ValueError, match="interactions: found item 9, expected 0 to 8"):
        known_of(np.array([0]), np.array([9]), num_users=2, num_items=9)
    with pytest.raises(ValueError, match="interactions: found user -1, expected 0 to 1"):
        known_of(np.array([-1]), np.array([0]), num_users=2, num_items=9)
    with pytest.raises(ValueError, match="interactions: user 1 has all 2 items"):
        known_of(np.array([1, 1, 1]), np.array([0, 1, 1]), num_users=2, num_items=2)
