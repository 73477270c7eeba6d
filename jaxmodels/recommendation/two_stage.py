"""Two-stage sampling of negatives on the device (Tran et al., SIGIR 2019): popular candidates, then the informative."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxmodels.recommendation.known import Known, listed, uniform_others

EXACT = jax.lax.Precision.HIGHEST
NEVER = -1e30


def two_stage_others(
    key: Key[Array, ""],
    known: Known,
    users: Int[Array, " b"],
    positives: Int[Array, " b"],
    count: int,
    popularity: Int[Array, " n"],
    item: Float[Array, "n d"],
    *,
    candidates: int,
) -> Int[Array, "b s"]:
    """Draws without replacement among candidates that a batch shares, by `samplers.candidate_weights`.

    The released sampler redraws a positive a few times and then keeps it; here it has no weight from the start. It also
    refreshes the vectors every hundred batches; here they are the current ones.

    Args:
        key: of the draws.
        known: lists.
        users: whose.
        positives: the item of each row, to which candidates are compared.
        count: S, at most `candidates`; where fewer candidates have a weight, others that the user does not have follow,
            and where the user has all candidates, uniform draws.
        popularity: whole numbers; candidates are distinct and drawn in proportion.
        item: vectors.
        candidates: how many.
    """
    first, second, third = jax.random.split(key, 3)
    chance = jnp.log(popularity.astype(jnp.float32)) + jax.random.gumbel(first, popularity.shape)
    pool = jax.lax.top_k(chance, candidates)[1]
    vectors = item / jnp.maximum(jnp.linalg.norm(item, axis=1, keepdims=True), 1e-12)
    cosine = jnp.einsum("bd,cd->bc", vectors[positives], vectors[pool], precision=EXACT)
    logs = (1 - (item.shape[1] - 1) / 2) * jnp.log(jnp.maximum(1 - cosine**2, 0) + 1e-8)
    wide = (len(users), candidates)
    ids = jnp.broadcast_to(pool[None], wide)
    own = listed(known, jnp.broadcast_to(users[:, None], wide), ids)
    logs = jnp.where((cosine > 0) & (ids != positives[:, None]), logs, NEVER / 2)
    logs = jnp.where(own, NEVER, logs) + jax.random.gumbel(second, wide)
    best = jax.lax.top_k(logs, count)[1]
    spare = uniform_others(third, known, users, count, len(item))
    return jnp.where(jnp.take_along_axis(own, best, axis=1), spare, jnp.take_along_axis(ids, best, axis=1))
