"""Asking a trained recommender: the best items of some users, exactly, on the device."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.data.interactions import Interactions
from jaxmodels.recommendation.distances import to_catalogue
from jaxmodels.recommendation.known import known_of
from jaxmodels.recommendation.lrml import lrml
from jaxmodels.recommendation.sfcml import sfcml
from jaxmodels.recommendation.transcf import transcf

KINDS = ("nearest", "sfcml", "lrml", "transcf")
METRIC = ("nearest", "sfcml")  # whose scores are distances between vectors


class Recommender(NamedTuple):
    """A trained model, and what its users have already.

    Attributes:
        kind: how it scores: 'nearest' (DPCML, CML, CPE, CRML: minus the squared distance of an item to the nearest of a
            user's vectors), 'sfcml', 'lrml' or 'transcf'.
        params: 'user' (M, C d) and 'item' (N, d); 'key' and 'memories' of LRML.
        seen: training items of each user.
        has: (M, C) which vectors a user has; all unless given.
        users: (M,) what users are called outside; 0 to M - 1 unless given.
        items: (N,) the same.
    """

    kind: str
    params: dict[str, Any]
    seen: Interactions
    has: np.ndarray | None = None
    users: np.ndarray | None = None
    items: np.ndarray | None = None

    @property
    def num_users(self) -> int:
        """M."""
        return len(self.params["user"])

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.params["item"])

    @property
    def vectors(self) -> int:
        """C."""
        return self.params["user"].shape[1] // self.params["item"].shape[1]


class Recommended(NamedTuple):
    """The best items of each user, best first.

    Attributes:
        items: (u, k) ids as outside; where fewer than k are left, what the user had follows.
        scores: (u, k), higher is better; minus infinity for what the user had.
    """

    items: np.ndarray
    scores: np.ndarray


def check(model: Recommender) -> None:
    """Raises ValueError where parts of a model do not fit one another."""
    if model.kind not in KINDS:
        raise ValueError(f"recommender: found kind '{model.kind}', expected one of {', '.join(KINDS)}")
    users, items, size = model.num_users, model.num_items, model.params["item"].shape[1]
    if model.params["user"].shape[1] % size:
        raise ValueError(f"recommender: users have {model.params['user'].shape[1]} numbers, items {size}")
    lengths = {"users": (model.users, users), "items": (model.items, items), "seen": (model.seen.starts[1:], users)}
    for name, (found, expected) in lengths.items():
        if found is not None and len(found) != expected:
            raise ValueError(f"recommender: found {len(found)} {name}, expected {expected}")


def recommend(
    model: Recommender,
    user_ids: Sequence[Any] | np.ndarray,
    k: int = 10,
    *,
    exclude_seen: bool = True,
    chunk: int = 256,
) -> Recommended:
    """The k best items of each user; of equal ones the one with the lower number comes first.

    Args:
        model: what to ask; its tables may be sharded over devices.
        user_ids: as outside (`model.users`), else from 0 to M - 1.
        k: how many.
        exclude_seen: leave out what the user had in training.
        chunk: users scored at once.

    Raises:
        ValueError: an unknown user, or a k below 1 or above the number of items.
    """
    check(model)
    return _ranked(model, numbers_of(user_ids, model.users, model.num_users, "user"), k, exclude_seen, chunk)


def _ranked(model: Recommender, users: np.ndarray, k: int, exclude_seen: bool, chunk: int) -> Recommended:
    if not isinstance(k, int | np.integer) or not 1 <= k <= model.num_items:
        raise ValueError(f"k: found {k}, expected 1 to {model.num_items}, the number of items")
    chunk = max(1, min(chunk, len(users)))
    starts, lists = model.seen.starts, model.seen.items
    longest = int((starts[users + 1] - starts[users]).max(initial=0)) if exclude_seen else 0
    variables, score = variables_of(model), scorer(model)
    ids, scores = [np.zeros((0, k), np.int32)], [np.zeros((0, k), np.float32)]
    for first in range(0, len(users), chunk):
        own = users[np.minimum(np.arange(first, first + chunk), len(users) - 1)]
        seen = np.full((chunk, longest), model.num_items, np.int32)  # outside of the catalogue: nothing
        for row, user in enumerate(own if longest else ()):
            seen[row, : starts[user + 1] - starts[user]] = lists[starts[user] : starts[user + 1]]
        best, found = (np.asarray(x) for x in _best(score, variables, own, seen, k))
        ids.append(best[: len(users) - first])
        scores.append(found[: len(users) - first])
    found = np.concatenate(ids)
    return Recommended(found if model.items is None else model.items[found], np.concatenate(scores))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _best(score, variables, users, seen, k):
    scores = score(variables, {"user": users})
    rows = jnp.broadcast_to(jnp.arange(len(users))[:, None], seen.shape)
    found, best = jax.lax.top_k(scores.at[rows, seen].set(-jnp.inf, mode="drop"), k)
    return best, found


def variables_of(model: Recommender) -> dict[str, Any]:
    """What the model's score function takes."""
    state: dict[str, Any] = {}
    if model.kind == "transcf":
        sizes = {"num_users": model.num_users, "num_items": model.num_items}
        state["known"] = known_of(model.seen.users, model.seen.items, **sizes)
    if model.has is not None:
        state["has"] = jnp.asarray(model.has)
    return {"params": model.params, "state": state}


def scorer(model: Recommender) -> Callable[[Any, Any], jax.Array]:
    """(variables, {'user': ids}) -> scores (b, N); the same function for models of the same sizes."""
    memories = len(model.params["memories"]) if model.kind == "lrml" else 0
    return _scorer(model.kind, model.num_users, model.num_items, model.params["item"].shape[1], memories)


@functools.lru_cache(maxsize=32)
def _scorer(kind: str, users: int, items: int, dim: int, memories: int) -> Callable[[Any, Any], jax.Array]:
    if kind == "lrml":
        return lrml(users, items, dim=dim, memories=memories).predict
    if kind == "transcf":
        return transcf(users, items, dim=dim).predict
    if kind == "sfcml":
        return sfcml(users, items, dim=dim).predict

    def nearest_of(variables, batch):
        rows = variables["params"]["user"][batch["user"]].reshape(len(batch["user"]), -1, dim)
        has = variables["state"]["has"][batch["user"]] if "has" in variables["state"] else None
        return -to_catalogue(rows, variables["params"]["item"], has)

    return nearest_of


def numbers_of(ids: Sequence[Any] | np.ndarray, names: np.ndarray | None, count: int, what: str) -> np.ndarray:
    """Numbers from 0 of users or items that are called as outside.

    Raises:
        ValueError: names the first that there is none of.
    """
    try:
        wanted = np.atleast_1d(np.asarray(ids))
    except ValueError:  # lists of different lengths
        wanted = np.zeros((0, 0))
    if wanted.ndim > 1 or wanted.dtype.kind == "O":
        raise ValueError(f"{what}s: found {str(ids)[:60]}, expected a list of ids")
    if names is None:
        if len(wanted) and wanted.dtype.kind not in "iu":
            raise ValueError(f"{what} '{wanted[0]}': expected a number from 0 to {count - 1}")
        if len(wrong := wanted[(wanted < 0) | (wanted >= count)]):
            raise ValueError(f"{what} {wrong[0]}: expected 0 to {count - 1}")
        return wanted.astype(np.int64)
    if names.dtype.kind == "U":
        wanted = wanted.astype(str)
    order = np.argsort(names)
    at = order[np.minimum(np.searchsorted(names, wanted, sorter=order), len(names) - 1)]
    if len(wrong := wanted[names[at] != wanted]):
        raise ValueError(
            f"{what} '{wrong[0]}': the model knows none of that name, expected ids as in the training file"
        )
    return at
