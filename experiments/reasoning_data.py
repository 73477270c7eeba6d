"""Data of the reasoning experiment: queries, the training graph behind them, and damage done to both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.running import content
from jaxmodels.data.family import family_tree
from jaxmodels.data.query_files import QueryData, read_queries
from jaxmodels.data.query_folder import read_query_folder
from jaxmodels.reasoning.batches import Trained, trained
from jaxmodels.reasoning.graph import Answers, Graph, answers, as_lists, build_graph
from jaxmodels.reasoning.noise import noisy_answers, noisy_triples
from jaxmodels.reasoning.sampling import Limits
from jaxmodels.reasoning.sampling_run import Settings, default_counts, sample_queries

TRAIN_QUERIES, TEST_QUERIES = 1000, 100  # of each structure of the embedded data


class Loaded(NamedTuple):
    """What a command trains and tests on.

    Attributes:
        name: for people.
        real: False when it is generated.
        data: queries of all splits.
        digest: of them; part of a run's identity.
    """

    name: str
    real: bool
    data: QueryData
    digest: str

    @property
    def entities(self) -> int:
        """Number of entities."""
        return len(self.data.entities)

    @property
    def relations(self) -> int:
        """Number of relations with their inverses."""
        return 2 * len(self.data.relations)


def load(config: Any) -> Loaded:
    """The data that `--data_dir` names, or the embedded ones.

    Raises:
        ValueError: no folder, no queries in it (names the command that draws some), or several files of them.
    """
    if config.data_dir is None:
        counts = default_counts(TRAIN_QUERIES, TEST_QUERIES)
        data = sample_queries(family_tree(), counts, Settings(attempts=2048, limits=Limits()))
        return Loaded("family tree", False, data, _content(data))
    folder = Path(config.data_dir)
    if not folder.is_dir():
        raise ValueError(f"--data_dir: {folder} is no folder")
    if (folder / "train-queries.pkl").exists() and not config.queries:
        data = read_query_folder(folder)
        return Loaded(folder.name, True, data, _content(data))
    file = folder / config.queries if config.queries else _only_file(folder)
    data = read_queries(file)
    return Loaded(folder.name, True, data, _content(data))


def _only_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.npz"))
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"--queries: {folder} holds {', '.join(f.name for f in found)}; expected the name of one")
    if any((folder / f"train.txt{end}").exists() for end in ("", ".gz")):
        draw = f"python -m experiments.sample_queries --triples={folder} --out={folder / 'queries.npz'}"
        raise ValueError(f"--data_dir: {folder} holds triples and no queries; draw some with: {draw}")
    raise ValueError(f"--data_dir: {folder} holds neither a .npz of queries nor train-queries.pkl nor train.txt")


def _content(data: QueryData) -> str:
    return content((len(data.entities), data.relations, data.train, data.valid, data.test))  # names change nothing


class Training(NamedTuple):
    """What a run trains on, after damage.

    Attributes:
        queries: structure -> queries and answers.
        graph: the training edges, from which the pool is drawn.
        damage: what was done to answers: a function for those of a pool, too; (answers, generator or None for the
            run's own) -> answers.
    """

    queries: dict[str, Trained]
    graph: Graph
    damage: Any


def training(config: Any, loaded: Loaded, names: tuple[str, ...], seed: int) -> Training:
    """The training queries of these structures, damaged as `--noise` says, with draws of the run's seed.

    With 'triple', queries are kept and answered anew; those without answers are dropped, and 1p is listed anew.

    Raises:
        ValueError: no 1p training queries, which are the edges.
    """
    if "1p" not in loaded.data.train:
        raise ValueError(f"{loaded.name}: has no 1p training queries, which list the edges of the training graph")
    rng = np.random.default_rng((seed, 7))
    found = trained({name: loaded.data.train[name] for name in names})
    edges = edges_of(trained({"1p": loaded.data.train["1p"]})["1p"])
    graph = _graph(edges, loaded)
    if config.noise == "answer":

        def damage(sets: Answers, random: np.random.Generator | None = None) -> Answers:
            return noisy_answers(sets, random or rng, eta=config.eta, entities=loaded.entities)

        noisy = {name: Trained(each.tokens, damage(each.answers)) for name, each in found.items()}
        return Training(noisy, graph, damage)
    if config.noise == "triple":
        own = edges[edges[:, 1] % 2 == 0]
        own = noisy_triples(
            own, rng.permutation(len(own)), rng.random(len(own)), eta=config.eta, entities=loaded.entities
        )
        graph = _graph(own, loaded)
        found = {name: answered(graph, name, each.tokens) for name, each in found.items() if name != "1p"}
        if "1p" in names:
            found = {"1p": answered(graph, "1p", np.unique(graph.edges[:, :2], axis=0)), **found}
    kept = {name: found[name] for name in names if name in found and len(found[name].tokens)}
    if not kept:
        raise ValueError(f"--eta: found {config.eta}, which leaves no training query of {loaded.name} with an answer")
    return Training(kept, graph, lambda sets, random=None: sets)


def _graph(edges: np.ndarray, loaded: Loaded) -> Graph:
    return build_graph(edges, entities=loaded.entities, relations=loaded.relations)


def edges_of(one_hop: Trained) -> np.ndarray:
    """(E, 3) edges that 1p queries and their answers are."""
    rows = np.repeat(np.arange(len(one_hop.tokens)), one_hop.answers.counts)
    return np.column_stack([one_hop.tokens[rows], one_hop.answers.values]).astype(np.int64)


def answered(graph: Graph, name: str, tokens: np.ndarray) -> Trained:
    """Queries with their exact answers; those that have any."""
    kept, parts = [], []
    for i in range(0, len(tokens), 1024):
        found = answers(graph, name, tokens[i : i + 1024])
        some = found.any(1)
        kept.append(tokens[i : i + 1024][some])
        parts.append(as_lists(found[some]))
    starts = np.append(0, np.cumsum(np.concatenate([part.counts for part in parts])))
    return Trained(np.concatenate(kept), Answers(starts, np.concatenate([part.values for part in parts])))


def known_queries(data: QueryData) -> Mapping[str, np.ndarray]:
    """The queries of valid and test, which no pool may hold."""
    names = dict.fromkeys((*data.valid, *data.test))
    return {
        n: np.concatenate([part[n].tokens for part in (data.valid, data.test) if n in part]).astype(np.int64)
        for n in names
    }
