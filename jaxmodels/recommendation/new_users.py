"""People who came after training: their vectors from a few items that they like, items held where they are."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.data.interactions import of_lists
from jaxmodels.recommendation.distances import nearest
from jaxmodels.recommendation.known import known_of, uniform_others
from jaxmodels.recommendation.norms import to_sphere
from jaxmodels.recommendation.recommend import METRIC, Recommended, Recommender, _ranked, check, numbers_of

NEGATIVES, RATE, ROUNDS = 10, 0.05, 10


def new_user_vectors(
    model: Recommender,
    item_lists: Sequence[Sequence[Any]],
    *,
    how: str = "average",
    steps: int = 100,
    margin: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """Vectors (u, C, d) of new users.

    'average' divides a user's items among the C vectors (k-means, begun at items far from one another) and takes the
    mean of each; with fewer items than C vectors some are equal, which changes no distance. 'optimise' goes on from
    there with Adam on the hinge of hard sampling. Both hold the vectors on the unit sphere where the model does.

    Args:
        model: whose scores are distances (DPCML, CML, CPE, CRML, SFCML).
        item_lists: of each user, at least one item, by the ids that items have outside.
        how: see above.
        steps: of 'optimise'.
        margin: of the hinge.
        seed: of its negatives.

    Raises:
        ValueError: nobody, a user without items, an unknown item or choice, no steps, a model that is none of vectors
            and distances.
    """
    check(model)
    if model.kind not in METRIC:
        raise ValueError(
            f"new users: a model of kind '{model.kind}' is none of distances, expected {' or '.join(METRIC)}"
        )
    if how not in ("average", "optimise"):
        raise ValueError(f"how: found '{how}', expected average or optimise")
    if steps < 1:
        raise ValueError(f"steps: found {steps}, expected at least 1")
    lists = [np.unique(numbers_of(items, model.items, model.num_items, "item")) for items in item_lists]
    if not lists:
        raise ValueError("new users: found none, expected a list of items for each")
    if empty := [i for i, items in enumerate(lists) if not len(items)]:
        raise ValueError(f"new users: user {empty[0]} has no item, expected at least one")
    item = np.asarray(model.params["item"])
    held = np.abs(np.linalg.norm(np.asarray(model.params["user"]).reshape(-1, item.shape[1]), axis=1) - 1).max() < 1e-3
    vectors = np.stack([_centres(item[items], model.vectors) for items in lists])
    vectors = np.asarray(to_sphere(jnp.asarray(vectors))) if held else vectors
    if how == "average":
        return vectors
    data = of_lists(lists, model.num_items)
    known = known_of(data.users, data.items, num_users=len(lists), num_items=model.num_items)
    return np.asarray(
        _optimised(
            jnp.asarray(vectors), jnp.asarray(item), known, data.users, data.items, jax.random.key(seed), steps, margin,
            bool(held),
        )
    )  # fmt: skip


def recommend_new(
    model: Recommender, item_lists: Sequence[Sequence[Any]], k: int = 10, *, exclude_seen: bool = True, **options: Any
) -> Recommended:
    """The k best items of new users; their own are left out.

    Args:
        model: see `new_user_vectors`.
        item_lists: what each likes.
        k: how many.
        exclude_seen: leave out the items of the lists.
        **options: of `new_user_vectors`.

    Raises:
        ValueError: as `new_user_vectors` and `recommend`.
    """
    vectors = new_user_vectors(model, item_lists, **options)
    lists = [np.unique(numbers_of(items, model.items, model.num_items, "item")) for items in item_lists]
    params = {**model.params, "user": vectors.reshape(len(vectors), -1)}
    guests = model._replace(params=params, seen=of_lists(lists, model.num_items), has=None, users=None)
    return _ranked(guests, np.arange(len(lists)), k, exclude_seen, 256)


def _centres(own: np.ndarray, count: int) -> np.ndarray:
    """(count, d): means of groups of rows; groups that have none repeat the first."""
    chosen = [int(((own - own.mean(0)) ** 2).sum(1).argmin())]
    while len(chosen) < min(count, len(own)):
        far = ((own[:, None] - own[chosen][None]) ** 2).sum(2).min(1)
        chosen.append(int(far.argmax()))
    centres = own[chosen]
    for _ in range(ROUNDS):
        group = ((own[:, None] - centres[None]) ** 2).sum(2).argmin(1)
        centres = np.stack([own[group == g].mean(0) if (group == g).any() else centres[g] for g in range(len(centres))])
    return np.concatenate([centres, np.repeat(centres[:1], count - len(centres), 0)])


@functools.partial(jax.jit, static_argnums=(6, 8))
def _optimised(vectors, item, known, users, items, key, steps, margin, held):
    optimizer = optax.adam(optax.linear_schedule(RATE, 0.0, steps))

    def loss(vectors, key):
        others = uniform_others(key, known, users, NEGATIVES, len(item))
        far = nearest(vectors[users], item[jnp.concatenate([items[:, None], others], axis=1)])
        return jax.nn.relu(margin + far[:, 0] - far[:, 1:].min(1)).sum()

    def step(carry, key):
        vectors, moments = carry
        updates, moments = optimizer.update(jax.grad(loss)(vectors, key), moments)
        vectors = optax.apply_updates(vectors, updates)
        return (to_sphere(vectors) if held else vectors, moments), None

    return jax.lax.scan(step, (vectors, optimizer.init(vectors)), jax.random.split(key, steps))[0][0]
