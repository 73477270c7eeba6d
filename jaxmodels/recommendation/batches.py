"""Batches of training pairs: every pair once an epoch (or several times), in an order of the seed and the epoch."""

import functools

import numpy as np


class PairBatches:
    """batches[step]: 'user', 'positive' and 'weight' of one batch; the last of an epoch is padded with weight 0.

    Attributes:
        per_epoch: batches of an epoch.
    """

    def __init__(
        self,
        users: np.ndarray,
        items: np.ndarray,
        batch_size: int,
        *,
        seed: int,
        times: int = 1,
        rows: slice | list[int] | None = None,
    ):
        """Takes the pairs.

        Args:
            users: (P,) of the training pairs.
            items: (P,) of them; anything where batches are of users alone.
            batch_size: rows.
            seed: of the order.
            times: how often each pair comes in an epoch, with new negatives each time (uniform sampling: S).
            rows: those of a batch that this process reads; all unless given.

        Raises:
            ValueError: no pairs, or a batch size below 1.
        """
        if batch_size < 1 or not len(users):
            raise ValueError(f"found {len(users)} pairs and --batch_size={batch_size}, expected at least one of each")
        self._users, self._items = users.astype(np.int32), items.astype(np.int32)
        self._size, self._seed, self._times = batch_size, seed, times
        self._rows = slice(None) if rows is None else rows
        self._order = functools.lru_cache(maxsize=2)(self._shuffled)
        self.per_epoch = -(-len(users) * times // batch_size)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._users) * self._times)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step."""
        epoch, batch = divmod(step, self.per_epoch)
        chosen = self._order(epoch)[batch * self._size : (batch + 1) * self._size] // self._times
        weight = np.zeros(self._size, np.float32)
        weight[: len(chosen)] = 1.0
        chosen = np.pad(chosen, (0, self._size - len(chosen)))
        found = {"user": self._users[chosen], "positive": self._items[chosen], "weight": weight}
        return {name: value[self._rows] for name, value in found.items()}
