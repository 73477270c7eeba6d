"""A small knowledge graph with sampled queries, as a file."""

from jaxmodels.data.family import family_tree
from jaxmodels.data.query_files import write_queries
from jaxmodels.reasoning.sampling_run import Settings, sample_queries

TRAINED = {"1p": -1, "2i": 40}
TESTED = {"1p": -1, "ip": 12}


def query_set(folder):
    """queries.npz: of a family tree, two structures to train on and two to test."""
    tree = family_tree(families=4, generations=3)
    data = sample_queries(tree, {"train": TRAINED, "valid": TESTED, "test": TESTED}, Settings(attempts=512))
    folder.mkdir(parents=True, exist_ok=True)
    write_queries(folder / "queries.npz", data)
    return folder
