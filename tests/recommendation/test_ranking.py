"""Ranks and metrics against slow, obvious versions."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.recommendation.metrics import at_k, max_diversity, mean, whole_list
from jaxmodels.recommendation.ranking import ranks_of

USERS, ITEMS = 11, 17


def lists(dense):
    return np.concatenate([[0], np.cumsum(dense.sum(1))]), np.nonzero(dense)[1]


def data(seed=0):
    """Scores with ties, training items, held-out items that are no training items."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 6, (USERS, ITEMS)).astype(np.float32)
    seen = random.random((USERS, ITEMS)) < 0.3
    held = (random.random((USERS, ITEMS)) < 0.3) & ~seen
    held[2] = False  # a user without held-out items
    return scores, seen, held


def slow_order(scores, seen):
    """Ids from best to worst, equal ones by id, without what was seen."""
    return [i for i in np.lexsort((np.arange(ITEMS), -scores)) if not seen[i]]


def found(scores, seen, held, **options):
    return ranks_of(lambda v, b: v[b["user"]], jnp.asarray(scores), lists(held), lists(seen), items=ITEMS, **options)


def test_ranks_are_places_in_the_sorted_list():
    scores, seen, held = data()
    ranks, best = found(scores, seen, held, top=4, chunk=4)
    orders = [slow_order(scores[u], seen[u]) for u in range(USERS)]
    expected = [1 + orders[u].index(i) for u in range(USERS) for i in np.flatnonzero(held[u])]
    assert ranks.tolist() == expected
    assert best.tolist() == [order[:4] for order in orders]


def test_metrics_are_those_of_a_loop_over_users():
    scores, seen, held = data(1)
    ranks, _ = found(scores, seen, held)
    starts, lengths = lists(held)[0], ITEMS - seen.sum(1)
    three, whole = at_k(ranks, starts, 3), whole_list(ranks, starts, lengths)
    for user in range(USERS):
        order, wanted = slow_order(scores[user], seen[user]), set(np.flatnonzero(held[user]))
        hits = [item in wanted for item in order]
        if len(wanted) < 3:
            assert all(np.isnan(each[user]) for each in (*three.values(), *whole.values()))
            continue
        gain = sum(hit / np.log2(place + 2) for place, hit in enumerate(hits[:3]))
        assert three["precision"][user] == pytest.approx(sum(hits[:3]) / 3)
        assert three["recall"][user] == pytest.approx(sum(hits[:3]) / len(wanted))
        assert three["ndcg"][user] == pytest.approx(gain / sum(1 / np.log2(k + 2) for k in range(3)))
        places = np.flatnonzero(hits) + 1
        assert whole["mrr"][user] == pytest.approx(1 / places[0])
        assert whole["map"][user] == pytest.approx(np.mean(np.arange(1, len(places) + 1) / places))
        right = sum(p < q for p in places for q in np.flatnonzero(~np.array(hits)) + 1)
        assert whole["auc"][user] == pytest.approx(right / (len(places) * (len(hits) - len(places))))


def test_a_metric_without_users_is_nan_and_others_leave_them_out():
    assert np.isnan(mean(np.array([np.nan])))
    assert mean(np.array([np.nan, 1.0, 3.0])) == 2.0


def test_diversity_counts_the_pairs_that_there_are():
    item = np.array([[0.0], [1.0], [3.0]])
    assert max_diversity(item, np.array([[0, 1, 2]]), np.array([3])) == pytest.approx(2 * (1 + 9 + 4))
    assert max_diversity(item, np.array([[0, 1, 2]]), np.array([2])) == pytest.approx(2 * 1)


def test_scores_that_are_no_numbers_and_too_long_lists_are_refused():
    scores, seen, held = data()
    scores[3, 4] = np.nan
    with pytest.raises(ValueError, match="users 0 to 10: 1 scores are NaN"):
        found(scores, seen, held)
    with pytest.raises(ValueError, match="top: found 18, expected at most 17"):
        found(scores, seen, held, top=18)
