"""Ranking all entities for the queries of a split, structure by structure, through `training.evaluate`."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.data.query_files import Lists, Queries
from jaxmodels.method import Mean, Method
from jaxmodels.reasoning.batches import Rows
from jaxmodels.reasoning.metrics import NAMES, Summary, filtered_ranks, per_query
from jaxmodels.training.evaluate import evaluate


def ranking(scores: Mapping[str, jax.Array], batch: Mapping[str, Any]) -> dict[str, Mean]:
    """Filtered MRR and Hits of one structure's queries, for `evaluate`; queries without hard answers do not count."""
    ((name, found),) = scores.items()
    hard = batch[name]["hard"]
    each = per_query(filtered_ranks(found, batch[name]["easy"], hard), hard)
    counted = hard.any(1).astype(each.dtype)
    return {key: Mean(jnp.where(counted > 0, each[:, i], 0.0).sum(), counted.sum()) for i, key in enumerate(NAMES)}


def rank_queries(
    method: Method,
    variables: Any,
    queries: Mapping[str, Queries],
    *,
    entities: int,
    batch_size: int = 64,
    most: int = 0,
    mesh: jax.sharding.Mesh | None = None,
    rows: Rows = range,
) -> dict[str, Summary]:
    """Metrics of each structure, fractions.

    Args:
        method: by `query_method`; it knows the structures.
        variables: its parameters and state.
        queries: structure -> queries with easy and hard answers.
        entities: N.
        batch_size: queries ranked at once.
        most: queries of each structure that are ranked, drawn evenly from all; 0 takes all.
        mesh: devices that share a batch.
        rows: which rows of a batch this process reads.

    Raises:
        ValueError: a structure without a hard answer, or scores that are no numbers.
    """
    out = {}
    for name, each in queries.items():
        chosen = np.flatnonzero(np.diff(each.hard.ptr))
        if not len(chosen):
            raise ValueError(f"query {name}: none of {len(each.tokens)} queries has a hard answer, expected at least 1")
        if most and len(chosen) > most:
            chosen = chosen[np.linspace(0, len(chosen) - 1, most).astype(int)]
        found = evaluate(
            method, variables, _padded(name, each, chosen, entities, batch_size, rows), metric=ranking, mesh=mesh
        )
        if np.isnan(found["mrr"]):
            raise ValueError(f"query {name}: some scores are no numbers")
        mrr, hits1, hits3, hits10 = (found[key] for key in NAMES)
        out[name] = Summary(mrr, hits1, hits3, hits10, len(chosen))
    return out


def _padded(name, queries: Queries, chosen, entities: int, size: int, rows: Rows) -> Iterator[dict[str, Any]]:
    """Batches of one shape; rows that fill up the last one have no answers and do not count."""
    mine = np.asarray(rows(size))
    for start in range(0, len(chosen), size):
        here = chosen[start : start + size]
        tokens = np.zeros((size, queries.tokens.shape[1]), np.int32)
        tokens[: len(here)] = queries.tokens[here]
        sets = {part: dense(getattr(queries, part), here, size, entities)[mine] for part in ("easy", "hard")}
        yield {name: {"query": tokens[mine], **sets}}


def dense(lists: Lists, chosen: np.ndarray, size: int, entities: int) -> np.ndarray:
    """(size, N) booleans of some lists; rows beyond them are empty.

    >>> dense(Lists(np.array([0, 1, 3]), np.array([2, 0, 1])), np.array([1]), 2, 3).tolist()
    [[True, True, False], [False, False, False]]
    """
    out = np.zeros((size, entities), bool)
    for row, i in enumerate(chosen):
        out[row, lists.idx[lists.ptr[i] : lists.ptr[i + 1]]] = True
    return out
