"""From reconstruction errors and disagreement to one score per object (arXiv 2408.07819, released code)."""

import numpy as np
from jaxtyping import Float


def minmax(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """(x - min) / (max - min) over what is not NaN; zeros where all are equal."""
    low, high = np.nanmin(values), np.nanmax(values)
    return (values - low) / (high - low) if high > low else np.where(np.isnan(values), np.nan, 0.0)


def attribute_scores(errors: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """Sum of the two views' normalised reconstruction errors; a missing view's is the other's.

    Args:
        errors: squared errors per view, NaN where the view is missing; each object has at least one.
    """
    each = np.stack([minmax(errors[:, v]) for v in (0, 1)], axis=1)
    return np.where(np.isnan(each), each[:, ::-1], each).sum(1)


def fused_scores(
    attribute: Float[np.ndarray, " n"], contrast: Float[np.ndarray, " n"], *, weight: float
) -> Float[np.ndarray, " n"]:
    """Weight x minmax(attribute) + minmax(contrast): higher is more outlying.

    Args:
        attribute: by `attribute_scores`.
        contrast: by `contrast_scores`.
        weight: Rw of the released configurations, .25 to .7.
    """
    return weight * minmax(attribute) + minmax(contrast)


def mean_over_pairs(scores: Float[np.ndarray, "n p"], *, compat: bool = False) -> Float[np.ndarray, " n"]:
    """The mean over the pairs of views that an object is in; 0 where it is in none.

    Args:
        scores: one column per pair, NaN where the object is in none of its views.
        compat: the released code marks absence by an exact 0, and so also drops a score that happens to be 0.
    """
    there = ~np.isnan(scores) & (scores != 0 if compat else True)
    return np.where(there, scores, 0.0).sum(1) / np.maximum(there.sum(1), 1)
