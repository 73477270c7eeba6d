"""Train N2 and its peers on graphs: classes of nodes, or of whole graphs.

    python -m experiments.graphs --method=n2                     bundled graph: no download, CPU, two minutes
    python -m experiments.graphs --method=n2 --dataset=minesweeper --data_dir=graphs --recipe=paper --split=all
    python -m experiments.graphs --method=gcn --dataset=cora --data_dir=planetoid --seeds 0 1 2
    python -m experiments.graphs --method=n2 --dataset=mutag --data_dir=graphs --split=all

A folder may hold any of five layouts: Planetoid, the .npz of heterophilous graphs or of gnn-benchmark, TU, GIN's text
format, or unpacked OGB archives. The epoch that is reported is chosen on the validation part and never on what is
reported. The method stands next to the other networks, which are trained once and then read from the results file.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from experiments import command, graph_data, graph_judging, graph_planning, graph_runs, graph_tables, running, tables
from experiments.graph_methods import METHODS
from experiments.running import Running
from jaxmodels.graphs.graph_method import KINDS
from jaxmodels.rules import nearest
from jaxmodels.training import processes

Part = Literal["adaptation", "local", "exchange", "messages"]


@dataclasses.dataclass(frozen=True)
class Flags:
    """What is computed, and what is shown of it."""

    method: tyro.extras.literal_type_from_choices(METHODS) = "n2"  # type: ignore[valid-type]
    """Network to train."""
    dataset: str = ""
    """Data set: digits (bundled), synthetic, or the name of one in --data_dir. Empty takes the name of --data_dir, or
    digits without one."""
    data_dir: Path | None = None
    """Folder that holds the data set's files, or a folder of that name with them."""
    split: str = "0"
    """Splits or folds to run: numbers from 0, separated by commas, or all."""
    protocol: Literal["heldout", "official"] = "heldout"
    """heldout: the epoch is chosen on validation data, which folds without any take from their training part.
    official: as N2's released code, such folds choose the epoch on the fold that is reported, which flatters."""
    select: Literal["loss", "metric"] = "loss"
    """Whether the lowest validation loss or the best validation metric chooses the epoch."""
    workdir: Path = Path("runs/graphs")
    """Folder for results, metrics, pictures, parameters and checkpoints."""
    seed: int = 0
    """Seed of initialisation, order of graphs and dropout."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each split: the table shows mean and standard deviation over splits and seeds."""
    epochs: int | None = None
    """Passes over the training data, at most; 200 unless the recipe says otherwise."""
    patience: int | None = None
    """Epochs without a lower validation loss that end a run; 50 unless the recipe says otherwise."""
    evaluate_every: int = 1
    """Epochs between evaluations."""
    batch_size: int | None = None
    """Graphs per step; 32 unless the recipe says otherwise. A single graph is one batch."""
    parts: int = 1
    """Random parts into which every epoch divides the nodes of a single graph, each a step of its own (N2's nbatch),
    where it does not fit whole. Evaluation takes the whole graph."""
    buckets: int = 3
    """Sizes into which batches of graphs are padded; each compiles the step and the evaluation once."""
    learning_rate: float | None = None
    """Peak learning rate; the method's own unless given."""
    learning_rate_decay: float = 1.0
    """Factor of the learning rate after every step, down to a thousandth of the peak (N2's lr_step); 1 keeps it."""
    weight_decay: float | None = None
    """L2 of Adam, on all parameters; the method's own unless given."""
    loss: Literal["plain", "weighted", "focal"] = "plain"
    """plain, weighted by the rarity of classes, or focal."""
    recipe: Literal["flags", "paper"] = "flags"
    """paper: N2's settings on the data set in Table S6 of the paper; flags that are given win."""
    normalise: Literal["auto", "rows", "none"] = "auto"
    """Divide features by the sum of their node; auto does so for citation graphs."""
    metric: str = ""
    """By which networks are reported, of those that fit the labels. Classes: accuracy, f1 (mean over classes), f1_micro
    (over rows). Two classes, or tasks of 0 and 1: roc_auc, average_precision (mean over tasks), average_precision_micro
    (over all entries). Numbers of OGB folders: mae. Empty takes the data set's own, accuracy for OGB folders that are
    not known by name."""
    citation_splits: Literal["public", "geom-gcn"] = "public"
    """Splits of Planetoid data sets."""
    undirected: bool = True
    """Add the reverse edges of heterophilous .npz files."""
    attributes: bool = False
    """Append node attributes of TU and GIN data sets to their features."""
    layers: int | None = None
    """Layers, or steps of n2."""
    width: int | None = None
    """Hidden features, or width of n2's messages."""
    dropout: float | None = None
    """Dropout."""
    input_dropout: float | None = None
    """Dropout of the features, before all else."""
    state_width: int | None = None
    """n2: width of states."""
    pieces: int | None = None
    """n2: pieces of a proximity."""
    pseudo_nodes: int | None = None
    """n2: learnable pseudo nodes."""
    pathway: Literal["proximity", "attention", "uniform"] | None = None
    """n2: what weighs pathways; the latter two are ablations."""
    without: tuple[Part, ...] = ()
    """n2: parts left out, for ablations."""
    dense: bool = False
    """n2: graph nodes answer each other, without pseudo nodes (ablation)."""
    own_steps: bool = False
    """n2: every step has parameters of its own."""
    linear_order: bool = False
    """n2: memory independent of nodes times pseudo nodes; equal up to rounding."""
    remat: bool = False
    """n2: recompute steps in the backward pass."""
    heads: int | None = None
    """gat: heads of the attention."""
    residual: bool = False
    """Peers on nodes: residual layers with layer norms between two linear ones."""
    pool: Literal["sum", "mean"] | None = None
    """Peers on graphs: how nodes are pooled."""
    synthetic_nodes: int = 0
    """Nodes of a generated graph, in place of a data set."""
    synthetic_edges: int = 0
    """Its directed edges; ten per node unless given."""
    synthetic_features: int = 64
    """Its features."""
    plan_steps: Literal["both", "train"] = "both"
    """Plan the train and the evaluation step, or the train step alone."""
    references: bool = True
    """Also show the other networks."""
    picture: bool = True
    """Draw the picture."""


