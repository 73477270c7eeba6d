"""Shapes of batches: another one would compile the step again, silently and for minutes."""

import jax
import numpy as np

from jaxmodels.method import StepBatch
from jaxmodels.rules import path_name

Leaf = tuple[tuple[int, ...], np.dtype]
Shapes = dict[str, Leaf]


def same_shapes(first: Shapes | None, batch: StepBatch, what: str) -> Shapes:
    """The shapes of the first batch of a run, with which this one is compared.

    Args:
        first: what this function returned for the batch before, None for the first one.
        batch: nested dicts of arrays, or a tuple of them.
        what: names the batch in the message.

    Raises:
        ValueError: a name, shape or dtype differs.
    """
    tree = batch if isinstance(batch, tuple) else dict(batch)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = {path_name(path): (np.shape(leaf), jax.dtypes.canonicalize_dtype(leaf.dtype)) for path, leaf in leaves}
    first = found if first is None else first
    for name in {**first, **found}:
        if first.get(name) != found.get(name):
            raise ValueError(
                f"{what}: '{name}' is {_show(found.get(name))}, expected {_show(first.get(name))} as before, "
                "for another shape would compile the step again; pad it and mark what counts by 'mask'"
            )
    return first


def few_shapes(seen: list[Shapes], batch: StepBatch, what: str, *, most: int) -> list[Shapes]:
    """The shapes of a run's batches so far, this one's included; at most so many, for each compiles the step once.

    Args:
        seen: what this function returned for the batch before, [] for the first one.
        batch: nested dicts of arrays, or a tuple of them.
        what: names the batch in the message.
        most: different shapes that there may be.

    Raises:
        ValueError: one shape too many; or, where one is allowed, what `same_shapes` raises.
    """
    if most == 1 and seen:
        same_shapes(seen[0], batch, what)
    found = same_shapes(None, batch, what)
    if found in seen:
        return seen
    if len(seen) == most:
        raise ValueError(f"{what}: a shape that no batch had before, expected at most {most}; each compiles the step")
    return [*seen, found]


def _show(leaf: Leaf | None) -> str:
    return "absent" if leaf is None else f"{leaf[1]}{list(leaf[0])}"
