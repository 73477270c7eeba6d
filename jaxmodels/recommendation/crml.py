"""CRML: metric learning with co-occurrence embeddings of users and items (Neural Networks 2020, as in LibCML)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxmodels.method import Aux, Mean, Method
from jaxmodels.recommendation.cpe import predict_nearest, row_weight
from jaxmodels.recommendation.distances import squared
from jaxmodels.recommendation.dpcml import SHARDINGS, negatives_of, pair_batch
from jaxmodels.recommendation.known import Known, dense_rows

EXACT = jax.lax.Precision.HIGHEST


def crml(
    users: int,
    items: int,
    *,
    dim: int = 256,
    margin: float = 2.0,
    alpha: float = 0.1,
    beta: float = 0.1,
    most: float = 100.0,
    negatives: int = 10,
    in_batch: bool = False,
    compat: bool = False,
) -> Method:
    """Mean relu(margin + d+ - min d-) + a GloVe-like fit of co-occurrences among the batch's users and items.

    `init` needs {'known': Known, 'known_items': Known}: the positives of the users, and the users of each item.

    Args:
        users: M.
        items: N.
        dim: d.
        margin: of the hinge.
        alpha: weight that ties users to their co-occurrence vectors.
        beta: the same for items.
        most: co-occurrence from which a pair has the full weight.
        negatives: S candidates per row.
        in_batch: one negative per row, and each user's nearest among those of the whole batch (which may be its own
            positives): what the released training does.
        compat: the released fit adds the biases of all pairs to every pair (a broadcast over three axes).
    """

    def init(key, batch):
        if batch is None or "known" not in batch or "known_items" not in batch:
            raise ValueError("batch: expected 'known' and 'known_items', the positives by user and by item")
        shapes = {
            "user": (users, dim), "item": (items, dim), "co_user": (users, dim), "co_item": (items, dim),
            "co_user_bias": (users, 1), "co_item_bias": (items, 1),
        }  # fmt: skip
        keys = jax.random.split(key, len(shapes))
        params = {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
        return {"params": params, "state": {name: batch[name] for name in ("known", "known_items")}}

    def loss(variables, batch, key):
        params, state = variables["params"], variables["state"]
        user, positive = jnp.asarray(batch["user"]), jnp.asarray(batch["positive"])
        negative = negatives_of(batch, state, key, 1 if in_batch else negatives, items, "uniform")
        weight = row_weight(batch, params["item"])[: len(user)]
        rows = params["user"][user][:, None]
        near = squared(rows, params["item"][positive][:, None])[:, 0, 0]
        if in_batch:
            every = params["item"][negative[:, 0]]
            far = squared(rows, jnp.broadcast_to(every[None], (len(user), *every.shape)))[:, 0]
            far = jnp.where(weight[None] > 0, far, jnp.inf)
        else:
            far = squared(rows, params["item"][negative])[:, 0]
        hinge = (jax.nn.relu(margin + near - far.min(1)) * weight).sum() / jnp.maximum(weight.sum(), 1)
        fits = []
        for side, known, ids, tie, others in (
            ("user", state["known"], user, alpha, items),
            ("item", state["known_items"], positive, beta, users),
        ):
            unique, there = distinct(ids, weight > 0, len(params[side]))
            shared = co_occurrence(known, unique, there, others)
            tables = (params[side][unique], params[f"co_{side}"][unique], params[f"co_{side}_bias"][unique][:, 0])
            fits.append(co_fit(*tables, shared, there, most=most, tie=tie, compat=compat))
        of_users, of_items = fits
        total = hinge + of_users + of_items
        parts = {"preference": hinge, "users": of_users, "items": of_items, "loss": total}
        return total, Aux(state, {name: Mean(value, jnp.ones_like(value)) for name, value in parts.items()})

    return Method(init, loss, predict_nearest, ((".*", "embeddings"),), shardings=SHARDINGS, batch=pair_batch)


def distinct(
    ids: Int[Array, " b"], counted: Bool[Array, " b"], total: int
) -> tuple[Int[Array, " b"], Bool[Array, " b"]]:
    """The distinct ids of the counted rows, ascending, and which of the b places hold one (the others hold id 0)."""
    found = jnp.unique(jnp.where(counted, ids, total), size=len(ids), fill_value=total)
    there = found < total
    return jnp.where(there, found, 0), there


def co_occurrence(known: Known, ids: Int[Array, " b"], there: Bool[Array, " b"], width: int) -> Float[Array, "b b"]:
    """How many entries each two lists share; 1 where none, and on the diagonal."""
    rows = jnp.where(there[:, None], dense_rows(known, ids, width, min(width, len(known.items))), False)
    shared = jnp.einsum("in,jn->ij", rows.astype(jnp.float32), rows.astype(jnp.float32), precision=EXACT)
    return jnp.where(jnp.eye(len(ids), dtype=bool), 1.0, jnp.maximum(shared, 1.0))


def co_fit(
    table: Float[Array, "b d"],
    co_table: Float[Array, "b d"],
    bias: Float[Array, " b"],
    shared: Float[Array, "b b"],
    there: Bool[Array, " b"],
    *,
    most: float,
    tie: float,
    compat: bool,
) -> Float[Array, ""]:
    """Mean w (x_i.x_j + b_i + b_j - log c_ij)^2 + tie mean (u - x)^2 over the rows that are there.

    The weight w is (c / most)^(3/4), 0 for pairs that share at most one, 1 from `most` on.
    """
    count = there.sum().astype(table.dtype)
    pairs = (there[:, None] & there[None]).astype(table.dtype)
    weight = jnp.where(shared <= 1, 0.0, jnp.minimum(shared / most, 1.0) ** 0.75) * pairs
    gap = jnp.einsum("id,jd->ij", co_table, co_table, precision=EXACT) - jnp.log(shared)
    if compat:  # (gap_jk + b_i + b_j)^2 averaged over i, j and k, without the third axis
        gap = gap + bias[:, None]
        held = jnp.where(there, bias, 0.0)
        square = gap**2 + 2 * gap * held.sum() / count + (held**2).sum() / count
    else:
        square = (gap + bias[:, None] + bias[None]) ** 2
    apart = (((table - co_table) ** 2) * there[:, None]).sum() / (count * table.shape[1])
    return (weight * square).sum() / count**2 + tie * apart
