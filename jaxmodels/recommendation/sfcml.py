"""SFCML: metric learning over all pairs, without sampling (Bao et al. 2022, TPAMI, as LibCML has it)."""

import jax
import jax.numpy as jnp

from jaxmodels.method import Aux, Mean, Method
from jaxmodels.recommendation.cpe import row_weight
from jaxmodels.recommendation.dpcml import SHARDINGS
from jaxmodels.recommendation.known import dense_rows
from jaxmodels.recommendation.norms import to_sphere

EXACT = jax.lax.Precision.HIGHEST


def sfcml(users: int, items: int, *, dim: int = 256, margin: float = 2.0) -> Method:
    """Mean over all (positive, negative) pairs of (margin - (f_p - f_n))^2, f = 2 u.v on the unit sphere.

    A batch holds 'user' (b,) ids, each user once, and 'weight' for padding; `init` needs {'known': Known}.

    Args:
        users: M.
        items: N.
        dim: d.
        margin: of the squared loss.
    """

    def init(key, batch):
        if batch is None or "known" not in batch:
            raise ValueError("batch: found no 'known', expected the positives of all users, over which SFCML sums")
        one, two = jax.random.split(key)
        params = {"user": jax.random.normal(one, (users, dim)), "item": jax.random.normal(two, (items, dim))}
        return {"params": jax.tree.map(to_sphere, params), "state": {"known": batch["known"]}}

    def loss(variables, batch, key):
        state, user = variables["state"], jnp.asarray(batch["user"])
        known = state["known"]
        label = dense_rows(known, user, items, min(items, len(known.items))).astype(jnp.float32)
        count = label.sum(1, keepdims=True)
        positive, negative = label / jnp.maximum(count, 1), (1 - label) / (items - count)
        error = predict(variables, batch) - margin * label
        # The mean over pairs of (e_n - e_p)^2: squares by their own weights, less twice the product of means.
        each = ((positive + negative) * error**2).sum(1) - 2 * (negative * error).sum(1) * (positive * error).sum(1)
        weight = row_weight(batch, each)
        total = (each * weight).sum() / jnp.maximum(weight.sum(), 1)
        return total, Aux(state, {"loss": Mean(total * weight.sum(), weight.sum())})

    def project(before, after, state):
        return jax.tree.map(to_sphere, after)

    def predict(variables, batch):
        params, user = variables["params"], jnp.asarray(batch["user"])
        return 2 * jnp.einsum("bd,nd->bn", params["user"][user], params["item"], precision=EXACT)

    def abstract(rows):
        shape = (rows,)
        return {"user": jax.ShapeDtypeStruct(shape, jnp.int32), "weight": jax.ShapeDtypeStruct(shape, jnp.float32)}

    return Method(init, loss, predict, ((".*", "embeddings"),), shardings=SHARDINGS, batch=abstract, project=project)
