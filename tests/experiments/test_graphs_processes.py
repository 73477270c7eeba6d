"""The graphs command on two processes: each puts its own rows of a batch on its devices."""

import pytest

from jaxmodels.training.metrics import read_metrics
from tests.experiments.graph_sets import graph_set, node_set
from tests.experiments.test_graphs import N2, rows_of, run
from tests.training.test_processes import ended, launched

pytestmark = pytest.mark.usefixtures("unoptimised")


@pytest.mark.parametrize(
    "flags",
    [
        N2 | dict(dataset="mutag", dropout=0.0, epochs=2, protocol="official"),
        dict(method="gcn", dataset="tiny", dropout=0.0, epochs=2, layers=2, width=8, protocol="official"),
    ],
    ids=["graphs", "nodes"],
)
def test_two_processes_train_as_one(tmp_path, flags):
    folder = graph_set(node_set(tmp_path / "data"))
    given = [f"--{name}={value}" for name, value in flags.items()]
    shown = ["--no-references", "--no-picture", "--seeds", "0", "--mesh=data:-1"]
    two = launched("experiments.graphs", *given, *shown, f"--data_dir={folder}", f"--workdir={tmp_path / 'two'}")
    (row,) = run(tmp_path / "one", folder, **flags)
    alone = rows_of(tmp_path / "one", row)
    for status, _, err in ended(two):
        assert status == 0, err
    found = [read_metrics(path) for path in (tmp_path / "two").glob("*/split0-seed0/metrics.jsonl")]
    names = ("loss", "accuracy", "gradient_norm", "val_loss")
    assert [[row[name] for name in names] for row in found[0]] == [
        pytest.approx([row[name] for name in names], rel=1e-4) for row in alone
    ]
