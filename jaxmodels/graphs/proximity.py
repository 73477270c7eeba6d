"""Proximity: the weight of the pathway between two embedded nodes (N2, Sun et al. 2024, arXiv 2410.23686, equation 1).

psi_lambda(a, b) = 1/(k q) sum_i lambda_i <a_i, b_i> over k pieces of q numbers; where one side has a single piece, all
i share it. A row whose signed sum exceeds 1e4 in magnitude is scaled back to 1e4, and that factor has no gradient.
Division by k q and the clip are the released code's, not the paper's. There is no softmax, so a product psi V can
also be formed as a (b^T V), in linear order, without psi. All is computed in float32 or wider.

Pieces of a node lie side by side, (..., n, k, q), or (..., n, 1, q) where there is one: so k q numbers are one row, and
psi of two pieced sides is one product. Node blocks as in `jaxmodels.graphs.blocks`: M graphs with p pseudo nodes each,
K blocks of c nodes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.graphs.blocks import Blocks

PATHWAYS = ("proximity", "attention", "uniform")
LIMIT = 1e4


def wide(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """X in float32, or wider if it is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def weigh(weights: Float[Array, "k"], pieces: Float[Array, "*b n i q"]) -> Float[Array, "*b n q"]:
    """Sum of the weighted pieces over k q: its products with a single piece are proximities."""
    weights = wide(weights) / (weights.size * pieces.shape[-1])
    if pieces.shape[-2] == 1:
        return weights.sum() * wide(pieces)[..., 0, :]
    return jnp.einsum("i,...niq->...nq", weights, wide(pieces))


def clip_factor(sums: Float[Array, "*b m"]) -> Float[Array, "*b m"]:
    """What rows of these signed sums are multiplied by."""
    size = jax.lax.stop_gradient(jnp.abs(sums))
    return jnp.where(size > LIMIT, LIMIT / jnp.maximum(size, LIMIT), jnp.ones_like(size))


def sides(
    weights: Float[Array, "k"], a: Float[Array, "*b m i q"], b: Float[Array, "*b n j q"]
) -> tuple[Float[Array, "*b m d"], Float[Array, "*b n d"]]:
    """Rows whose products are psi before it is scaled."""
    if a.shape[-2] == 1:
        return wide(a)[..., 0, :], weigh(weights, b)
    if b.shape[-2] == 1:
        return weigh(weights, a), wide(b)[..., 0, :]
    weights = (wide(weights) / (weights.size * a.shape[-1])).reshape(*(1,) * (a.ndim - 2), -1, 1)
    return (weights * wide(a)).reshape(*a.shape[:-2], -1), wide(b).reshape(*b.shape[:-2], -1)


def proximity(
    weights: Float[Array, "k"],
    a: Float[Array, "*b m i q"],
    b: Float[Array, "*b n j q"],
    *,
    pathway: str = "proximity",
) -> Float[Array, "*b m n"]:
    """The matrix psi(a, b) with its rows scaled.

    Args:
        weights: lambda (k,).
        a: (..., m, k or 1, q).
        b: (..., n, k or 1, q).
        pathway: 'proximity'; 'attention', a softmax over the last axis of the unclipped psi; 'uniform', 1/n.

    >>> proximity(jnp.array([2.0]), jnp.ones((1, 1, 4)), jnp.ones((3, 1, 4))).tolist()
    [[2.0, 2.0, 2.0]]
    """
    return _scaled(*sides(weights, a, b), pathway)


def _scaled(a: Array, b: Array, pathway: str) -> Array:
    psi = a @ b.mT
    if pathway == "attention":
        return jax.nn.softmax(psi, axis=-1)
    if pathway == "uniform":
        return jnp.full_like(psi, 1.0 / psi.shape[-1])
    # A row's sum is a product with the sum of b: entries of psi that cancel would each bring their own rounding.
    return psi * clip_factor((a @ b.sum(-2)[..., None])[..., 0])[..., None]


