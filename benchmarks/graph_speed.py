"""CPU seconds of one epoch (a training step and an evaluation), ours and in PyTorch, interleaved in one process.

CPU seconds and not wall seconds, because they do not depend on what else the machine does; one thread on both sides.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from torch.nn import functional

from benchmarks import torch_graphs
from benchmarks.graph_data import Nodes, node_set
from benchmarks.graph_grids import PEER_GRID, PUBLISHED
from benchmarks.graph_training import module_of, ours
from jaxmodels.graphs.n2_names import from_official

# The released code's defaults.
WIDE = {**PUBLISHED, "steps": 3, "width": 128, "pseudo_nodes": 256, "dropout": 0.4, "lr": 1e-3}


def configuration(dataset: str, method: str) -> dict[str, Any]:
    """N2 as published for minesweeper, elsewhere its code's defaults with three steps; peers of the residual kind."""
    if method == "n2":
        return PUBLISHED if dataset == "minesweeper" else WIDE
    return PEER_GRID[2]


def torch_model(nodes: Nodes, method: str, config: dict[str, Any]) -> tuple[torch.nn.Module, tuple]:
    """The PyTorch model, and what its forward pass takes."""
    data = nodes.data
    x, options = torch.from_numpy(data.x), {k: v for k, v in config.items() if k not in ("lr", "decay")}
    if method == "n2":
        edges = torch_graphs.normalised_edges(data.senders, data.receivers, len(x))
        model = torch_graphs.N2(x.shape[1], data.num_classes, **options)
        return model, (x[None], edges, torch.ones(1, len(x), 1))
    edges = torch.from_numpy(np.stack([data.senders, data.receivers])).long()
    return torch_graphs.NodePeer(method, x.shape[1], data.num_classes, **options), (x, edges)


def theirs(
    nodes: Nodes, method: str, config: dict[str, Any], *, split: int = 0, seed: int = 0
) -> Callable[[], np.ndarray]:
    """A function that trains one epoch in PyTorch and returns the log-probabilities (1, N, c) after it."""
    torch.manual_seed(1000 * seed + split)
    model, inputs = torch_model(nodes, method, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=config["lr"], weight_decay=config["decay"])
    rows = torch.from_numpy(nodes.data.splits[split].train)
    labels = torch.from_numpy(nodes.data.labels).long()

    def run() -> np.ndarray:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        functional.nll_loss(model(*inputs)[rows], labels[rows]).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            return model(*inputs).numpy()[None]

    return run


def check_n2(nodes: Nodes, config: dict[str, Any]) -> float:
    """Largest difference of the log-probabilities of the two N2s with the same parameters."""
    torch.manual_seed(0)
    model, inputs = torch_model(nodes, "n2", config)
    module = module_of("n2", nodes.data.num_classes, config)
    graph = nodes.batch["graph"]
    arrays = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    template = jax.eval_shape(module.init, jax.random.key(0), graph)["params"]
    params = from_official(arrays, template, level="node")
    found = jax.jit(lambda p, g: jax.nn.log_softmax(module.apply({"params": p}, g)))(params, graph)
    with torch.no_grad():
        expected = model.eval()(*inputs).numpy()
    difference = float(np.abs(np.asarray(found)[: len(expected)] - expected).max())
    if not difference < 1e-3:
        raise ValueError(f"N2: log-probabilities differ by {difference:.1e} from PyTorch's with the same parameters")
    return difference


def spent(run: Callable[[], np.ndarray]) -> float:
    """CPU seconds per epoch."""
    started = time.process_time()
    epochs = len(run())
    return (time.process_time() - started) / epochs


def side_by_side(times: np.ndarray) -> str:
    """Medians of ours and PyTorch's seconds (repeats, 2), and of their ratios with the quartiles."""
    low, middle, high = np.quantile(times[:, 1] / times[:, 0], (0.25, 0.5, 0.75))
    here, there = np.median(times, axis=0)
    return f"{here:9.3f}{there:9.3f}{f'{middle:.2f} ({low:.2f} to {high:.2f})':>28s}"


def compare(data_dir: Path, datasets: list[str], methods: list[str], repeats: int) -> None:
    """Prints a table of CPU seconds per epoch and their ratio."""
    torch.set_num_threads(1)
    print(f"{'CPU s per epoch':20s}{'method':8s}{'ours':>9s}{'PyTorch':>9s}{'PyTorch / ours':>28s}")
    for dataset in datasets:
        nodes = node_set(data_dir, dataset)
        for method in methods:
            config = configuration(dataset, method)
            pair = ours(nodes, method, config), theirs(nodes, method, config)
            for run in pair:
                run()
            times = np.array([[spent(run) for run in pair] for _ in range(repeats)])
            print(f"{dataset:20s}{method:8s}{side_by_side(times)}", end="", flush=True)
            same = f"   same log-probabilities to {check_n2(nodes, config):.0e}" if method == "n2" else ""
            print(same, flush=True)
