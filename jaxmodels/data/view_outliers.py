"""Outliers put into data with several views: the protocol of RCPMOD (arXiv 2408.07819) and of its forerunners.

Three kinds: *class* outliers, two objects of different classes that swap some views, so that each view looks normal and
they contradict each other; *attribute* outliers, uniform noise in every view; *class-attribute* outliers, swapped in
some views and noise in the others. The order of the draws from NumPy's legacy generator is the released code's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

KINDS = ("normal", "class", "attribute", "class-attribute")


class Injected(NamedTuple):
    """Data with outliers.

    Attributes:
        views: per view (N, D) in [0, 1], zeros where missing.
        outlier: (N,) bool.
        kind: (N,) index into `KINDS`.
        mask: (N, V), 1 where the view is there.
    """

    views: tuple[np.ndarray, ...]
    outlier: np.ndarray
    kind: np.ndarray
    mask: np.ndarray


def inject_outliers(
    views: Sequence[np.ndarray],
    classes: np.ndarray,
    mask: np.ndarray,
    random: np.random.RandomState,
    *,
    attribute: float = 0.05,
    classwise: float = 0.02,
    both: float = 0.08,
) -> Injected:
    """All three kinds, masked and scaled as the protocol has it.

    Args:
        views: per view (N, D), scaled by `global_minmax`.
        classes: (N,), compared for equality only.
        mask: (N, V) by `view_mask`.
        random: draws everything, in the protocol's order.
        attribute: share of attribute outliers, rounded down.
        classwise: share of class outliers, rounded down to pairs.
        both: share of class-attribute outliers, rounded down to pairs.

    Raises:
        ValueError: a rate outside of 0 to 1, views or mask of other lengths, or too few objects that can swap.
    """
    for name, rate in (("attribute", attribute), ("classwise", classwise), ("both", both)):
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"{name}: found a rate of {rate}, expected 0 to 1")
    objects = len(classes)
    check_views(views, mask, objects)
    views = tuple(np.array(x, np.float64) for x in views)
    kind = np.zeros(objects, np.int64)
    kind[swap_views(views, classes, mask, random, pairs=int(np.floor(classwise * objects)) // 2).ravel()] = 1
    kind[add_noise(views, kind > 0, random, count=int(attribute * objects))] = 2
    views = masked_minmax(views, mask)
    pairs = swap_views(
        views, classes, mask, random, pairs=int(np.floor(both * objects)) // 2, free=kind == 0, noise=True
    )
    kind[pairs.ravel()] = 3
    return Injected(masked_minmax(views, mask), kind > 0, kind, mask)


def check_views(views: Sequence[np.ndarray], mask: np.ndarray, objects: int) -> None:
    """Raises ValueError for views or a mask of another length, values that are no numbers, or empty views.

    Args:
        views: per view (N, D).
        mask: (N, V).
        objects: N.
    """
    for v, x in enumerate(views):
        if x.ndim != 2 or len(x) != objects:
            raise ValueError(f"view {v}: found shape {x.shape}, expected ({objects}, features) as the other views have")
    if mask.shape != (objects, len(views)):
        raise ValueError(f"mask: found shape {mask.shape}, expected {(objects, len(views))}")
    for v, x in enumerate(views):
        there = mask[:, v] > 0
        if not there.any():
            raise ValueError(f"view {v}: all {objects} objects lack it, expected some that have it")
        wrong = np.flatnonzero(there & ~np.isfinite(np.asarray(x, np.float64)).all(1))
        if len(wrong):
            raise ValueError(f"view {v}, row {wrong[0]}: found NaN or infinity, expected numbers where the mask is 1")
    lost = np.flatnonzero(~(mask > 0).any(1))
    if len(lost):
        raise ValueError(f"mask, row {lost[0]}: the object has no view at all, expected at least one")


def global_minmax(x: np.ndarray) -> np.ndarray:
    """A view scaled to [0, 1] by its one minimum and maximum, in float64: integers would wrap; zeros if constant."""
    x = np.asarray(x, np.float64)
    low, high = x.min(), x.max()
    return (x - low) / (high - low) if high > low else np.zeros_like(x)


def masked_minmax(views: Sequence[np.ndarray], mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """Views with zeros where missing, then scaled; those zeros take part in the minimum, as released."""
    return tuple(global_minmax(x * mask[:, v : v + 1]) for v, x in enumerate(views))


def add_noise(
    views: Sequence[np.ndarray], taken: np.ndarray, random: np.random.RandomState, *, count: int
) -> np.ndarray:
    """Overwrites some objects by U(0, 1), in place, view by view.

    Args:
        views: changed.
        taken: (N,) bool, objects that stay as they are.
        random: source.
        count: of objects.

    Returns:
        Their ids, in the order drawn.
    """
    free = np.flatnonzero(~taken)
    if count > len(free):
        raise ValueError(f"attribute: {count} outliers asked for, {len(free)} objects are left")
    chosen = random.choice(free, count, replace=False)
    for x in views:
        x[chosen] = random.uniform(0.0, 1.0, (count, x.shape[1]))
    return chosen


def swap_views(
    views: Sequence[np.ndarray],
    classes: np.ndarray,
    mask: np.ndarray,
    random: np.random.RandomState,
    *,
    pairs: int,
    free: np.ndarray | None = None,
    noise: bool = False,
) -> np.ndarray:
    """Swaps half of the views (V // 2) between objects of different classes, in place.

    Args:
        views: changed.
        classes: (N,).
        mask: (N, V).
        random: source.
        pairs: how many.
        free: (N,) bool, objects that may be used; all unless given.
        noise: overwrite the views that are not swapped by U(0, 1).

    Returns:
        (pairs, 2) ids.
    """
    ids = np.arange(len(classes)) if free is None else np.flatnonzero(free)
    chosen = ids[_pairs(classes[ids], mask[ids] > 0, random, pairs)]
    half = len(views) // 2
    for i, j in chosen:
        common = np.flatnonzero((mask[i] > 0) & (mask[j] > 0))
        swapped = random.choice(common, half, replace=False)
        for v in swapped:
            views[v][[i, j]] = views[v][[j, i]]
        for v in np.setdiff1d(np.arange(len(views)), swapped) if noise else ():
            for row in (i, j):
                views[v][row] = random.uniform(0.0, 1.0, views[v].shape[1])
    return chosen


def _pairs(classes: np.ndarray, has: np.ndarray, random: np.random.RandomState, count: int) -> np.ndarray:
    """Disjoint pairs, uniform over the candidates that are left: drawn from their list, a drawn entry leaves it."""
    able = has.sum(1) >= 2
    common = has.astype(np.int64) @ has.T.astype(np.int64) >= has.shape[1] // 2
    allowed = np.triu((classes[:, None] != classes[None]) & common & able[:, None] & able[None], 1)
    first, second = np.nonzero(allowed)
    used: set[int] = set()
    drawn: list[int] = []
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count:
        if len(drawn) == len(first):
            raise ValueError(f"{count} pairs of outliers asked for, only {len(chosen)} can be found among the objects")
        at = int(random.choice(len(first) - len(drawn)))
        for gone in sorted(drawn):  # the list without what was drawn, without building it
            at += at >= gone
        drawn.append(at)
        pair = int(first[at]), int(second[at])
        if not used & set(pair):
            used.update(pair)
            chosen.append(pair)
    return np.array(chosen, np.int64).reshape(-1, 2)
