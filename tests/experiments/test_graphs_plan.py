"""`--plan` of the graphs experiment: the real step on a slice that is not there, or one line why not."""

import dataclasses
import json

import pytest
from rich.console import Console

from experiments import graph_planning, graphs
from tests.experiments.graph_sets import graph_set

CONFIG = graphs.Config(method="gcn", plan="v5e:2x2", plan_steps="train", width=8, synthetic_features=4)


def test_many_graphs_are_not_planned(tmp_path):
    config = dataclasses.replace(CONFIG, dataset="mutag", data_dir=graph_set(tmp_path))
    with pytest.raises(
        ValueError, match="--plan: mutag has many graphs, expected one graph whose nodes are classified"
    ):
        graph_planning.run(config, Console(quiet=True))


@pytest.mark.slow
def test_a_graph_is_planned_from_its_sizes(tmp_path, capsys):
    pytest.importorskip("libtpu", reason="needs the extra [plan]")
    config = dataclasses.replace(CONFIG, synthetic_nodes=4000, synthetic_edges=9000, plan_out=tmp_path / "plan.json")
    graph_planning.run(config, Console())
    printed = capsys.readouterr().out
    assert "gcn on a graph of 4,000 nodes, 9,000 edges, 4 features, v5e:2x2" in printed and "all-" in printed
    plan = json.loads((tmp_path / "plan.json").read_text())["train"]
    assert plan["devices"] == 4 and plan["fits"] and plan["trained"] == 4 * 8 + 8 + 8 * 10 + 10
