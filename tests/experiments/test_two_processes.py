"""Commands on two processes: each puts its own rows of a batch on its devices, and what comes out is as on one."""

import jax
import pytest

from experiments import graphs, outliers, reasoning, recommendation, vtab
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.results import read_results
from tests.experiments.graph_sets import graph_set, node_set
from tests.experiments.query_sets import query_set
from tests.experiments.recommendation_sets import ratings_csv, users_dat
from tests.experiments.view_sets import view_set
from tests.training.test_processes import ended, launched

pytestmark = pytest.mark.usefixtures("unoptimised")

N2 = dict(method="n2", dataset="mutag", layers=2, width=8, state_width=8, pieces=2, pseudo_nodes=4)
OFFICIAL = dict(dropout=0.0, epochs=2, protocol="official", seeds=(0,), picture=False)
LOD = dict(base="query2box", dim=4, batch_size=64, negatives=4, steps=2, eval_queries=12, pool_fraction=0.25)
DPCML = dict(method="dpcml", vectors=2, dataset="tiny", epochs=2, dim=4, batch_size=32, negatives=3, chunk=16)
VIEWS = dict(dataset="tiny", epochs=2, hidden=(6,), latent=3, batch_size=40, neighbours=3, negative=5, evaluate_every=1)


@pytest.mark.parametrize(
    "module, data, flags, mesh, measured, tested",
    [
        (vtab, None, dict(method="lora", tasks="digits", steps=2, batch_size=32), "data:2,fsdp:2", (), "accuracy"),
        (graphs, graph_set, N2 | OFFICIAL, "data:-1", ("accuracy", "val_loss"), "test"),
        (graphs, node_set, OFFICIAL | dict(method="gcn", dataset="tiny", layers=2, width=8), "data:-1",
         ("accuracy", "val_loss"), "test"),
        (reasoning, query_set, LOD, "data:2,model:2", ("positive_loss", "lambda/2i", "lambda/ip"), "averages"),
        (recommendation, lambda folder: ratings_csv(users_dat(folder)), DPCML | dict(picture=False), "data:2,model:2",
         ("val_auc",), "test"),
        (outliers, view_set, VIEWS | dict(missing_rate=0.2, seeds=(1,), picture=False), "data:-1", ("auc",), "auc"),
    ],
    ids=["vtab", "graphs", "nodes", "reasoning", "recommendation", "outliers"],
)  # fmt: skip
def test_two_processes_train_as_one(tmp_path, module, data, flags, mesh, measured, tested):
    flags = flags | dict(references=False)
    if data:
        (tmp_path / "data").mkdir()
        flags |= dict(data_dir=data(tmp_path / "data"))
    two = launched(module.__name__, *given(flags), f"--mesh={mesh}", f"--workdir={tmp_path / 'two'}")
    module.main(module.Config(**flags, workdir=tmp_path / "one"))
    for status, _, err in ended(two):
        assert status == 0, err
    names = ("loss", "gradient_norm", *measured)
    logged, score = found(tmp_path / "one", names, tested)
    logged_by_two, score_by_two = found(tmp_path / "two", names, tested)
    assert logged and score
    assert logged_by_two == [pytest.approx(row, rel=1e-4) for row in logged]
    assert score_by_two == pytest.approx(score, rel=1e-4)


def given(flags):
    """Flags as a command line."""
    for name, value in flags.items():
        if isinstance(value, tuple):
            yield from (f"--{name}", *map(str, value))
        else:
            yield f"--no-{name}" if value is False else f"--{name}={value}"


def found(workdir, names, tested):
    """What was logged in turn and what was tested at the end."""
    (metrics,) = workdir.rglob("metrics.jsonl")
    (row,) = read_results(workdir / "results.jsonl")
    return [[each[name] for name in names] for each in read_metrics(metrics)], jax.tree.leaves(row[tested])
