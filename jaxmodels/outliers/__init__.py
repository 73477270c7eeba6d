"""Outliers among objects with several views, some of them missing."""

from typing import Any

from jaxmodels.outliers.pairs import Recipe, train_pairs
from jaxmodels.outliers.rcpmod import Options, rcpmod


def __getattr__(name: str) -> Any:
    """The scikit-learn estimator, whose import takes its time, when it is asked for."""
    if name != "PartialMultiViewOutlierDetector":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from jaxmodels.outliers.detector import PartialMultiViewOutlierDetector

    return PartialMultiViewOutlierDetector
