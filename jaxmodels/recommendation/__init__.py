"""Recommenders that learn distances: DPCML and its relatives."""

from jaxmodels.recommendation.ann_export import export_items, item_vectors, merge_by_minimum, user_queries
from jaxmodels.recommendation.batches import PairBatches
from jaxmodels.recommendation.cpe import cpe
from jaxmodels.recommendation.crml import crml
from jaxmodels.recommendation.dpcml import Objective, dpcml
from jaxmodels.recommendation.known import Known, known_of
from jaxmodels.recommendation.lrml import lrml
from jaxmodels.recommendation.model_file import load_recommender, save_recommender
from jaxmodels.recommendation.new_users import new_user_vectors, recommend_new
from jaxmodels.recommendation.recommend import Recommended, Recommender, recommend
from jaxmodels.recommendation.sfcml import sfcml
from jaxmodels.recommendation.transcf import transcf
