"""Filtered ranking over hard answers (Ren and Leskovec 2020, arXiv 2010.11465, section 5).

All entities are scored. A hard answer's rank counts only entities that are no answer at all; a query's metric is the
mean over its hard answers, a structure's the mean over its queries.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxmodels.reasoning.structures import NEGATED

TIES = ("mean", "optimistic")
NAMES = ("mrr", "hits1", "hits3", "hits10")


def filtered_ranks(
    scores: Float[Array, "n e"], easy: Bool[Array, "n e"], hard: Bool[Array, "n e"], *, ties: str = "mean"
) -> Float[Array, "n e"]:
    """The filtered rank of every hard answer, 0 elsewhere.

    rank = 1 + non-answers with a larger score + half of those with an equal one ('mean') or none of them
    ('optimistic'). NaN where the score of a hard answer, or of any non-answer of that query, is NaN.

    Args:
        scores: of all entities.
        easy: answers that the smaller graph has.
        hard: the other answers.
        ties: 'mean' or 'optimistic'.

    Raises:
        ValueError: an unknown rule of ties.
    """
    if ties not in TIES:
        raise ValueError(f"ties: found '{ties}', expected {' or '.join(TIES)}")
    others = ~(easy | hard)
    count = others.sum(1, keepdims=True)
    # Non-answers ascending, answers pushed behind them.
    behind = jnp.where(others, scores, jnp.inf)
    ordered = jnp.sort(behind, axis=1)
    below = jax.vmap(lambda row, s: jnp.searchsorted(row, s, side="left"))(ordered, scores)
    upto = jax.vmap(lambda row, s: jnp.searchsorted(row, s, side="right"))(ordered, scores)
    below, upto = jnp.minimum(below, count), jnp.minimum(upto, count)
    greater, equal = count - upto, upto - below
    rank = 1.0 + greater + (0.5 * equal if ties == "mean" else 0.0)
    broken = jnp.isnan(jnp.where(others, scores, 0.0)).any(1, keepdims=True) | jnp.isnan(scores)
    return jnp.where(hard, jnp.where(broken, jnp.nan, rank), 0.0).astype(jnp.result_type(float))


def per_query(ranks: Float[Array, "n e"], hard: Bool[Array, "n e"]) -> Float[Array, "n 4"]:
    """MRR and Hits@1, 3, 10 of each query, fractions; NaN for a query without hard answers.

    Args:
        ranks: by `filtered_ranks`.
        hard: the answers that were ranked.
    """
    safe = jnp.where(hard, ranks, 1.0)
    each = [1.0 / safe, *(safe <= k for k in (1, 3, 10))]
    means = [jnp.where(hard, value, 0.0).sum(1) / hard.sum(1) for value in each]
    found = jnp.stack(means, axis=1)
    return jnp.where(jnp.isnan(means[0])[:, None], jnp.nan, found)


class Summary(NamedTuple):
    """Metrics of one structure, fractions, and the number of queries that have hard answers."""

    mrr: float
    hits1: float
    hits3: float
    hits10: float
    queries: int


def summarize(each: Float[np.ndarray, "n 4"], hard: Bool[np.ndarray, "n e"], name: str = "") -> Summary:
    """The mean over queries; those without hard answers are left out.

    Args:
        each: by `per_query`.
        hard: hard answers.
        name: of the structure, for errors.

    Raises:
        ValueError: no query has a hard answer, or a score was not a number.
    """
    counted = np.any(hard, axis=1)
    if not counted.any():
        raise ValueError(f"query {name}: none of {len(counted)} queries has a hard answer, expected at least one")
    rows = np.asarray(each, np.float64)[counted]
    if np.isnan(rows).any():
        raise ValueError(f"query {name}: {int(np.isnan(rows).any(1).sum())} queries have scores that are no numbers")
    mrr, hits1, hits3, hits10 = (float(x) for x in rows.mean(0))
    return Summary(mrr, hits1, hits3, hits10, int(counted.sum()))


def averages(summaries: Mapping[str, Summary], *, unseen: Sequence[str] = ()) -> dict[str, Summary]:
    """Unweighted means over structures: all, positive, negated, and seen and unseen in training.

    Args:
        summaries: structure -> metrics.
        unseen: structures that training did not have.

    Returns:
        'average', and 'positive', 'negated', 'seen', 'unseen' where there are such structures.
    """
    groups = {
        "average": list(summaries),
        "positive": [n for n in summaries if n not in NEGATED],
        "negated": [n for n in summaries if n in NEGATED],
        "seen": [n for n in summaries if n not in unseen] if unseen else [],
        "unseen": [n for n in summaries if n in unseen],
    }
    return {label: _mean([summaries[n] for n in names]) for label, names in groups.items() if names}


def _mean(each: Sequence[Summary]) -> Summary:
    columns = list(zip(*each, strict=True))
    mrr, hits1, hits3, hits10 = (float(np.mean(column)) for column in columns[:4])
    return Summary(mrr, hits1, hits3, hits10, int(sum(columns[4])))
