"""Outliers among objects with several views, some of them missing."""

from jaxmodels.outliers.rcpmod import Options, rcpmod
