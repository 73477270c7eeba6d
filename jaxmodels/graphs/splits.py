"""Labels and splits that graph benchmarks derive from numbers and permutations; NumPy on the host."""

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

Split = tuple[Bool[np.ndarray, "n"], Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]


def quantile_labels(values: ArrayLike, classes: int = 5) -> Int[np.ndarray, "n"]:
    """Class j for values from quantile j/classes (included) to quantile (j+1)/classes, as arxiv-year bins years.

    >>> quantile_labels([2010, 2014, 2015, 2016], 2).tolist()
    [0, 0, 1, 1]
    """
    values = np.asarray(values)
    return np.searchsorted(np.quantile(values, np.arange(1, classes) / classes), values, side="right")


def random_split(permutation: ArrayLike, fraction: float = 0.2) -> Split:
    """Masks (train, validation, test): the first int(N fraction) of the permutation validate, as many after them test.

    Raises:
        ValueError: nothing left to train on.

    >>> [mask.tolist() for mask in random_split([2, 0, 1, 3], 0.25)]
    [[False, True, False, True], [False, False, True, False], [True, False, False, False]]
    """
    permutation = np.asarray(permutation)
    size = int(len(permutation) * fraction)
    if 2 * size >= max(len(permutation), 1):
        raise ValueError(f"fraction: found {fraction}, expected one that leaves some of {len(permutation)} to train on")
    train, validation, test = (np.zeros(len(permutation), bool) for _ in range(3))
    validation[permutation[:size]], test[permutation[size : 2 * size]] = True, True
    train[permutation[2 * size :]] = True
    return train, validation, test
