"""Multi-hop logical queries on knowledge graphs."""

from jaxmodels.reasoning.ask import Reasoner, ask
from jaxmodels.reasoning.reasoner_file import load_reasoner, save_reasoner
