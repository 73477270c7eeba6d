import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.reasoning.ask import Reasoner, Replies, ask
from jaxmodels.reasoning.language import parse
from jaxmodels.reasoning.query_model import scores_of_all
from jaxmodels.reasoning.reasoner_file import load_reasoner, save_reasoner
from jaxmodels.weights.files import read_arrays, write_safetensors
from tests.reasoning.small import ENTITIES, MODELS, RELATIONS, brute_force, random_graph, random_params

NAMES = tuple(f"entity {i}" for i in range(ENTITIES - 2)) + ("france", "nobel")
RELATION_NAMES = ("people.born_in", "people.won", "knows")
TEXT = "people.born_in(france) & ~won(nobel)"


@functools.cache  # a model asked again does not compile again
def reasoner(name="betae", graph=True, **more):
    base = MODELS[name](**more)
    return Reasoner(base, random_params(base), NAMES, RELATION_NAMES, random_graph(4, edges=60) if graph else None)


def test_answers_have_names_scores_and_what_is_known():
    model = reasoner()
    found = ask(model, TEXT, top=ENTITIES)
    tokens = np.array([[10, 1, 11, 3, -2]])
    assert found.question.tokens.tolist() == tokens.tolist()
    scores = np.asarray(scores_of_all(model.base, model.params, "2in", jnp.asarray(tokens)))[0]
    assert [row.entity for row in found.rows] == [NAMES[i] for i in np.argsort(-scores)]
    np.testing.assert_allclose([row.score for row in found.rows], np.sort(scores)[::-1], rtol=1e-5)
    known = brute_force(model.graph, "2in", tokens[0])
    assert len(known) > 0 and found.facts == tuple(NAMES[i] for i in sorted(known))
    assert {row.entity for row in found.rows if row.known} == {NAMES[i] for i in known}
    fresh = ask(model, TEXT, top=ENTITIES, only_new=True)
    assert [row.entity for row in fresh.rows] == [row.entity for row in found.rows if not row.known]
    assert ask(model, TEXT, top=2).rows == found.rows[:2]


def test_answers_print_as_a_table():
    lines = str(ask(reasoner(), TEXT, top=3)).splitlines()
    assert lines[0].startswith(TEXT) and lines[0].endswith("known]") and "2in, betae" in lines[0]
    assert lines[1].split()[0] == "1" and lines[1].split()[2] in ("known", "predicted")
    listed = [line.split()[-1] for line in lines[1:4]]
    left = [name for name in ask(reasoner(), TEXT, top=3).facts if name not in listed]
    assert left and lines[4:] == [f"also known: {', '.join(left)}"]
    many = Replies(parse("knows(france)", entities=NAMES, relations=RELATION_NAMES), (), NAMES, "gqe")
    assert str(many).endswith(f"also known: {', '.join(NAMES[:10])} and {ENTITIES - 10} more")
    bare = str(ask(reasoner("gqe", graph=False), "knows(france | nobel)", top=1)).splitlines()
    assert bare[0] == "knows(france | nobel)    [2u-DNF, gqe]"
    assert "known" not in bare[1] and "predicted" not in bare[1]


def test_any_nesting_can_be_asked():
    text = "won(knows(~won(nobel) & knows^-1(france)) | people.born_in(nobel)) & ~(knows(nobel) & knows(france))"
    found = ask(reasoner(), text, top=5)
    known = brute_force(reasoner().graph, found.question.structure, found.question.tokens[0])
    assert found.facts == tuple(NAMES[i] for i in sorted(known)) and len(found.rows) == 5
    assert str(found.question.structure) in str(found)


def test_or_by_de_morgan_is_another_embedding():
    text = "knows(france) | knows(nobel)"
    assert ask(reasoner(), text, union="dm", top=1).rows != ask(reasoner(), text, top=1).rows


