"""The graphs that `experiments.graphs` trains on: bundled, generated, or read from a folder in any known layout."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from jraph import GraphsTuple
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph

from jaxmodels.data import graph_gin, graph_npz, graph_ogb, graph_tu
from jaxmodels.data.graph_files import GraphData, NodeData, Split
from jaxmodels.data.planetoid import planetoid
from jaxmodels.graphs.graph import make_graph
from jaxmodels.rules import nearest

NEIGHBOURS, PER_CLASS, VALIDATION, SPLITS = 6, 5, 200, 10  # of the digits graph
CLASSES = 10  # of synthetic graphs


class Problem(NamedTuple):
    """What is learned.

    Attributes:
        name: of the data set.
        graphs: one graph whose nodes are classified, or many that are.
        level: 'node' or 'graph'.
        task: 'single', 'multilabel' or 'regression'.
        labels: (R,) int32 classes, or (R, T) float32 with NaN where unknown; R nodes or graphs.
        outputs: classes or tasks.
        metric: by which the data set is reported.
        splits: at least one.
        about: one line: sizes, and which parts are real.
    """

    name: str
    graphs: list[GraphsTuple]
    level: str
    task: str
    labels: np.ndarray
    outputs: int
    metric: str
    splits: list[Split]
    about: str


class Known(NamedTuple):
    """A published data set: how people call its files, and what its reader must be told."""

    files: str
    metric: str = "accuracy"
    reverse: bool = False


HETEROPHILOUS = ("questions", "amazon-ratings", "tolokers", "minesweeper", "roman-empire", "texas", "cornell",
                 "wisconsin", "actor", "chameleon", "squirrel", "chameleon-filtered", "squirrel-filtered")  # fmt: skip
KNOWN: dict[str, Known] = {
    "cora": Known("cora"),
    "citeseer": Known("citeseer"),
    "pubmed": Known("pubmed"),
    **{name: Known(name.replace("-", "_")) for name in HETEROPHILOUS},
    "amazon-photo": Known("amazon_electronics_photo"),
    "amazon-computers": Known("amazon_electronics_computers"),
    "coauthor-cs": Known("ms_academic_cs"),
    "coauthor-physics": Known("ms_academic_phy"),
    **{name: Known(name.upper().replace("-", "")) for name in ("mutag", "proteins", "nci1", "collab")},
    "imdb-binary": Known("IMDBBINARY"),
    "imdb-multi": Known("IMDBMULTI"),
    "ogbn-arxiv": Known("ogbn_arxiv"),
    "ogbn-proteins": Known("ogbn_proteins", "roc_auc", reverse=True),
    "ogbg-molpcba": Known("ogbg_molpcba", "average_precision", reverse=True),
    "ogbg-molhiv": Known("ogbg_molhiv", "roc_auc", reverse=True),
}
BUNDLED = ("digits", "synthetic")


def canonical(name: str) -> str:
    """The name under which a data set is known: of 'IMDBBINARY', 'imdb_binary' and 'IMDB-BINARY' the last, in small.

    >>> canonical('IMDBBINARY'), canonical('amazon_electronics_photo'), canonical('mine')
    ('imdb-binary', 'amazon-photo', 'mine')
    """

    def plain(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "")

    for known, entry in KNOWN.items():
        if plain(name) in (plain(known), plain(entry.files)):
            return known
    return name


def load(config: Any) -> Problem:
    """The problem of `--dataset`, `--data_dir` and the synthetic flags.

    Raises:
        ValueError: an unknown name, a folder that is missing or holds no known layout, or wrong files.
    """
    if config.synthetic_nodes or config.dataset == "synthetic":
        nodes = config.synthetic_nodes or 10_000
        return synthetic(nodes, config.synthetic_edges or 10 * nodes, features=config.synthetic_features)
    if config.data_dir is None:
        if config.dataset in ("", "digits"):
            return of_nodes("digits", digits())
        names = (*BUNDLED, *KNOWN)
        if canonical(config.dataset) not in names:
            more = nearest(config.dataset, names) or f"; known are {', '.join(names)}"
            raise ValueError(f"--dataset: found '{config.dataset}', expected a known name, or --data_dir with it{more}")
        raise ValueError(f"--data_dir: --dataset={config.dataset} needs the folder that holds it, found none")
    folder = Path(config.data_dir)
    if not folder.is_dir():
        raise ValueError(f"--data_dir: {folder}: no such folder")
    name = canonical(config.dataset or folder.name)
    return _read(folder, name, config)


def _read(folder: Path, name: str, config: Any) -> Problem:
    entry = KNOWN.get(name, Known(config.dataset or folder.name))
    files = dict.fromkeys((entry.files, config.dataset or folder.name, name))
    for place in (folder, *(folder / each for each in files)):
        for each in files:
            found = _layouts(place, each, entry, config)
            if found is None:
                continue
            data = found()
            return of_nodes(name, data) if isinstance(data, NodeData) else of_graphs(name, data)
    raise ValueError(
        f"--data_dir: {folder} holds no '{entry.files}' in a known layout, expected one of "
        f"ind.{entry.files}.graph (Planetoid), {entry.files}.npz, {entry.files}_A.txt (TU), {entry.files}.txt with "
        "10fold_idx (GIN), or raw/num-node-list.csv.gz (OGB)"
    )


def _layouts(place: Path, name: str, entry: Known, config: Any) -> Callable[[], Any] | None:
    """What reads the data set from a folder, by the files that are there; None where there is none."""
    if (place / f"ind.{name}.graph").is_file():
        return lambda: planetoid(place, name, splits=config.citation_splits)
    if (place / f"{name}.npz").is_file():
        file = place / f"{name}.npz"
        if _members(file) >= {"adj_indptr.npy"}:
            return lambda: graph_npz.gnn_benchmark(file, seeds=range(SPLITS))
        return lambda: graph_npz.heterophilous(file, undirected=config.undirected)
    if (place / f"{name}_A.txt").is_file() or (place / "raw" / f"{name}_A.txt").is_file():
        return lambda: graph_tu.tu_graphs(place, name=name, attributes=config.attributes)
    if (place / f"{name}.txt").is_file():
        return lambda: graph_gin.gin_graphs(place, name=name, attributes=config.attributes)
    raw = place / "raw"
    if any((raw / f"num-node-list.csv{end}").is_file() for end in ("", ".gz")):
        graph_level = any((raw / f"graph-label.csv{end}").is_file() for end in ("", ".gz"))
        read = graph_ogb.ogb_graphs if graph_level else graph_ogb.ogb_nodes
        return lambda: read(place, metric=config.metric or entry.metric, reverse=entry.reverse)
    return None


def _members(file: Path) -> set[str]:
    if not zipfile.is_zipfile(file):
        return set()  # its reader says what is wrong
    with zipfile.ZipFile(file) as found:
        return set(found.namelist())


def of_nodes(name: str, data: NodeData) -> Problem:
    """A node-level data set as a problem."""
    x = data.x.toarray() if scipy.sparse.issparse(data.x) else np.asarray(data.x)
    graph = make_graph(x.astype(np.float32), data.senders, data.receivers, edges=_numbers(data.edge_features))
    labels, task = _task(data.labels, data.metric)
    return Problem(name, [graph], "node", task, labels, data.num_classes, data.metric, data.splits, data.description)


def of_graphs(name: str, data: GraphData) -> Problem:
    """A graph-level data set as a problem."""
    graphs = [
        make_graph(np.asarray(g.x, np.float32), g.senders, g.receivers, edges=_numbers(g.edge_features))
        for g in data.graphs
    ]
    labels, task = _task(data.labels, data.metric)
    return Problem(name, graphs, "graph", task, labels, data.num_classes, data.metric, data.splits, data.description)


def digits() -> NodeData:
    """1,797 scanned digits (scikit-learn's, real) as nodes, joined to the six nearest by their 64 pixels.

    The images are real; the graph is made from them here. Ten random splits: 5 labels per class to learn from, 200 to
    choose by, the rest to report on.
    """
    pixels, labels = load_digits(return_X_y=True)
    x = (pixels / 16).astype(np.float32)
    near = kneighbors_graph(x, NEIGHBOURS)
    joined = (near + near.T).tocoo()
    return NodeData(
        x=x,
        labels=labels.astype(np.int32),
        senders=joined.row.astype(np.int32),
        receivers=joined.col.astype(np.int32),
        splits=[few_labels(labels, PER_CLASS, VALIDATION, seed) for seed in range(SPLITS)],
        num_classes=10,
        metric="accuracy",
        description=f"digits: {len(x)} real scanned digits (scikit-learn) as nodes, their 64 pixels as features; the "
        f"graph is made here: {joined.nnz} directed edges to the {NEIGHBOURS} nearest neighbours; "
        f"{10 * PER_CLASS} labels",
    )


def few_labels(labels: np.ndarray, per_class: int, validation: int, seed: int) -> Split:
    """A random split with so many labels of each class to learn from."""
    order = np.random.default_rng(seed).permutation(len(labels))
    train = np.concatenate([order[labels[order] == each][:per_class] for each in np.unique(labels)])
    rest = order[~np.isin(order, train)]
    return Split(train, rest[:validation], rest[validation:])


def synthetic(nodes: int, edges: int, *, features: int = 64, seed: int = 0) -> Problem:
    """A generated graph: ten classes, features that tell them faintly, two edges of three within a class."""
    if nodes < 100 or edges < 1 or features < 1:
        raise ValueError(
            f"--synthetic_nodes={nodes}, --synthetic_edges={edges}, --synthetic_features={features}: "
            "expected at least 100 nodes, one edge and one feature"
        )
    random = np.random.default_rng(seed)
    labels = (np.arange(nodes) % CLASSES).astype(np.int32)
    x = random.standard_normal((nodes, features), np.float32)
    x += 0.5 * random.standard_normal((CLASSES, features), np.float32)[labels]
    senders, receivers = random.integers(0, nodes, (2, edges), np.int32)
    within = random.random(edges) < 2 / 3
    same = receivers - receivers % CLASSES + senders % CLASSES
    receivers = np.where(within & (same < nodes), same, receivers).astype(np.int32)
    order = random.permutation(nodes)
    tenth = nodes // 10
    return Problem(
        "synthetic",
        [make_graph(x, senders, receivers)],
        "node",
        "single",
        labels,
        CLASSES,
        "accuracy",
        [Split(order[2 * tenth :], order[:tenth], order[tenth : 2 * tenth])],
        f"synthetic: {nodes} nodes, {features} features, {edges} directed edges, all generated",
    )


def with_validation(split: Split, labels: np.ndarray, seed: int) -> Split:
    """A split that has a validation part: of those without one, a ninth of what would be trained on, by class."""
    if len(split.val):
        return split
    random, held = np.random.default_rng(seed), []
    strata = labels[split.train] if labels.ndim == 1 else np.zeros(len(split.train))
    for each in np.unique(strata):
        members = random.permutation(split.train[strata == each])
        held.append(members[: max(1, len(members) // 9)] if len(members) > 1 else members[:0])
    val = np.sort(np.concatenate(held))
    return Split(split.train[~np.isin(split.train, val)], val, split.test)


def row_normalised(graph: GraphsTuple) -> GraphsTuple:
    """Features divided by the sum of their row, as citation graphs are usually given to networks."""
    x = np.asarray(graph.nodes)
    return graph._replace(nodes=x / np.maximum(np.abs(x).sum(1, keepdims=True), 1e-12).astype(np.float32))


def check_split(split: Split, num: int, where: str) -> None:
    """Raises a ValueError for a split without the parts that a run needs."""
    for part, members in split._asdict().items():
        if not len(members):
            raise ValueError(f"{where}: {part} is empty, expected some of the {num} nodes or graphs")


def _task(labels: np.ndarray, metric: str) -> tuple[np.ndarray, str]:
    if labels.ndim == 1:
        return labels, "single"
    return labels, "regression" if metric == "mae" else "multilabel"


def _numbers(values: Any) -> np.ndarray | None:
    return None if values is None else np.asarray(values, np.float32)