def diffuse(
    weights: Float[Array, "k"], pseudo: Float[Array, "m p i q"], states: Float[Array, "K c q"], blocks: Blocks,
    *, pathway: str = "proximity",
) -> Float[Array, "K p c"]:  # fmt: skip
    """Psi(pseudo nodes, graph nodes) block by block; a row runs over all blocks of its graph.

    Empty slots must have zero states; they get no weight under any pathway.
    """
    psi = blocks.share(weigh(weights, pseudo)) @ wide(states).mT
    mask = blocks.mask.mT.astype(psi.dtype)
    if pathway == "attention":
        psi = jnp.where(mask > 0, psi, -jnp.inf)
        peak = blocks.share(jax.lax.stop_gradient(blocks.largest(psi.max(-1))))
        weight = jnp.exp(psi - jnp.where(jnp.isfinite(peak), peak, 0.0)[..., None])
        total = blocks.share(blocks.total(weight.sum(-1)))
        return weight / jnp.where(total > 0, total, 1.0)[..., None]
    if pathway == "uniform":
        return jnp.broadcast_to(mask / blocks.share(blocks.nodes)[:, None, None], psi.shape)
    return psi * blocks.share(clip_factor(blocks.total(psi.sum(-1))))[..., None]


def collect(
    weights: Float[Array, "k"], states: Float[Array, "K c q"], pseudo: Float[Array, "m p i q"], blocks: Blocks,
    *, pathway: str = "proximity",
) -> Float[Array, "K c p"]:  # fmt: skip
    """Psi(graph nodes, pseudo nodes of their graph)."""
    # The pieces are weighed before blocks share them: (K, p, q) numbers, not (K, k, p, q).
    return _scaled(wide(states), blocks.share(weigh(weights, pseudo)), pathway)


def diffuse_linear(
    weights: Float[Array, "k"], pseudo: Float[Array, "m p i q"], states: Float[Array, "K c q"],
    values: Float[Array, "K c d"], blocks: Blocks,
) -> Float[Array, "m p d"]:  # fmt: skip
    """The sum over nodes of psi(pseudo, states) values, in linear order: O((n + p) q d), clip included."""
    rows, states = weigh(weights, pseudo), wide(states)
    outer = blocks.total(moments(states, values))
    sums = (rows @ blocks.total(states.sum(1))[..., None])[..., 0]
    return clip_factor(sums)[..., None] * (rows @ outer)


def collect_linear(
    weights: Float[Array, "k"], states: Float[Array, "K c q"], pseudo: Float[Array, "m p i q"],
    values: Float[Array, "m p d"], blocks: Blocks,
) -> Float[Array, "K c d"]:  # fmt: skip
    """Psi(states, pseudo) values in linear order."""
    columns, states = weigh(weights, pseudo), wide(states)
    sums = jnp.einsum("kcq,kq->kc", states, blocks.share(columns.sum(1)))
    outer = blocks.share(columns.mT @ values)
    return clip_factor(sums)[..., None] * jnp.einsum("kcq,kqd->kcd", states, outer)


def dense_linear(
    weights: Float[Array, "k"], states: Float[Array, "K c q"], values: Float[Array, "K c d"], blocks: Blocks
) -> Float[Array, "K c d"]:
    """Psi(states, states) values among the nodes of each graph, in linear order: no n x n matrix."""
    states = wide(states)
    scaled = (wide(weights).sum() / (weights.size * states.shape[-1])) * states
    sums = (scaled @ blocks.share(blocks.total(states.sum(1)))[..., None])[..., 0]
    return clip_factor(sums)[..., None] * (scaled @ blocks.share(blocks.total(states.mT @ values)))


@jax.custom_vjp
def moments(a: Float[Array, "K c q"], b: Float[Array, "K c d"]) -> Float[Array, "K q d"]:
    """The sum over the nodes of each block of the outer products of a and b.

    The gradient is written out so that it comes row by row: by itself JAX asks for its transpose, which every reader
    then has to turn.
    """
    return jnp.einsum("kcq,kcd->kqd", a, b)


def _moments_keep(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return moments(a, b), (a, b)


def _moments_pull(kept: tuple[Array, Array], pulled: Array) -> tuple[Array, Array]:
    a, b = kept
    return jnp.einsum("kcd,kqd->kcq", b, pulled), jnp.einsum("kcq,kqd->kcd", a, pulled)


moments.defvjp(_moments_keep, _moments_pull)
