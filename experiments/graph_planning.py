"""`--plan`: what a step on a graph needs on a TPU slice, without the slice; the graph may be sizes alone."""

import json
import math
from typing import Any

from rich.console import Console

from experiments import graph_data, graph_runs
from experiments.plan_report import plans_of, report
from jaxmodels.graphs.rows import node_rows, node_shapes
from jaxmodels.planning.chips import parse as parse_chips


def run(config: Any, console: Console) -> None:
    """Prints the plan of `config.method` on a whole graph over `config.plan`, and writes it where asked.

    Raises:
        DoesNotFit: the step needs more memory than a chip has.
        ValueError: graphs instead of nodes are classified, an unknown slice, or libtpu is missing.
    """
    chip, shape = parse_chips(config.plan)
    shards = math.prod(shape) * chip.devices
    if config.synthetic_nodes:  # sizes alone: nothing is generated
        nodes, edges = config.synthetic_nodes, config.synthetic_edges or 10 * config.synthetic_nodes
        shapes = node_shapes(nodes, edges, config.synthetic_features, shards=shards)
        problem = graph_data.synthetic(100, 100, features=config.synthetic_features)
    else:
        problem = graph_data.load(config)
        if problem.level != "node":
            raise ValueError(f"--plan: {problem.name} has many graphs, expected one graph whose nodes are classified")
        nodes, edges = len(problem.labels), len(problem.graphs[0].senders)
        shapes = node_rows(problem.graphs[0], problem.labels, problem.labels == 0, shards=shards)
    settings = graph_runs.settings_of(config, config.method, problem)
    made = graph_runs.built(
        config.method,
        json.dumps(settings._asdict()),
        problem.outputs,
        problem.level,
        problem.task,
        config.loss,
        tuple(shapes.items()) if config.synthetic_nodes else None,
    )
    rows, both = shapes["label"].shape[0], config.plan_steps == "both"
    plans = plans_of(config, made.method, made.optimizer, batch_size=rows, both=both)
    sizes = f"{nodes:,} nodes, {edges:,} edges, {shapes['nodes'].shape[1]} features"
    report(config, console, f"{config.method} on a graph of {sizes}", plans)
