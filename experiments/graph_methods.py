"""The networks that `experiments.graphs` offers by name, the settings each starts from, and the paper's for N2."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxmodels.graphs.n2 import N2
from jaxmodels.graphs.peers import Peer
from jaxmodels.rules import nearest


class Choice(NamedTuple):
    """A network by name.

    Attributes:
        options: keyword arguments of its module.
        graphs: those that differ where graphs are classified.
        flags: command-line flag -> keyword argument, for the flags that it understands.
        learning_rate: of Adam.
        weight_decay: added to the gradient, as PyTorch's Adam does.
        about: one line.
    """

    options: Mapping[str, Any]
    graphs: Mapping[str, Any]
    flags: Mapping[str, str]
    learning_rate: float
    weight_decay: float
    about: str


SHARED = ("width", "dropout", "input_dropout")
N2_FLAGS = {
    "layers": "steps",
    **{name: name for name in (*SHARED, "state_width", "pieces", "pseudo_nodes", "pathway", "dense", "linear_order")},
    "remat": "remat", "own_steps": "shared", "without": "without",
}  # fmt: skip
PEER_FLAGS = {"layers": "depth", **{name: name for name in (*SHARED, "pool", "residual")}}
PEER, POOLED = {"depth": 2, "width": 64, "dropout": 0.5}, {"depth": 4, "width": 32, "dropout": 0.0}


def _peer(kind: str, about: str, rate: float = 1e-2, **flags: str) -> Choice:
    return Choice({"kind": kind, **PEER}, POOLED, PEER_FLAGS | flags, rate, 5e-4, about)


METHODS: dict[str, Choice] = {
    "n2": Choice(
        {"steps": 4, "width": 128, "state_width": 64, "pieces": 8, "pseudo_nodes": 256, "dropout": 0.4},
        {"pseudo_nodes": 32, "dropout": 0.1},
        N2_FLAGS,
        1e-3,
        1e-6,
        "N2: messages over pathways that pseudo nodes learn",
    ),
    "gcn": _peer("gcn", "GCN (Kipf and Welling 2017)"),
    "gat": _peer("gat", "GAT (Velickovic et al. 2018)", 5e-3, heads="heads"),
    "gin": _peer("gin", "GIN (Xu et al. 2019)", 3e-3),
    "graphsage": _peer("sage", "GraphSAGE, mean (Hamilton et al. 2017)"),
    "mlp": _peer("mlp", "MLP: the nodes without the graph"),
}
FLAGS = tuple(dict.fromkeys([*N2_FLAGS, *PEER_FLAGS, "heads"]))  # of any network, on the command line


class Recipe(NamedTuple):
    """Settings of a run beside the data; None leaves a value to the flags or to the method.

    Attributes:
        options: keyword arguments of the module.
        learning_rate: peak.
        weight_decay: L2.
        epochs: at most.
        patience: epochs without a lower validation loss.
        batch_size: graphs per step.
        warmup: steps until the peak.
    """

    options: Mapping[str, Any] = {}
    learning_rate: float | None = None
    weight_decay: float | None = None
    epochs: int | None = None
    patience: int | None = None
    batch_size: int | None = None
    warmup: int = 1


def _paper(
    steps: int, pseudo: int, dropout: float, *, width: int = 128, state: int = 64, batch: int | None = None, **more: Any
) -> Recipe:
    sizes = {"steps": steps, "width": width, "state_width": state, "pieces": 8, "pseudo_nodes": pseudo}
    return Recipe({**sizes, "dropout": dropout, **more}, 1e-3, 1e-6, 1000, 300, batch, batch or 1)


# Table S6 of arXiv 2410.23686; Adam at 1e-3 and decay 1e-6, at most 1,000 epochs, 300 without a lower validation loss.
# With batches the rate warms up over as many steps as a batch has graphs, as the released code counts.
PAPER: dict[str, Recipe] = {
    "genius": _paper(3, 256, 0.1),
    "arxiv-year": _paper(6, 300, 0.1),
    "ogbn-arxiv": _paper(5, 320, 0.3),
    "ogbn-proteins": _paper(3, 256, 0.3),
    "questions": _paper(6, 256, 0.1),
    "amazon-ratings": _paper(8, 256, 0.3, width=64),
    "tolokers": _paper(6, 256, 0.1),
    "minesweeper": _paper(7, 128, 0.3, width=64),
    "coauthor-cs": _paper(3, 256, 0.4),
    "coauthor-physics": _paper(3, 256, 0.5),
    "amazon-photo": _paper(5, 256, 0.1),
    "amazon-computers": _paper(3, 256, 0.3),
    "proteins": _paper(8, 32, 0.1, batch=256),
    "nci1": _paper(6, 32, 0.1, state=128, batch=256),
    "collab": _paper(6, 32, 0.1, batch=256),
    "imdb-binary": _paper(6, 32, 0.1, batch=256),
    "imdb-multi": _paper(6, 8, 0.2, batch=256),
    "ogbg-molpcba": _paper(6, 32, 0.3, batch=1024, class_pieces=8),
}
# Ours: small enough for a first run on a CPU; the rate is ten times the paper's, for a tenth of its epochs.
OURS: dict[str, Recipe] = {
    "digits": Recipe(
        {"steps": 2, "width": 64, "state_width": 32, "pieces": 4, "pseudo_nodes": 32, "dropout": 0.3}, 1e-2
    ),
}


def recipe_of(name: str, method: str, problem: str) -> Recipe:
    """The recipe of `--recipe`, for a method and a data set.

    Raises:
        ValueError: the paper has none for them.
    """
    if method != "n2":
        if name == "paper":
            raise ValueError(f"--recipe=paper: --method={method} has none; Table S6 is for n2")
        return Recipe()
    if name == "flags":
        return OURS.get(problem, Recipe())
    if problem not in PAPER:
        known = f"expected one of {', '.join(PAPER)}{nearest(problem, PAPER)}"
        raise ValueError(f"--recipe=paper: Table S6 has no data set '{problem}', {known}")
    return PAPER[problem]


def options_of(name: str, level: str, flags: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments of a method's module: its own, then the recipe's, then the flags'.

    Raises:
        ValueError: a flag that this method does not have.
    """
    choice = METHODS[name]
    for flag in flags:
        if flag not in choice.flags:
            known = ", ".join(f"--{known}" for known in choice.flags)
            raise ValueError(f"--{flag}: --method={name} has no such option; it takes {known}")
    given = {choice.flags[flag]: value for flag, value in flags.items()}
    if "shared" in given:
        given["shared"] = not given["shared"]
    given.update({part: False for part in given.pop("without", ())})
    return {**choice.options, **(choice.graphs if level == "graph" else {}), **recipe.options, **given}


def build(name: str, options: Mapping[str, Any], *, outputs: int, level: str, task: str) -> Any:
    """The module of a method.

    Raises:
        ValueError: a value that it cannot have.
    """
    if name != "n2":
        return Peer(outputs=outputs, level=level, **options)
    # Regression has no class nodes and no norms in the released code, which cannot run it; the linear head is ours.
    regression: dict[str, Any] = {"head": "linear", "norm": False} if task == "regression" else {}
    return N2(outputs=outputs, level=level, **regression, **options)
