"""Recommenders that learn distances: DPCML and its relatives."""

from jaxmodels.recommendation.cpe import cpe
from jaxmodels.recommendation.crml import crml
from jaxmodels.recommendation.dpcml import Objective, dpcml
from jaxmodels.recommendation.lrml import lrml
from jaxmodels.recommendation.sfcml import sfcml
from jaxmodels.recommendation.transcf import transcf
