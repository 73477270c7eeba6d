"""Other ways to divide interactions than at random: by time, or as somebody else's matrices have them."""

from pathlib import Path

import numpy as np

from jaxmodels.data.interactions import Divided, Interactions, of_lists
from jaxmodels.data.tables import npz_arrays

PARTS = ("train", "val", "test")


def split_latest(data: Interactions, times: np.ndarray, *, shares: tuple[float, float] = (0.6, 0.2)) -> Divided:
    """Each user's newest items are the test, those before them the validation part.

    Args:
        data: all interactions.
        times: of each entry of `data.items`; of equal ones the lower item comes first.
        shares: of training and validation, rounded down; the rest is for the test.

    Raises:
        ValueError: shares that are no shares.
    """
    if min(shares) < 0 or sum(shares) > 1:
        raise ValueError(f"shares: found {shares}, expected two numbers from 0 whose sum is at most 1")
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    for first, last in zip(data.starts[:-1], data.starts[1:], strict=True):
        own = data.items[first:last][np.argsort(times[first:last], kind="stable")]
        one = int(shares[0] * len(own))
        two = one + int(shares[1] * len(own))
        for part, piece in zip(parts, (own[:one], own[one:two], own[two:]), strict=True):
            part.append(piece)
    return Divided(*(of_lists(part, data.num_items) for part in parts))


def read_matrices(folder: Path | str) -> Divided:
    """The three sparse matrices that LibCML ships: user_train_matrix.npz, user_val_matrix.npz, user_test_matrix.npz.

    Args:
        folder: with files as SciPy's `save_npz` writes a COO matrix of users x items.

    Raises:
        ValueError: a missing or damaged file, matrices of different shapes, a pair in two of them.
    """
    folder, found = Path(folder), []
    for part in PARTS:
        file = folder / f"user_{part}_matrix.npz"
        stored = npz_arrays(file, ("row", "col", "shape"))
        rows, columns, shape = stored["row"], stored["col"], tuple(int(n) for n in stored["shape"])
        for name, ids, most in (("row", rows, shape[0]), ("col", columns, shape[1])):
            if len(wrong := ids[(ids < 0) | (ids >= most)]):
                raise ValueError(f"{file}: '{name}' holds {wrong[0]}, expected 0 to {most - 1}")
        found.append((shape, np.unique(rows.astype(np.int64) * shape[1] + columns)))
    shapes = [shape for shape, _ in found]
    if len(set(shapes)) > 1:
        raise ValueError(f"{folder}: matrices have the shapes {', '.join(map(str, shapes))}, expected equal ones")
    users, items = shapes[0]
    pairs, times = np.unique(np.concatenate([pairs for _, pairs in found]), return_counts=True)
    if len(twice := pairs[times > 1]):
        raise ValueError(f"{folder}: user {twice[0] // items} has item {twice[0] % items} in two of the matrices")
    return Divided(*(_lists(pairs, users, items) for _, pairs in found))


def _lists(pairs: np.ndarray, users: int, items: int) -> Interactions:
    starts = np.concatenate([[0], np.cumsum(np.bincount(pairs // items, minlength=users))])
    return Interactions(starts.astype(np.int64), pairs % items, items)
