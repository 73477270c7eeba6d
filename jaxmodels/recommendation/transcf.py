"""TransCF: translations from the neighbourhoods of user and item (Park et al., ICDM 2018, as in LibCML)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.method import Aux, Mean, Method
from jaxmodels.recommendation.cpe import row_weight
from jaxmodels.recommendation.dpcml import SHARDINGS, negatives_of, pair_batch
from jaxmodels.recommendation.known import Known


def transcf(
    users: int,
    items: int,
    *,
    dim: int = 256,
    margin: float = 2.0,
    distance: float = 0.01,
    neighbourhood: float = 0.01,
    chunk: int = 256,
) -> Method:
    """(u + r - v)^2 with r = (mean of the user's items) * (mean of the item's users), entry by entry.

    As released the hinge is taken per dimension and then summed. `init` needs {'known': Known}, from which the
    neighbourhoods come.

    Args:
        users: M.
        items: N.
        dim: d.
        margin: of the hinge.
        distance: weight of the positives' distances.
        neighbourhood: weight of the distances between a user or item and its neighbourhood.
        chunk: items scored at once in `predict`.
    """

    def init(key, batch):
        if batch is None or "known" not in batch:
            raise ValueError(
                "batch: found no 'known', expected the positives of all users, which TransCF averages over"
            )
        one, two = jax.random.split(key)
        params = {"user": jax.random.normal(one, (users, dim)), "item": jax.random.normal(two, (items, dim))}
        return {"params": params, "state": {"known": batch["known"]}}

    def loss(variables, batch, key):
        params, state = variables["params"], variables["state"]
        user_ids, positive_ids = jnp.asarray(batch["user"]), jnp.asarray(batch["positive"])
        of_user, of_item = neighbourhoods(params["user"], params["item"], state["known"])
        negative_ids = negatives_of(batch, state, key, 1, items, "uniform")[:, 0]
        user, near_items = params["user"][user_ids], of_user[user_ids]

        def gap(ids):
            return (user + near_items * of_item[ids] - params["item"][ids]) ** 2

        near, far = gap(positive_ids), gap(negative_ids)
        positive = params["item"][positive_ids]
        beside = ((user - near_items) ** 2).sum(1) + ((positive - of_item[positive_ids]) ** 2).sum(1)
        weight = row_weight(batch, near)
        each = jax.nn.relu(margin + near - far).sum(1) + distance * near.sum(1) + neighbourhood * beside
        total = (each * weight).sum()
        metrics = {"preference": Mean(total, weight.sum()), "loss": Mean(total, jnp.ones_like(total))}
        return total, Aux(state, metrics)

    def predict(variables, batch):
        params, user_ids = variables["params"], jnp.asarray(batch["user"])
        of_user, of_item = neighbourhoods(params["user"], params["item"], variables["state"]["known"])
        user, near_items = params["user"][user_ids], of_user[user_ids]

        def one(rows):
            item, near_users = rows
            return -((user + near_items * near_users[None] - item[None]) ** 2).sum(1)

        return jax.lax.map(one, (params["item"], of_item), batch_size=chunk).T

    return Method(init, loss, predict, ((".*", "embeddings"),), shardings=SHARDINGS, batch=pair_batch)


def neighbourhoods(
    user: Float[Array, "m d"], item: Float[Array, "n d"], known: Known
) -> tuple[Float[Array, "m d"], Float[Array, "n d"]]:
    """Mean item of each user and mean user of each item; 0 where there is none."""
    owner = owners(known)
    held = (known.starts[1:] - known.starts[:-1]).astype(user.dtype)
    holders = jnp.zeros(len(item), user.dtype).at[known.items].add(1)
    sums = jax.ops.segment_sum(item[known.items], owner, len(user), indices_are_sorted=True)
    reverse = jax.ops.segment_sum(user[owner], known.items, len(item))
    return sums / jnp.maximum(held, 1)[:, None], reverse / jnp.maximum(holders, 1)[:, None]


def owners(known: Known) -> jax.Array:
    """The user of each entry of `known.items`."""
    return jnp.searchsorted(known.starts, jnp.arange(len(known.items)), side="right") - 1
