"""The Python of the guides runs as it stands, on small data and with few steps."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmodels as jm
from jaxmodels.data.interactions import of_lists
from jaxmodels.data.query_files import write_queries
from jaxmodels.reasoning.sampling_run import Settings, default_counts, sample_queries
from tests.experiments.recommendation_sets import users_dat
from tests.reasoning.small_triples import random_triples

pytestmark = pytest.mark.usefixtures("unoptimised")

DOCS = Path(__file__).parents[1] / "docs"
FEW = (  # what makes a block small: the text of the guide, and what is run
    (r"steps=(500|1000|100 \* batches\.per_epoch)", "steps=2"),
    (r"drop_updates\(1000\)", "drop_updates(2)"),
    (r"dim=(64|100)", "dim=4"),
    (r"PartialMultiViewOutlierDetector\(", "PartialMultiViewOutlierDetector(epochs=2, hidden=8, latent=4, "),
)


def blocks(guide):
    """The Python of a guide, its blocks one after another."""
    found = re.findall(r"```python\n(.*?)```", (DOCS / guide).read_text(), re.DOTALL)
    assert found
    text = "\n".join(found)
    for pattern, small in FEW:
        text = re.sub(pattern, small, text)
    return text


def ring(count, seed=0):
    """A graph of some nodes in a ring: features, senders, receivers."""
    nodes = np.arange(count)
    x = np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)
    return x, nodes, (nodes + 1) % count


def test_graphs():
    x, senders, receivers = ring(20)
    graphs = [jm.graphs.make_graph(*ring(5 + i % 3, i)) for i in range(12)]
    names = {"x": x, "senders": senders, "receivers": receivers, "labels": np.arange(20) % 7, "train": np.ones(20)}
    names |= {"graphs": graphs, "classes_of_graphs": np.arange(12) % 2, "train_ids": np.arange(10)}
    exec(blocks("graphs.md"), names)
    assert names["classes"].shape == (20,) and names["run"].step == 2


def test_reasoning(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("umls").mkdir()
    write_queries(Path("umls/queries.npz"), sample_queries(random_triples(), default_counts(40, 5), Settings()))
    names = {}
    exec(blocks("reasoning.md"), names)
    assert names["run"].step == 2 and "r0(e3)    [1p, query2box]" in capsys.readouterr().out
    parts = jm.reasoning.lod(adaption=jm.reasoning.Adaption("logit"), robust=jm.reasoning.Robust(q=0.3))
    method = jm.reasoning.query_method(names["base"], tuple(names["seen"]), negatives=4, objective=parts)
    assert np.isfinite(jm.fit(method, names["batches"], names["optimizer"], steps=1).history[-1]["loss"])


def test_recommendation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    users_dat(tmp_path)
    Path("tiny").rename("steam-200k")
    saved = re.search(r'load_recommender\("(.*?)"\)', blocks("recommendation.md"))[1]
    seen = of_lists([np.arange(u % 3 + 1) for u in range(40)], 50)
    random = np.random.default_rng(0)
    tables = {"user": random.normal(size=(40, 6)), "item": random.normal(size=(50, 3))}
    model = jm.recommendation.Recommender("nearest", {k: v.astype(np.float32) for k, v in tables.items()}, seen)
    jm.recommendation.save_recommender(saved, model)
    names = {}
    exec(blocks("recommendation.md"), names)
    assert names["best"].items.shape == (2, 10) and names["new"].items.shape == (1, 10)
    assert {path.name for path in Path("index").iterdir()} == {"items.npy", "ids.npy", "index.json"}
    single = jm.recommendation.dpcml(
        names["users"],
        names["items"],
        dim=4,
        vectors=1,
        objective=jm.recommendation.Objective(form="mean", diversity=0),
    )
    start = single.init(jax.random.key(0), {"known": names["known"]})
    run = jm.fit(single, names["batches"], jm.adamw(single.groups, 3e-3), steps=1, variables=start)
    assert run.variables["params"]["user"].shape == (names["users"], 4)
    assert np.isfinite(run.history[-1]["loss"])


def test_outliers():
    random = np.random.default_rng(0)
    names = {name: random.random((60, width)) for name, width in (("audio", 4), ("text", 3))}
    names |= {"new_audio": random.random((5, 4)), "new_text": random.random((5, 3)), "mask": np.ones((60, 2))}
    exec(blocks("outliers.md"), names)
    assert names["detector"].outlier_scores_.shape == (60,)
