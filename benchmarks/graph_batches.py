"""CPU seconds of N2 on many small graphs, ours and in PyTorch, interleaved in one process on one thread.

A pass goes over 256 graphs in eight batches of 32, once to train and once to evaluate, with the published sizes. Each
side gets the batches that suit it: PyTorch graphs of like size, which it pads to the largest of the batch; ours a
random order in a few padded sizes.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import torch
from torch.nn import functional

from benchmarks import torch_graphs
from benchmarks.graph_speed import side_by_side
from benchmarks.graph_training import optimizer_of
from jaxmodels.data.graph_files import GraphData
from jaxmodels.data.graph_gin import gin_graphs
from jaxmodels.graphs.bucketed import Bucketed
from jaxmodels.graphs.graph import make_graph
from jaxmodels.graphs.graph_method import graph_method
from jaxmodels.graphs.n2 import N2
from jaxmodels.graphs.n2_names import from_official
from jaxmodels.graphs.rows import on_rows

GRAPHS, BATCH = 256, 32
SIZES = {"width": 128, "state_width": 64, "pieces": 8, "pseudo_nodes": 32, "dropout": 0.1}  # Table S6
STEPS = {"PROTEINS": 8, "IMDBBINARY": 6}


class Side(NamedTuple):
    """Trains or evaluates on all batches; `evaluate` gives log-probabilities (256, c) in the order of its batches."""

    train: Callable[[], Any]
    evaluate: Callable[[], np.ndarray]


def ours(data: GraphData, members: np.ndarray, model: torch.nn.Module, steps: int) -> Side:
    """N2 with the parameters of the PyTorch model."""
    graphs = [make_graph(g.x.astype(np.float32), g.senders, g.receivers) for g in data.graphs]
    bucketed = Bucketed(graphs, data.labels, members, batch_size=BATCH, epochs=1, others=[members])
    batches = [jax.device_put(batch) for batch in bucketed.inorder(members)]
    method = on_rows(graph_method(N2(data.num_classes, level="graph", steps=steps, **SIZES), level="graph"))
    template = jax.eval_shape(method.init, jax.random.key(0), batches[0])["params"]
    arrays = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    optimizer = optimizer_of({"lr": 1e-3, "decay": 1e-6})
    params = from_official(arrays, template, level="graph")
    held = [params, optimizer.init(params)]

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, moments, batch, key):
        grads = jax.grad(lambda p: method.loss({"params": p, "state": {}}, batch, key)[0])(params)
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments

    predict = jax.jit(lambda params, batch: method.predict({"params": params, "state": {}}, batch))

    def train():
        for i, batch in enumerate(batches):
            held[:] = step(*held, batch, jax.random.key(i))
        jax.block_until_ready(held)

    def evaluate():
        found = [np.asarray(predict(held[0], batch))[np.asarray(batch["mask"]) > 0] for batch in batches]
        return np.concatenate(found)

    return Side(train, evaluate)


def theirs(data: GraphData, members: np.ndarray, model: torch.nn.Module) -> Side:
    """The PyTorch model on dense batches."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-6)
    batches = [dense(data, members[i : i + BATCH]) for i in range(0, len(members), BATCH)]

    def train():
        model.train()
        for inputs, labels in batches:
            optimizer.zero_grad(set_to_none=True)
            functional.nll_loss(model(*inputs), labels).backward()
            optimizer.step()

    def evaluate():
        model.eval()
        with torch.no_grad():
            return torch.cat([model(*inputs) for inputs, _ in batches]).numpy()

    return Side(train, evaluate)


def dense(data: GraphData, members: np.ndarray) -> tuple[tuple, torch.Tensor]:
    """What the PyTorch N2 takes, and the labels."""
    graphs = [data.graphs[i] for i in members]
    most = max(len(g.x) for g in graphs)
    x, mask = torch.zeros(len(graphs), most, graphs[0].x.shape[1]), torch.zeros(len(graphs), most, 1)
    senders, receivers = [], []
    for row, graph in enumerate(graphs):
        x[row, : len(graph.x)], mask[row, : len(graph.x)] = torch.from_numpy(graph.x.astype(np.float32)), 1.0
        senders.append(graph.senders + row * most)
        receivers.append(graph.receivers + row * most)
    edges = torch_graphs.normalised_edges(np.concatenate(senders), np.concatenate(receivers), len(graphs) * most)
    return (x, edges, mask), torch.from_numpy(np.asarray(data.labels)[members]).long()


def compare(data_dir: Path, datasets: list[str], repeats: int) -> None:
    """Prints CPU seconds per pass and their ratios; stops where the two N2s differ with the same parameters."""
    torch.set_num_threads(1)
    print(f"{'CPU s, 256 graphs':20s}{'pass':10s}{'ours':>9s}{'PyTorch':>9s}{'PyTorch / ours':>28s}")
    for dataset in datasets:
        data = gin_graphs(data_dir / dataset)
        torch.manual_seed(0)
        steps = STEPS[dataset]
        model = torch_graphs.N2(data.graphs[0].x.shape[1], data.num_classes, level="graph", steps=steps, **SIZES)
        random = np.random.default_rng(0).permutation(len(data.graphs))[:GRAPHS]
        by_size = random[np.argsort([len(data.graphs[i].x) for i in random], kind="stable")]
        pair = ours(data, random, model, steps), theirs(data, by_size, model)
        found, expected = (side.evaluate()[np.argsort(m)] for side, m in zip(pair, (random, by_size), strict=True))
        difference = float(np.abs(found - expected).max())
        if not difference < 1e-3:
            raise ValueError(f"{dataset}: log-probabilities differ by {difference:.1e} with the same parameters")
        pair[0].train()  # compiles
        for name in Side._fields:
            times = np.array([[spent(getattr(side, name)) for side in pair] for _ in range(repeats)])
            print(f"{dataset:20s}{name:10s}{side_by_side(times)}", flush=True)
        print(f"{dataset:20s}same log-probabilities to {difference:.0e}", flush=True)


def spent(run: Callable[[], Any]) -> float:
    """CPU seconds."""
    started = time.process_time()
    run()
    return time.process_time() - started
