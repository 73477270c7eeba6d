import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.reasoning.metrics import averages, filtered_ranks, per_query, summarize


def obvious(scores, easy, hard, ties):
    """Ranks one by one."""
    ranks = np.zeros(scores.shape)
    for i, j in zip(*np.nonzero(hard), strict=True):
        others = [scores[i, x] for x in range(scores.shape[1]) if not easy[i, x] and not hard[i, x]]
        above = sum(s > scores[i, j] for s in others)
        ranks[i, j] = 1 + above + (0.5 * sum(s == scores[i, j] for s in others) if ties == "mean" else 0)
    return ranks


@given(st.integers(0, 10_000), st.sampled_from(["mean", "optimistic"]))
@settings(max_examples=30, deadline=None)
def test_ranks_are_those_of_counting(seed, ties):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, size=(6, 9)).astype(np.float32)  # few values: many ties
    kind = rng.integers(0, 4, size=(6, 9))
    easy, hard = kind == 1, kind == 2
    found = filtered_ranks(jnp.array(scores), jnp.array(easy), jnp.array(hard), ties=ties)
    expected = obvious(scores, easy, hard, ties)
    np.testing.assert_array_equal(found, expected)
    each = np.asarray(per_query(found, jnp.array(hard)))
    for i in range(6):
        own = expected[i][hard[i]]
        if own.size:
            wanted = [(1 / own).mean(), (own <= 1).mean(), (own <= 3).mean(), (own <= 10).mean()]
            np.testing.assert_allclose(each[i], wanted, rtol=1e-6)
        else:
            assert np.isnan(each[i]).all()


def test_queries_weigh_the_same_and_those_without_hard_answers_not_at_all():
    hard = np.array([[True, True, False], [True, False, False], [False, False, False]])
    ranks = jnp.array([[1.0, 2.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = summarize(np.asarray(per_query(ranks, jnp.array(hard))), hard)
    assert found.queries == 2
    np.testing.assert_allclose(found[:4], [(0.75 + 0.25) / 2, 0.25, 0.5, 1.0])


def test_scores_that_are_no_numbers_are_no_good_ranks():
    scores = jnp.array([[jnp.nan, 0.0, 1.0]])
    hard = np.array([[True, False, False]])
    ranks = filtered_ranks(scores, jnp.zeros((1, 3), bool), jnp.array(hard))
    with pytest.raises(ValueError, match="query 1p: 1 queries have scores that are no numbers"):
        summarize(np.asarray(per_query(ranks, jnp.array(hard))), hard, "1p")


def test_averages_over_kinds_of_structures():
    def one(value):
        hard = np.ones((1, 1), bool)
        return summarize(np.full((1, 4), value), hard)

    found = averages({"1p": one(0.4), "ip": one(0.2), "2in": one(0.9)}, unseen=("ip",))
    assert {name: round(each.mrr, 6) for name, each in found.items()} == {
        "average": 0.5, "positive": 0.3, "negated": 0.9, "seen": 0.65, "unseen": 0.2,
    }  # fmt: skip


def test_unknown_ties_and_nothing_to_rank():
    with pytest.raises(ValueError, match="ties: found 'best', expected mean or optimistic"):
        filtered_ranks(jnp.zeros((1, 2)), jnp.zeros((1, 2), bool), jnp.ones((1, 2), bool), ties="best")
    with pytest.raises(ValueError, match="query 2p: none of 1 queries has a hard answer"):
        summarize(np.full((1, 4), np.nan), np.zeros((1, 2), bool), "2p")
