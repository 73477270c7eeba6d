"""Multi-hop logical queries on knowledge graphs."""

from jaxmodels.reasoning.adam import drop_updates, query_adam
from jaxmodels.reasoning.adaption import Adaption
from jaxmodels.reasoning.ask import Reasoner, ask
from jaxmodels.reasoning.batches import query_batches, trained
from jaxmodels.reasoning.betae import betae
from jaxmodels.reasoning.gqe import gqe
from jaxmodels.reasoning.lod import lod
from jaxmodels.reasoning.method import query_method
from jaxmodels.reasoning.query2box import query2box
from jaxmodels.reasoning.reasoner_file import load_reasoner, save_reasoner
from jaxmodels.reasoning.robust_loss import Robust