@dataclasses.dataclass(frozen=True)
class Config(Running, Flags):
    """Flags of `experiments.graphs`."""

    mesh: str = ""
    """Sizes of the mesh's axes, such as data:-1: edges and nodes are split over it; empty uses one device."""


def main(config: Config) -> None:
    """Trains the method and the other networks on every split and seed, then shows and saves the comparison."""
    started = time.perf_counter()
    check(config)
    if config.plan:
        graph_planning.run(config, Console())
        return
    console = running.join(config)
    problem = load(config)
    mesh = running.mesh_of(config)
    setup = running.Setup(config, problem, console, [], mesh)
    names = running.compared(config, METHODS)
    for name in names:  # wrong flags stop the command before anything trains
        graph_runs.settings_of(config, name, problem)
    chosen = splits(config, problem)
    graph_tables.headline(setup, chosen)
    rows = {
        name: [graph_runs.run(setup, name, split, seed) for split in chosen for seed in running.seeds(config)]
        for name in names
    }
    graph_tables.show(setup, rows)
    tables.goodput(console, setup.clocks)
    folder = graph_runs.method_folder(setup, config.method)
    if processes.is_main() and config.picture:
        graph_tables.draw(folder / "summary.png", setup, rows, chosen[0], running.seeds(config)[0])
    console.print(f"Picture, metrics and parameters: {folder}  ({time.perf_counter() - started:.0f} s in all)")


def load(config: Config) -> graph_data.Problem:
    """The problem that the flags name, its features normalised as they say."""
    problem = graph_judging.reported_by(graph_data.load(config), config.metric)
    citation = problem.name in ("cora", "citeseer", "pubmed")
    if config.normalise == "rows" or (config.normalise == "auto" and citation):
        problem = problem._replace(
            graphs=[graph_data.row_normalised(graph) for graph in problem.graphs],
            about=f"{problem.about}; features divided by their row's sum",
        )
    if config.parts > 1 and problem.level != "node":
        raise ValueError(f"--parts={config.parts}: {problem.name} has many graphs, expected --batch_size")
    if config.loss not in KINDS.get(problem.task, ("plain", "weighted")):
        raise ValueError(f"--loss={config.loss}: expected another one for the {problem.task} labels of {problem.name}")
    return problem


def splits(config: Config, problem: graph_data.Problem) -> tuple[int, ...]:
    """The splits of a command."""
    count = len(problem.splits)
    if config.split == "all":
        return tuple(range(count))
    try:
        chosen = tuple(int(part) for part in config.split.split(","))
    except ValueError:
        chosen = (-1,)
    if not all(0 <= each < count for each in chosen):
        raise ValueError(f"--split={config.split}: expected all, or numbers from 0 to {count - 1} ({problem.name})")
    running.once("split", chosen)
    return chosen


def check(config: Config) -> None:
    """Raises a ValueError for values that no run can use, before anything is loaded."""
    flags = ("epochs", "patience", "evaluate_every", "batch_size", "parts", "buckets", "layers", "width")
    for flag in flags:
        value: Any = getattr(config, flag)
        if value is not None and value < 1:
            raise ValueError(f"--{flag}: found {value}, expected at least 1")
    if config.metric and config.metric not in graph_judging.SCORES:
        known = f"{', '.join(graph_judging.SCORES)}{nearest(config.metric, graph_judging.SCORES)}"
        raise ValueError(f"--metric: found '{config.metric}', expected one of {known}")
    if not 0 < config.learning_rate_decay <= 1:
        raise ValueError(f"--learning_rate_decay: found {config.learning_rate_decay}, expected 0 < decay <= 1")


if __name__ == "__main__":
    command.run(main, Config, __doc__, "experiments.graphs")
