"""Batches: `batches(source, ...)[step]` is a pure function of (seed, step).

That is the whole contract between data and training. Resuming is asking for a later step, the checkpoint stores one
integer, and several hosts read the same global batches, each its own rows. Grain shuffles, repeats and batches the
*indices*; rows are read afterwards, so a host touches only the examples that it needs. Workers merely prefetch.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from jaxmodels.data.source import Example, Source

Augment = Callable[[Example, np.random.Generator], Example]


class _Row(NamedTuple):
    index: Any  # of the example in its source
    position: Any  # in the endless stream of examples; keys the augmentation


def batches(
    source: Source,
    batch_size: int,
    *,
    seed: int,
    augment: Augment | None = None,
    remainder: str = "drop",
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """Endless shuffled batches of `source`; each example occurs at most once per epoch.

    Every epoch has `steps_per_epoch` batches and an order of its own. An augmentation draws from a generator keyed by
    (seed, position in the stream), hence independently of the batch size's split over hosts and of who reads when.

    Args:
        source: of examples that stack: equal names and, after `augment`, equal shapes.
        batch_size: rows of the global batch.
        seed: of the order and of the augmentation.
        augment: (example, generator) -> example.
        remainder: what becomes of the examples of an epoch that fill no batch: 'drop' leaves them out; 'pad' keeps
            them in a last batch filled up with copies of its first row, and marks real rows by 'mask' 1.0 and
            copies by 0.0 in every batch (PyTorch's drop_last=False, with static shapes).
        rows: which rows of each global batch to read, all unless given; one host's are `mesh.local_rows`.

    Returns:
        A Grain dataset: `result[step]` is a dict of arrays (B, ...), or (len(rows), ...).

    Raises:
        ValueError: the batch is larger than the source, or a row is not in it.

    >>> from jaxmodels.data.source import array_source
    >>> data = batches(array_source({'x': np.arange(6)}), 3, seed=0)
    >>> sorted(np.concatenate([data[10]['x'], data[11]['x']]).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    if not 0 < batch_size <= len(source):
        raise ValueError(f"--batch_size={batch_size}: expected 1 to {len(source)}, the number of training examples")
    if remainder not in ("drop", "pad"):
        raise ValueError(f"remainder='{remainder}': expected 'drop' or 'pad'")
    mine = _rows(batch_size, rows)
    # Hashed, because Grain adds the epoch to the seed: seed 1 would repeat the order of seed 0 one epoch late.
    hashed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    order = grain.MapDataset.range(len(source)).shuffle(seed=hashed)
    stream = order.map_with_index(lambda position, index: _Row(index, position))
    # A partial of a module's function, not a closure: workers get the pipeline pickled.
    read = functools.partial(_load, source=source, augment=augment, seed=seed, mine=mine, mask=remainder == "pad")
    return stream.batch(batch_size, drop_remainder=remainder == "drop").repeat().map(read)


def _rows(batch_size: int, rows: Sequence[int] | None) -> tuple[int, ...]:
    mine = tuple(range(batch_size) if rows is None else map(int, rows))
    if not mine or not 0 <= min(mine) <= max(mine) < batch_size:
        raise ValueError(f"rows: found {list(mine)}, expected at least one of 0 to {batch_size - 1}")
    return mine


def _load(
    rows: _Row, *, source: Source, augment: Augment | None, seed: int, mine: tuple[int, ...], mask: bool
) -> dict[str, Any]:
    """The rows `mine` of one global batch; rows past its end repeat the first."""
    kept = [row if row < len(rows.index) else 0 for row in mine]
    batch = stack([_read(source, augment, seed, rows.index[k], rows.position[k]) for k in kept])
    if mask:
        batch["mask"] = np.asarray([float(row < len(rows.index)) for row in mine], np.float32)
    return batch


def _read(source: Source, augment: Augment | None, seed: int, index: Any, position: Any) -> Example:
    example = source[int(index)]
    return augment(example, np.random.default_rng((seed, int(position)))) if augment else example


def stack(rows: Sequence[Example]) -> dict[str, Any]:
    """Dicts of equal structure -> one dict whose leaves have a leading axis; dicts may be nested.

    Raises:
        ValueError: the rows disagree on names or shapes; names the key.
    """
    stacked: dict[str, Any] = {}
    for name in rows[0]:
        column = [row[name] for row in rows]
        if isinstance(column[0], dict):
            stacked[name] = stack(column)
            continue
        shapes = {np.shape(value) for value in column}
        if len(shapes) > 1:
            raise ValueError(f"'{name}': one batch needs one shape, found {' and '.join(map(str, sorted(shapes)))}")
        stacked[name] = np.stack(column)
    return stacked


def steps_per_epoch(examples: int, batch_size: int, *, remainder: str = "drop") -> int:
    """Batches per epoch.

    >>> steps_per_epoch(1000, 64), steps_per_epoch(1000, 64, remainder='pad')
    (15, 16)
    """
    return examples // batch_size if remainder == "drop" else -(-examples // batch_size)


def eval_batches(source: Source, batch_size: int, *, rows: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
    """All examples once, in order, in batches of one static shape.

    The last batch is filled up with copies of its first row; 'mask' is 1.0 for real rows and 0.0 for copies, so sums
    weighted by it are exact. With several hosts each yields its rows of the same number of global batches.

    Args:
        source: of examples.
        batch_size: rows of the global batch.
        rows: which of them to read, all unless given; one host's are `mesh.local_rows`.

    Yields:
        Dicts of arrays (batch_size, ...) or (len(rows), ...), with 'mask' beside the source's names.

    Raises:
        ValueError: a batch of less than one row, or a row that is not in it.
    """
    if batch_size < 1:
        raise ValueError(f"evaluation batch of {batch_size}: expected at least 1")
    chosen = _rows(batch_size, rows)
    for start in range(0, len(source), batch_size):
        mine = [start + row for row in chosen]
        batch = stack([source[i if i < len(source) else start] for i in mine])
        yield {**batch, "mask": np.asarray([float(i < len(source)) for i in mine], np.float32)}
