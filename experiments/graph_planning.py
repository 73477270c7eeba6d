"""`--plan`: what a step on a graph needs on a TPU slice, without the slice; the graph may be sizes alone."""

import json
import math
from typing import Any

from rich.console import Console

from experiments import graph_data, graph_runs
from experiments.command import DoesNotFit
from jaxmodels.graphs.rows import node_rows, node_shapes
from jaxmodels.planning.chips import parse as parse_chips
from jaxmodels.planning.plan import show
from jaxmodels.planning.training import Plans, plan_method, plan_train
from jaxmodels.training.metrics import write_text


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
    method = made.method
    compiled = plan_method if config.plan_steps == "both" else plan_train
    try:
        plans = compiled(
            method,
            made.optimizer,
            chips=config.plan,
            batch_size=shapes["label"].shape[0],
            mesh=config.mesh or "data:-1",
        )
    except ImportError as error:
        raise ValueError(f"--plan={config.plan}: {error}") from None
    sizes = f"{nodes:,} nodes, {edges:,} edges, {shapes['nodes'].shape[1]} features"
    console.print(f"{config.method} on a graph of {sizes}, {config.plan}", highlight=False)
    for line in plans.lines() if isinstance(plans, Plans) else show(plans):
        console.print(line, highlight=False, soft_wrap=True)
    if config.plan_out:
        found = plans.to_json()
        write_text(config.plan_out, json.dumps(found if "train" in found else {"train": found}, indent=1) + "\n")
    if not plans.fits:
        raise DoesNotFit(f"--plan={config.plan}: {config.method} on {sizes} does not fit")