def test_what_cannot_be_asked_is_said():
    with pytest.raises(ValueError, match=r"gqe has no negation, which query .* needs \(union=dnf\)"):
        ask(reasoner("gqe"), TEXT)
    with pytest.raises(ValueError, match="top: found 0, expected an integer of at least 1"):
        ask(reasoner(), TEXT, top=0)
    with pytest.raises(ValueError, match="chunk: found 0, expected an integer of at least 1"):
        ask(reasoner(), TEXT, chunk=0)
    with pytest.raises(ValueError, match="only_new: the model has no graph of known facts, expected one"):
        ask(reasoner(graph=False), TEXT, only_new=True)
    with pytest.raises(ValueError, match="column 18: no entity 'frnce'; did you mean 'france'"):
        ask(reasoner(), " people.born_in( frnce)")
    with pytest.raises(ValueError, match="reasoner: found 11 entities, expected 12 as the model has"):
        ask(reasoner()._replace(entities=NAMES[1:]), TEXT)
    with pytest.raises(ValueError, match="reasoner: found 4 relations, inverses included, expected 6"):
        ask(reasoner()._replace(relations=RELATION_NAMES[1:]), TEXT)
    with pytest.raises(ValueError, match="reasoner: found 11 entities of the graph, expected 12"):
        ask(reasoner()._replace(graph=random_graph()._replace(entities=11)), TEXT)


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_gives_the_same_answers_back(name, tmp_path):
    model = reasoner(name, row_multiple=8)
    save_reasoner(tmp_path / "kept", model)
    again = load_reasoner(tmp_path / "kept", row_multiple=5)
    assert len(again.params["entity"]["embedding"]) == 15
    assert again.base.config == model.base.config
    assert again[2:4] == model[2:4] and again.graph.relations == RELATIONS
    np.testing.assert_array_equal(again.graph.edges, model.graph.edges)
    text = "people.born_in(france) & won(nobel)"
    one, two = (ask(each, text) for each in (model, again))
    assert [row.entity for row in one.rows] == [row.entity for row in two.rows] and one.facts == two.facts
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:12], b[:12]), dict(model.params), dict(again.params))
    save_reasoner(tmp_path / "kept", model._replace(graph=None))
    assert load_reasoner(tmp_path / "kept").graph is None
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda h: h.pop("entities"), "model.json: has no 'entities'"),
        (lambda h: h.update(extra=1), "model.json: nothing reads 'extra'"),
        (lambda h: h.update(format=2), "model.json: found format 2, expected 1"),
        (lambda h: h.update(relations=[1, 2]), "model.json: 'relations' is no list of names"),
        (lambda h: h["config"].pop("dim"), "model.json, config: has no 'dim'"),
        (lambda h: h["config"].update(dims=3), "model.json, config: nothing reads 'dims'; did you mean 'dim'"),
        (lambda h: h["config"].update(model="gqu"), "found model 'gqu', expected one of gqe, .*; did you mean 'gqe'"),
        (lambda h: h["config"].update(dim="wide"), "model.json, config: "),
        (lambda h: h["config"].update(dim=5), "model.safetensors: .*'entity_embedding'"),
        (lambda h: h["entities"].pop(), "model.json: reasoner: found 11 entities, expected 12"),
    ],
)
def test_a_damaged_header_is_named(tmp_path, change, message):
    save_reasoner(tmp_path, reasoner("gqe"))
    header = json.loads((tmp_path / "model.json").read_text())
    change(header)
    (tmp_path / "model.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=message) as error:
        load_reasoner(tmp_path)
    assert "\n" not in str(error.value)


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="model.json: found no such file, expected a folder that save_reasoner wrote"):
        load_reasoner(tmp_path)
    save_reasoner(tmp_path, reasoner("gqe"))
    arrays = read_arrays(tmp_path / "model.safetensors")
    for changed, message in (
        ({k: v for k, v in arrays.items() if k != "relation_embedding"}, "has no 'relation_embedding'"),
        (arrays | {"offset_embedding": np.zeros((6, 4), np.float32)}, "nothing reads 'offset_embedding'"),
    ):
        write_safetensors(tmp_path / "model.safetensors", changed)
        with pytest.raises(ValueError, match=f"model.safetensors: .*{message}"):
            load_reasoner(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", arrays)
    write_safetensors(tmp_path / "graph.safetensors", {"edges": np.array([[0, 1, 99]])})
    with pytest.raises(ValueError, match="graph.safetensors: triples, row 0: unknown tail 99, expected 0 to 11"):
        load_reasoner(tmp_path)
    write_safetensors(tmp_path / "graph.safetensors", {"triples": np.array([[0, 1, 1]])})
    with pytest.raises(ValueError, match="graph.safetensors: nothing reads 'triples'"):
        load_reasoner(tmp_path)
    (tmp_path / "model.json").write_text("[1, 2")
    with pytest.raises(ValueError, match="model.json: is no JSON"):
        load_reasoner(tmp_path)
    (tmp_path / "model.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="model.json: found a list, expected an object with format, config"):
        load_reasoner(tmp_path)
