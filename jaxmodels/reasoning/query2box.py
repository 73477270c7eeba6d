"""Query2Box: queries as boxes (Ren, Hu and Leskovec 2020, arXiv 2002.05969).

A box is a centre and an offset. Projection shifts the centre and grows the offset, an intersection takes an attention
over centres and shrinks the smallest offset; entities are points, and being inside a box costs little.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.reasoning.gqe import intersect_points
from jaxmodels.reasoning.query_model import (
    TABLES,
    QueryModel,
    dense,
    dense_rows,
    mlp_init,
    padded_rows,
    pulled,
    table_range,
    table_row,
    uniform_table,
)
from jaxmodels.reasoning.structures import Algebra
from jaxmodels.rules import nearest

ACTIVATIONS = {"none": lambda x: x, "relu": jax.nn.relu, "softplus": jax.nn.softplus}


class Box(NamedTuple):
    """n boxes."""

    center: Float[Array, "n d"]
    offset: Float[Array, "n d"]


def intersect_offsets(net, offsets: list[jax.Array]) -> jax.Array:
    """The smallest offset of each dimension, shrunk by a gate that sees all branches."""
    stacked = jnp.stack(offsets)
    gate = jax.nn.sigmoid(dense(net["fc2"], jax.nn.relu(dense(net["fc1"], stacked)).mean(0)))
    return stacked.min(0) * gate


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def box_distance(
    center: Float[Array, "n 1 d"], offset: Float[Array, "n 1 d"], points: Float[Array, "m k d"], cen: float
) -> Float[Array, "n k"]:
    """The distance outside the box plus `cen` times the distance inside.

    A negative offset (possible without activation) makes the inner part negative; its magnitude counts. The gradient
    is written out, so that one pass over (n, k, d) gives all of it.
    """
    delta = jnp.abs(points - center)
    return (jax.nn.relu(delta - offset) + cen * jnp.abs(jnp.minimum(delta, offset))).sum(-1)


def _forward(center, offset, points, cen):
    return box_distance(center, offset, points, cen), (center, offset, points)


def _backward(cen, kept, g):
    g, (center, offset, points) = jax.lax.optimization_barrier((g, kept))
    apart = points - center
    delta = jnp.abs(apart)
    above = (delta > offset).astype(g.dtype)
    inner = cen * jnp.sign(jnp.minimum(delta, offset))
    share = above + 0.5 * (delta == offset)  # of the inner part's gradient that is the offset's
    by_center, by_points = pulled(g, (above + inner * (1.0 - share)) * jnp.sign(apart), points)
    return by_center, jnp.einsum("nk,nkd->nd", g, inner * share - above)[:, None], by_points


box_distance.defvjp(_forward, _backward)


def box_score(
    center: Float[Array, "n 1 d"], offset: Float[Array, "n 1 d"], points: Float[Array, "m k d"], *, gamma, cen
) -> Float[Array, "n k"]:
    """Gamma minus `box_distance`."""
    return gamma - box_distance(center, offset, points, cen)


def query2box(
    entities: int,
    relations: int,
    *,
    dim: int = 400,
    gamma: float = 24.0,
    activation: str = "none",
    cen: float = 0.02,
    row_multiple: int = 1,
) -> QueryModel:
    """A Query2Box model; the defaults are the published settings.

    Args:
        entities: number of entities.
        relations: number of relations, inverses included.
        dim: D, length of a centre and of an offset.
        gamma: margin: score = gamma - distance.
        activation: of a relation's offset: none, relu or softplus.
        cen: weight of the distance inside the box.
        row_multiple: the entity table is padded to a multiple of it, so that devices can share it.

    Raises:
        ValueError: an unknown activation.
    """
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"activation: found '{activation}'{nearest(activation, ACTIVATIONS)}; there are {known}")
    bound, rows, grow = table_range(gamma, dim), padded_rows(entities, row_multiple), ACTIVATIONS[activation]

    def init(key):
        entity, relation, offset, centers, offsets = jax.random.split(key, 5)
        return {
            "entity": {"embedding": uniform_table(entity, rows, dim, -bound, bound)},
            "relation": {
                "embedding": uniform_table(relation, relations, dim, -bound, bound),
                "offset": uniform_table(offset, relations, dim, 0.0, bound),
            },
            "intersection": mlp_init(centers, dim, dim, dim),
            "offset_intersection": mlp_init(offsets, dim, dim, dim),
        }

    def algebra(params):
        relation = params["relation"]

        def anchor(ids):
            center = params["entity"]["embedding"][ids]
            return Box(center, jnp.zeros_like(center))

        def intersect(boxes):
            return Box(
                intersect_points(params["intersection"], [box.center for box in boxes]),
                intersect_offsets(params["offset_intersection"], [box.offset for box in boxes]),
            )

        return Algebra(
            anchor,
            lambda box, ids: Box(box.center + relation["embedding"][ids], box.offset + grow(relation["offset"][ids])),
            None,
            intersect,
            None,
        )

    def score(box, points):
        return box_score(box.center[:, None], box.offset[:, None], points, gamma=gamma, cen=cen)

    config = {"model": "query2box", "entities": entities, "relations": relations, "dim": dim, "gamma": gamma}
    return QueryModel(
        "query2box",
        {**config, "activation": activation, "cen": cen, "negation": False},
        init,
        algebra,
        points=lambda rows: rows,
        score=score,
        score_all=lambda box, points: score(box, points[None]),
        rows=(
            table_row("entity_embedding", "entity/embedding"),
            table_row("relation_embedding", "relation/embedding"),
            table_row("offset_embedding", "relation/offset"),
            *dense_rows("center_net.layer1", "intersection/fc1"),
            *dense_rows("center_net.layer2", "intersection/fc2"),
            *dense_rows("offset_net.layer1", "offset_intersection/fc1"),
            *dense_rows("offset_net.layer2", "offset_intersection/fc2"),
        ),
        shardings=TABLES,
    )
