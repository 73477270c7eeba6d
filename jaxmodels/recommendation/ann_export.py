"""Item vectors for an index of nearest neighbours (FAISS, hnswlib, ScaNN): each user vector asks, the minimum decides.

An index that is exact gives exactly the model's order: an item among a user's k best is among the k nearest of the
vector that it is nearest to.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.atomic import replacing, write_text
from jaxmodels.recommendation.recommend import METRIC, Recommender, check, numbers_of


class Queries(NamedTuple):
    """What to ask an index.

    Attributes:
        vectors: (q, d) float32, one after another.
        owner: (q,) which of the users asked about each belongs to.
    """

    vectors: np.ndarray
    owner: np.ndarray


def export_items(model: Recommender, folder: str | os.PathLike[str]) -> Path:
    """Writes items.npy (N, d) float32 in C order, ids.npy (N,), and index.json, which names the distance.

    Raises:
        ValueError: a model whose scores are no distances (LRML, TransCF: the translation depends on user and item).
        OSError: a file cannot be written.
    """
    vectors = item_vectors(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.arange(len(vectors)) if model.items is None else model.items
    for name, array in (("items.npy", vectors), ("ids.npy", ids)):
        with replacing(folder / name) as file:
            np.save(file, array, allow_pickle=False)
    about = {
        "distance": "squared L2",
        "items": len(vectors),
        "dim": vectors.shape[1],
        "queries_per_user": model.vectors,
    }
    write_text(folder / "index.json", json.dumps(about, indent=1) + "\n")
    return folder


def item_vectors(model: Recommender) -> np.ndarray:
    """(N, d) float32; squared Euclidean distances to them order items as the model does.

    Raises:
        ValueError: a model whose scores are no distances.
    """
    check(model)
    if model.kind not in METRIC:
        raise ValueError(f"export: a model of kind '{model.kind}' has no distances, expected {' or '.join(METRIC)}")
    return np.ascontiguousarray(model.params["item"], np.float32)


def user_queries(model: Recommender, user_ids: Sequence[Any] | np.ndarray) -> Queries:
    """Every vector of some users, as single queries.

    Raises:
        ValueError: an unknown user.
    """
    users = numbers_of(user_ids, model.users, model.num_users, "user")
    rows = np.asarray(model.params["user"], np.float32)[users].reshape(len(users), model.vectors, -1)
    has = np.ones(rows.shape[:2], bool) if model.has is None else np.asarray(model.has)[users]
    return Queries(np.ascontiguousarray(rows[has]), np.repeat(np.arange(len(users)), has.sum(1)))


def merge_by_minimum(
    items: np.ndarray, distances: np.ndarray, owner: np.ndarray, k: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What an index found for each query -> items and distances of each user, nearest first, at most k.

    Args:
        items: (q, r) of each query; negative ones are gaps, as FAISS leaves them.
        distances: (q, r).
        owner: as `Queries.owner`.
        k: how many; for k that a user has not seen ask the index for k + the longest list of seen items.
    """
    found = []
    for user in range(int(owner.max(initial=-1)) + 1):
        own, far = items[owner == user].reshape(-1), distances[owner == user].reshape(-1)
        own, far = own[own >= 0], far[own >= 0]
        order = np.lexsort((own, far))
        _, first = np.unique(own[order], return_index=True)  # where each item is nearest
        kept = order[np.sort(first)][:k]
        found.append((own[kept], far[kept]))
    return found
