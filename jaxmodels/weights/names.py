"""Weight maps: a table of rows (published name, our paths, layout) that reads checkpoints, and reversed writes them.

A layout is an einops pattern from the published array to ours; an array that holds several of ours (a fused qkv) has
the stacking axis n. '{}' in a name is the index of a block; where only our path has one, the published array is the
stack of all blocks. Reading ends with every key read and every path filled, or with an error that names what is left.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from einops import EinopsError, rearrange

from jaxmodels.rules import leaf_names, nearest, path_name


class Row(NamedTuple):
    """One line of a weight map.

    Attributes:
        theirs: published name.
        ours: our parameter paths; several are stacked on the axis n of the layout.
        layout: einops pattern, published -> ours; empty for equal layouts.
    """

    theirs: str
    ours: tuple[str, ...]
    layout: str = ""


def expand(rows: Iterable[Row], blocks: int) -> list[Row]:
    """The rows with '{}' replaced by each block's index.

    >>> expand([Row('blocks.{}.norm1.bias', ('block{}/norm1/bias',))], 2)[1]
    Row(theirs='blocks.1.norm1.bias', ours=('block1/norm1/bias',), layout='')
    >>> expand([Row('blocks/norm1/bias', ('block{}/norm1/bias',), 'n c -> n c')], 2)[0].ours
    ('block0/norm1/bias', 'block1/norm1/bias')
    """
    expanded: list[Row] = []
    for row in rows:
        each = [tuple(path.replace("{}", str(i)) for path in row.ours) for i in range(blocks)]
        if "{}" in row.theirs:
            expanded += [Row(row.theirs.replace("{}", str(i)), ours, row.layout) for i, ours in enumerate(each)]
        elif "{}" in "".join(row.ours):
            expanded.append(Row(row.theirs, tuple(path for ours in each for path in ours), row.layout))
        else:
            expanded.append(row)
    return expanded


def to_ours(array: np.ndarray, row: Row, axes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """One published array as our arrays, by path; `axes` gives sizes that a layout needs (such as heads)."""
    if not row.layout:
        return {row.ours[0]: array}
    out = rearrange(array, row.layout, **_used(row, axes))
    return dict(zip(row.ours, out if _is_stack(row) else [out], strict=True))


def to_theirs(ours: Mapping[str, np.ndarray], row: Row, axes: Mapping[str, int]) -> np.ndarray:
    """The inverse of `to_ours`."""
    arrays = [ours[path] for path in row.ours]
    if not row.layout:
        return arrays[0]
    inward, outward = row.layout.split(" -> ")
    stacked = np.stack(arrays) if _is_stack(row) else arrays[0]
    return rearrange(stacked, f"{outward} -> {inward}", **_used(row, axes))


def _is_stack(row: Row) -> bool:
    return "n" in re.findall(r"\w+", row.layout)


def _used(row: Row, axes: Mapping[str, int]) -> dict[str, int]:
    letters = set(re.findall(r"\w+", row.layout))
    sizes = {name: size for name, size in axes.items() if name in letters}
    return {**sizes, "n": len(row.ours)} if _is_stack(row) else sizes


def read(
    published: Mapping[str, np.ndarray],
    rows: Sequence[Row],
    template: Any,
    *,
    axes: Mapping[str, int] | None = None,
    drop: Sequence[str] = (),
    source: str = "checkpoint",
) -> Any:
    """Published arrays -> our parameter tree, in the template's shapes and dtypes.

    Args:
        published: name -> array.
        rows: the expanded map; a row whose name is absent is an error.
        template: our parameters, abstract or not.
        axes: sizes the layouts need.
        drop: patterns of published names that are deliberately not read (heads, say).
        source: the file, for errors.

    Raises:
        ValueError: a key that is missing, that nothing reads, or whose shape does not fit.
    """
    filled: dict[str, np.ndarray] = {}
    shapes = {path_name(path): leaf for path, leaf in _leaves(template)}
    read_keys = set()
    for row in rows:
        if row.theirs not in published:
            raise ValueError(f"{source}: has no '{row.theirs}'{nearest(row.theirs, published)}")
        read_keys.add(row.theirs)
        for path, array in _fit(np.asarray(published[row.theirs]), row, axes or {}, source).items():
            if path not in shapes:
                raise ValueError(f"{source}: '{row.theirs}' is read into '{path}', which the model does not have")
            if array.shape != shapes[path].shape:
                raise ValueError(
                    f"{source}: '{row.theirs}' gives '{path}' the shape {array.shape}, expected {shapes[path].shape}"
                )
            filled[path] = array.astype(shapes[path].dtype)
    left = [key for key in published if key not in read_keys and not any(re.fullmatch(p, key) for p in drop)]
    if left:
        raise ValueError(f"{source}: nothing reads '{left[0]}'{_more(left)}{nearest(left[0], read_keys)}")
    empty = [name for name in shapes if name not in filled]
    if empty:
        raise ValueError(f"{source}: nothing fills '{empty[0]}'{_more(empty)}")
    return jax.tree_util.tree_map_with_path(lambda path, _: filled[path_name(path)], template)


def write(params: Any, rows: Sequence[Row], *, axes: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """Our parameters -> published name -> array.

    Raises:
        ValueError: a parameter that no row writes.
    """
    ours = {path_name(path): np.asarray(leaf) for path, leaf in _leaves(params)}
    written = {path for row in rows for path in row.ours}
    left = [name for name in leaf_names(params) if name not in written]
    if left:
        raise ValueError(f"nothing writes '{left[0]}'{_more(left)}")
    return {row.theirs: np.ascontiguousarray(to_theirs(ours, row, axes or {})) for row in rows}


def _fit(array: np.ndarray, row: Row, axes: Mapping[str, int], source: str) -> dict[str, np.ndarray]:
    try:
        return to_ours(array, row, axes)
    except EinopsError:
        sizes = "".join(f", {name}={size}" for name, size in _used(row, axes).items())
        expected = f"{row.layout.split(' -> ')[0]}{sizes}"
        raise ValueError(f"{source}: '{row.theirs}' has the shape {array.shape}, expected ({expected})") from None


def _leaves(tree: Any):
    return jax.tree_util.tree_leaves_with_path(tree)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
