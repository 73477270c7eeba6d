"""BetaE: queries and entities as Beta distributions (Ren and Leskovec 2020, arXiv 2010.11465).

Projection is an MLP, an intersection an attention over parameters, negation their reciprocal. The distance is the
divergence KL(entity || query), summed over dimensions; a dimension is one Beta(alpha, beta).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.reasoning.query_model import (
    TABLES,
    QueryModel,
    attention,
    dense,
    dense_init,
    dense_rows,
    mlp_init,
    padded_rows,
    table_range,
    table_row,
    uniform_table,
)
from jaxmodels.reasoning.special import digamma, log_gamma, trigamma
from jaxmodels.reasoning.structures import Algebra

SMALLEST, LARGEST = 0.05, 1e9


class Beta(NamedTuple):
    """Parameters of Beta distributions, one per dimension."""

    alpha: Float[Array, "*n d"]
    beta: Float[Array, "*n d"]


@jax.custom_vjp
def regularized(x: jax.Array) -> jax.Array:
    """Clip(x + 1, 0.05, 1e9), whose gradient is 1 inside and at the bounds, else 0; `jnp.clip` has 0.5 at a bound."""
    return jnp.clip(x + 1.0, SMALLEST, LARGEST)


def _regularized_forward(x):
    return regularized(x), x


def _regularized_backward(x, g):
    x, g = jax.lax.optimization_barrier((x, g))  # else the forward pass keeps what both compute
    shifted = x + 1.0
    return (jnp.where((shifted >= SMALLEST) & (shifted <= LARGEST), g, 0.0),)


regularized.defvjp(_regularized_forward, _regularized_backward)


def halves(x: jax.Array) -> Beta:
    """Rows (.., 2D) of (alpha | beta)."""
    return Beta(*jnp.split(x, 2, axis=-1))


def log_beta(a: jax.Array, b: jax.Array) -> jax.Array:
    """The logarithm of the beta function; its derivative is `digamma`'s."""
    return log_gamma(a) + log_gamma(b) - log_gamma(a + b)


def divergence(p: Beta, q: Beta) -> jax.Array:
    """KL(p || q) of each dimension; shapes broadcast."""
    a, b, c, d = p.alpha, p.beta, q.alpha, q.beta
    value = log_beta(c, d) - log_beta(a, b) + (a - c) * digamma(a) + (b - d) * digamma(b)
    return value + (c - a + d - b) * digamma(a + b)


class Terms(NamedTuple):
    """What a divergence takes from an entity alone: KL(entity || query) = lnB(query) + own - query . slope."""

    slope: Float[Array, "*n w"]
    own: Float[Array, "*n"]


@jax.custom_vjp
def terms(rows: Float[Array, "*n w"]) -> Terms:
    """The terms of entities with rows (alpha | beta).

    The slope is that of lnB, digamma(x) - digamma(alpha + beta) for each x of a row; own = rows . slope - lnB(rows),
    summed over dimensions.
    """
    # XLA's CPU compiler would fold logarithms into a sum, then compute them one number at a time, and of a digamma that
    # is used twice it would keep the quotients. So sums are products with ones, and the slope is computed apart from
    # what is summed.
    totals = digamma(sum(halves(rows)))
    slope = digamma(rows) - jnp.concatenate([totals, totals], axis=-1)
    again = jax.lax.optimization_barrier(rows)
    return Terms(slope, _own(again) - _own(sum(halves(again))))


def _own(x):
    """The sum over dimensions of x digamma(x) - lnGamma(x)."""
    ones = jnp.ones(x.shape[-1], x.dtype)
    return jnp.matmul(x * digamma(x) - log_gamma(x), ones, precision=jax.lax.Precision.HIGHEST)


def _terms_forward(rows):
    return terms(rows), rows


def _terms_backward(rows, g):
    # By x_i, a slope has trigamma(x_i) - trigamma(total), own has x_i trigamma(x_i) - total trigamma(total).
    rows, g = jax.lax.optimization_barrier((rows, g))
    total, own = sum(halves(rows)), g.own[..., None]
    both = (sum(halves(g.slope)) + own * total) * trigamma(total)
    return ((g.slope + own * rows) * trigamma(rows) - jnp.concatenate([both, both], axis=-1),)


terms.defvjp(_terms_forward, _terms_backward)


def divergences(p: Terms, q: Beta) -> Float[Array, "n c"]:
    """Sum over dimensions of KL(p_j || q_i) for all pairs: a matrix product.

    The published code takes the magnitude of each dimension's KL; that is void, for KL is not negative.
    """
    crossed = jnp.matmul(jnp.concatenate(q, axis=-1), p.slope.T, precision=jax.lax.Precision.HIGHEST)
    return log_beta(q.alpha, q.beta).sum(-1)[:, None] + p.own[None] - crossed


def chosen_divergences(p: Terms, q: Beta) -> Float[Array, "n k"]:
    """The same for K entities of each query."""
    rows = jnp.concatenate(q, axis=-1)
    crossed = jnp.einsum("nw,nkw->nk", rows, p.slope, precision=jax.lax.Precision.HIGHEST)
    return log_beta(q.alpha, q.beta).sum(-1)[:, None] + p.own - crossed


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

    config = {"model": "betae", "entities": entities, "relations": relations, "dim": dim, "gamma": gamma}
    projections = [*range(1, layers + 1), 0]
    return QueryModel(
        "betae",
        {**config, "hidden": hidden, "layers": layers, "negation": True},
        init,
        algebra,
        points=lambda rows: terms(regularized(rows)),
        score=lambda query, points: gamma - chosen_divergences(points, query),
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
        shared=4,
        shardings=TABLES,
    )
