"""CPE: a hinge on the distribution of margins (collaborative preference embedding, ACM MM 2019, as LibCML has it)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.method import Aux, Mean, Method
from jaxmodels.recommendation.distances import nearest, to_catalogue
from jaxmodels.recommendation.dpcml import SHARDINGS, known_state, negatives_of, pair_batch


def cpe(
    users: int, items: int, *, dim: int = 256, margin: float = 0.5, covariance: float = 5e-3, negatives: int = 10
) -> Method:
    """Margins close to a constant, and embeddings that are not correlated.

    The loss is the sum over the batch of |delta - margin|, delta = nearest negative's distance - the positive's, plus
    `covariance` (tr S - log det S - d) of the centred rows of both tables; S is their sum of products, not divided by
    their number, as released.

    Args:
        users: M.
        items: N.
        dim: d.
        margin: where margins should lie.
        covariance: weight; 0 leaves the term out.
        negatives: S candidates per row.
    """

    def init(key, batch):
        one, two = jax.random.split(key)
        user, item = 0.01 * jax.random.normal(one, (users, dim)), dim**-0.5 * jax.random.normal(two, (items, dim))
        return {"params": {"user": user, "item": item}, "state": known_state(batch, items, "uniform")}

    def loss(variables, batch, key):
        params, state = variables["params"], variables["state"]
        user, positive = jnp.asarray(batch["user"]), jnp.asarray(batch["positive"])
        negative = negatives_of(batch, state, key, negatives, items, "uniform")
        ids = jnp.concatenate([positive[:, None], negative], axis=1)
        far = nearest(params["user"][user][:, None], params["item"][ids])
        weight = row_weight(batch, far)
        each = jnp.abs(far[:, 1:].min(1) - far[:, 0] - margin)
        total = (each * weight).sum()
        metrics = {"preference": Mean(total, weight.sum())}
        if covariance:
            apart = covariance_term(jnp.concatenate([params["user"], params["item"]]))
            metrics["covariance"] = Mean(apart, jnp.ones_like(apart))
            total = total + covariance * apart
        return total, Aux(state, metrics | {"loss": Mean(total, jnp.ones_like(total))})

    return Method(init, loss, predict_nearest, ((".*", "embeddings"),), shardings=SHARDINGS, batch=pair_batch)


def covariance_term(rows: Float[Array, "r d"]) -> Float[Array, ""]:
    """Tr S - sum log(eigenvalues of S + 1e-8) - d."""
    centred = rows - rows.mean(0)[None]
    products = jnp.einsum("rd,re->de", centred, centred, precision=jax.lax.Precision.HIGHEST)
    _, log_determinant = jnp.linalg.slogdet(products + 1e-8 * jnp.eye(len(products), dtype=products.dtype))
    return jnp.trace(products) - log_determinant - len(products)


def row_weight(batch: Any, like: jax.Array) -> Float[Array, " b"]:
    """The batch's 'weight', or ones."""
    return jnp.asarray(batch["weight"]) if "weight" in batch else jnp.ones(len(like), like.dtype)


def predict_nearest(variables: Any, batch: Any) -> Float[Array, "b n"]:
    """Minus the squared distance to every item."""
    params = variables["params"]
    return -to_catalogue(params["user"][jnp.asarray(batch["user"])][:, None], params["item"])
