"""GQE: queries as points (Hamilton et al. 2018, arXiv 1806.01445, in the form of the KGReasoning code).

Projection adds the relation (TransE), the intersection weighs branches by an attention per dimension, the distance is
L1. The 2018 paper has bilinear projections and DeepSets instead; later tables call this form "GQE".
"""

import jax
import jax.numpy as jnp

from jaxmodels.reasoning.query_model import (
    QueryModel,
    attention,
    dense_rows,
    manhattan,
    mlp_init,
    padded_rows,
    table_range,
    table_row,
    uniform_table,
)
from jaxmodels.reasoning.structures import Algebra


def intersect_points(net, points: list[jax.Array]) -> jax.Array:
    """Attention over k points (n, D) of each query."""
    stacked = jnp.stack(points)
    return (attention(net, stacked) * stacked).sum(0)


def gqe(entities: int, relations: int, *, dim: int = 800, gamma: float = 24.0, row_multiple: int = 1) -> QueryModel:
    """A GQE model; the defaults are the published settings.

    Args:
        entities: number of entities.
        relations: number of relations, inverses included.
        dim: D, length of an embedding.
        gamma: margin: score = gamma - distance.
        row_multiple: the entity table is padded to a multiple of it, so that devices can share it.
    """
    bound, rows = table_range(gamma, dim), padded_rows(entities, row_multiple)

    def init(key):
        entity, relation, net = jax.random.split(key, 3)
        return {
            "entity": {"embedding": uniform_table(entity, rows, dim, -bound, bound)},
            "relation": {"embedding": uniform_table(relation, relations, dim, -bound, bound)},
            "intersection": mlp_init(net, dim, dim, dim),
        }

    def algebra(params):
        return Algebra(
            anchor=lambda ids: params["entity"]["embedding"][ids],
            project=lambda x, ids: x + params["relation"]["embedding"][ids],
            negate=None,
            intersect=lambda points: intersect_points(params["intersection"], points),
            union=None,
        )

    return QueryModel(
        "gqe",
        {"model": "gqe", "entities": entities, "relations": relations, "dim": dim, "gamma": gamma, "negation": False},
        init,
        algebra,
        points=lambda rows: rows,
        score=lambda query, points: gamma - manhattan(query[:, None], points),
        score_all=lambda query, points: gamma - manhattan(query[:, None], points[None]),
        rows=(
            table_row("entity_embedding", "entity/embedding"),
            table_row("relation_embedding", "relation/embedding"),
            *dense_rows("center_net.layer1", "intersection/fc1"),
            *dense_rows("center_net.layer2", "intersection/fc2"),
        ),
    )
