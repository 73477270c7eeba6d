"""LRML: a translation between user and item, read from memories (Tay et al., WWW 2018, as in LibCML)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.method import Aux, Mean, Method
from jaxmodels.recommendation.cpe import row_weight
from jaxmodels.recommendation.dpcml import SHARDINGS, known_state, negatives_of, pair_batch

EXACT = jax.lax.Precision.HIGHEST


def lrml(
    users: int, items: int, *, dim: int = 256, memories: int = 20, margin: float = 1.5, chunk: int = 256
) -> Method:
    """|u + r - v|^2 with r = softmax((u * v) K) M; a negative is compared by the positive's r.

    Args:
        users: M.
        items: N.
        dim: d.
        memories: rows of M.
        margin: of the hinge, summed over the batch.
        chunk: items scored at once in `predict`, where each has its own r.
    """

    def init(key, batch):
        shapes = {"user": (users, dim), "item": (items, dim), "key": (dim, memories), "memories": (memories, dim)}
        keys = jax.random.split(key, len(shapes))
        params = {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
        return {"params": params, "state": known_state(batch, items, "uniform")}

    def loss(variables, batch, key):
        params, state = variables["params"], variables["state"]
        user, positive = params["user"][jnp.asarray(batch["user"])], params["item"][jnp.asarray(batch["positive"])]
        negative = params["item"][negatives_of(batch, state, key, 1, items, "uniform")]
        towards = user + relation(params, user, positive)
        near = ((towards - positive) ** 2).sum(1)
        far = ((towards[:, None] - negative) ** 2).sum(2)
        weight = row_weight(batch, near)
        total = (jax.nn.relu(margin + near[:, None] - far).sum(1) * weight).sum()
        metrics = {"preference": Mean(total, weight.sum()), "loss": Mean(total, jnp.ones_like(total))}
        return total, Aux(state, metrics)

    def predict(variables, batch):
        params = variables["params"]
        user = params["user"][jnp.asarray(batch["user"])]

        def of_item(item):
            return -((user + relation(params, user, item[None]) - item[None]) ** 2).sum(1)

        return jax.lax.map(of_item, params["item"], batch_size=chunk).T

    return Method(init, loss, predict, ((".*", "embeddings"),), shardings=SHARDINGS, batch=pair_batch)


def relation(params: dict, user: Float[Array, "b d"], item: Float[Array, "i d"]) -> Float[Array, "b d"]:
    """The translation of each pair; `item` may be one row for all users."""
    logits = jnp.einsum("bd,dm->bm", user * jnp.broadcast_to(item, user.shape), params["key"], precision=EXACT)
    return jnp.einsum("bm,md->bd", jax.nn.softmax(logits), params["memories"], precision=EXACT)
