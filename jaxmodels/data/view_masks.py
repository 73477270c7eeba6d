"""Which object lacks which view, drawn as the benchmarks of partial multi-view learning do."""

from collections.abc import Callable

import numpy as np

Draw = Callable[[int, tuple[int, int]], np.ndarray]  # (high, shape) -> integers in [0, high)


def view_mask(objects: int, views: int, missing_rate: float, random: np.random.RandomState | Draw) -> np.ndarray:
    """A mask whose zeros are missing views; every object keeps at least one.

    The rate is that of RCPMOD's released code (arXiv 2408.07819): divided by the number of views it is the share of
    missing entries; with two views and 0.3 about 30 % of the objects lack a view. Masks are drawn until the share is
    within 0.005 of it.

    Args:
        objects: N.
        views: V.
        missing_rate: 0 to 1.
        random: NumPy's legacy generator, whose stream the published protocols seed, or any other source of integers.

    Returns:
        (N, V) int32.

    Raises:
        ValueError: a rate outside of 0 to 1, fewer than one view, or a share that cannot be met with so few objects.
    """
    if not 0.0 <= missing_rate <= 1.0:
        raise ValueError(f"missing_rate: found {missing_rate}, expected 0 to 1")
    if views < 1 or objects < 1:
        raise ValueError(f"view_mask: found {objects} objects and {views} views, expected at least one of each")
    draw = _legacy(random) if isinstance(random, np.random.RandomState) else random
    share = 1.0 - missing_rate / views  # of entries that stay
    if share == 1.0:
        draw(1, (objects, views))  # the released code draws ones here: the stream moves
        return np.ones((objects, views), np.int32)
    if share <= 1 / views:
        return _one_hot(draw(views, (objects, 1)), views)
    for _ in range(TRIES):
        keep = _one_hot(draw(views, (objects, 1)), views)
        more = views * objects * share - objects
        first = draw(100, (objects, views)) < int(more / (views * objects) * 100)
        overlap = (first & (keep == 1)).sum()
        more = more / (1 - overlap / more)
        second = draw(100, (objects, views)) < int(more / (views * objects) * 100)
        mask = ((keep == 1) | second).astype(np.int32)
        if abs(share - mask.mean()) < 0.005:
            return mask
    raise ValueError(
        f"missing_rate={missing_rate}: no mask of {objects} objects in {TRIES} draws is within 0.005 of it"
    )


TRIES = 100_000


def _legacy(random: np.random.RandomState) -> Draw:
    return lambda high, shape: random.randint(0, high, size=shape)


def _one_hot(columns: np.ndarray, views: int) -> np.ndarray:
    return (columns == np.arange(views)[None]).astype(np.int32)
