"""BetaE: queries and entities as Beta distributions (Ren and Leskovec 2020, arXiv 2010.11465).

Projection is an MLP, an intersection an attention over parameters, negation their reciprocal. The distance is the
divergence KL(entity || query), summed over dimensions; a dimension is one Beta(alpha, beta).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln, digamma
from jaxtyping import Array, Float

from jaxmodels.reasoning.query_model import (
    TABLES,
    QueryModel,
    attention,
    dense,
    dense_init,
    dense_rows,
    magnitude,
    mlp_init,
    padded_rows,
    table_range,
    table_row,
    uniform_table,
)
from jaxmodels.reasoning.structures import Algebra

SMALLEST, LARGEST = 0.05, 1e9


class Beta(NamedTuple):
    """Parameters of Beta distributions, one per dimension."""

    alpha: Float[Array, "*n d"]
    beta: Float[Array, "*n d"]


def regularized(x: jax.Array) -> jax.Array:
    """Clip(x + 1, 0.05, 1e9), whose gradient is 1 inside and at the bounds, else 0; `jnp.clip` has 0.5 at a bound."""
    shifted = x + 1.0
    inside = (shifted >= SMALLEST) & (shifted <= LARGEST)
    return jnp.where(inside, shifted, jax.lax.stop_gradient(jnp.clip(shifted, SMALLEST, LARGEST)))


def halves(x: jax.Array) -> Beta:
    """Rows (.., 2D) of (alpha | beta)."""
    return Beta(*jnp.split(x, 2, axis=-1))


def divergence(p: Beta, q: Beta) -> jax.Array:
    """KL(p || q) of each dimension; shapes broadcast."""
    a, b, c, d = p.alpha, p.beta, q.alpha, q.beta
    value = betaln(c, d) - betaln(a, b) + (a - c) * digamma(a) + (b - d) * digamma(b)
    return value + (c - a + d - b) * digamma(a + b)


def divergences(p: Beta, q: Beta) -> Float[Array, "n c"]:
    """Sum over dimensions of KL(p_j || q_i) for all pairs: terms of one side each and two matrix products.

    What depends on an entity alone is computed once per entity, not once per pair. The magnitude around each KL
    that `divergence`'s callers take is void here: KL is not negative.
    """
    total = digamma(p.alpha + p.beta)
    one, two = digamma(p.alpha) - total, digamma(p.beta) - total
    entity = (p.alpha * one + p.beta * two - betaln(p.alpha, p.beta)).sum(-1)
    query = betaln(q.alpha, q.beta).sum(-1)
    precise = jax.lax.Precision.HIGHEST
    crossed = jnp.matmul(q.alpha, one.T, precision=precise) + jnp.matmul(q.beta, two.T, precision=precise)
    return query[:, None] + entity[None] - crossed


def intersect_betas(net, parts: list[Beta]) -> Beta:
    """Attention over the parameters of k distributions."""
    alpha, beta = jnp.stack([p.alpha for p in parts]), jnp.stack([p.beta for p in parts])
    weights = attention(net, jnp.concatenate([alpha, beta], axis=-1))
    return Beta((weights * alpha).sum(0), (weights * beta).sum(0))


def project_betas(net, x: Float[Array, "n w"], relation: Float[Array, "n d"]) -> Float[Array, "n w"]:
    """The MLP of a projection with its final clip; hidden layers are layer1, layer2, ..., the last one is `out`."""
    hidden = jnp.concatenate([x, relation], axis=-1)
    for i in range(1, len(net)):
        hidden = jax.nn.relu(dense(net[f"layer{i}"], hidden))
    return regularized(dense(net["out"], hidden))


def betae(
    entities: int,
    relations: int,
    *,
    dim: int = 400,
    gamma: float = 60.0,
    hidden: int = 1600,
    layers: int = 2,
    row_multiple: int = 1,
) -> QueryModel:
    """A BetaE model; the defaults are the published settings.

    Args:
        entities: number of entities.
        relations: number of relations, inverses included.
        dim: D, number of Beta distributions; an entity's row holds 2D numbers.
        gamma: margin: score = gamma - divergence.
        hidden: width of the projection's MLP.
        layers: its hidden layers.
        row_multiple: the entity table is padded to a multiple of it, so that devices can share it.

    Raises:
        ValueError: no hidden layer.
    """
    if layers < 1:
        raise ValueError(f"layers: found {layers}, expected at least 1")
    bound, rows = table_range(gamma, dim), padded_rows(entities, row_multiple)

    def init(key):
        entity, relation, net, *keys = jax.random.split(key, 4 + layers)
        sizes = [3 * dim] + [hidden] * layers
        projection = {f"layer{i + 1}": dense_init(keys[i], sizes[i], sizes[i + 1]) for i in range(layers)}
        return {
            "entity": {"embedding": uniform_table(entity, rows, 2 * dim, -bound, bound)},
            "relation": {"embedding": uniform_table(relation, relations, dim, -bound, bound)},
            "intersection": mlp_init(net, 2 * dim, 2 * dim, dim),
            "projection": {**projection, "out": dense_init(keys[layers], hidden, 2 * dim)},
        }

    def algebra(params):
        def project(x, ids):
            row = jnp.concatenate(x, axis=-1)
            return halves(project_betas(params["projection"], row, params["relation"]["embedding"][ids]))

        return Algebra(
            anchor=lambda ids: halves(regularized(params["entity"]["embedding"][ids])),
            project=project,
            negate=lambda x: Beta(1.0 / x.alpha, 1.0 / x.beta),
            intersect=lambda parts: intersect_betas(params["intersection"], parts),
            union=None,
        )

    def score(query, points):
        return gamma - magnitude(divergence(points, Beta(query.alpha[:, None], query.beta[:, None]))).sum(-1)

    config = {"model": "betae", "entities": entities, "relations": relations, "dim": dim, "gamma": gamma}
    projections = [*range(1, layers + 1), 0]
    return QueryModel(
        "betae",
        {**config, "hidden": hidden, "layers": layers, "negation": True},
        init,
        algebra,
        points=lambda rows: halves(regularized(rows)),
        score=score,
        score_all=lambda query, points: gamma - divergences(points, query),
        rows=(
            table_row("entity_embedding", "entity/embedding"),
            table_row("relation_embedding", "relation/embedding"),
            *dense_rows("center_net.layer1", "intersection/fc1"),
            *dense_rows("center_net.layer2", "intersection/fc2"),
            *(
                row
                for i in projections
                for row in dense_rows(f"projection_net.layer{i}", f"projection/layer{i}" if i else "projection/out")
            ),
        ),
        shardings=TABLES,
    )
