import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.data.query_structures import STRUCTURES
from jaxmodels.reasoning import sets
from jaxmodels.reasoning.graph import build_graph
from tests.reasoning.small import ENTITIES, brute_force, random_graph, random_queries

LEAVES = st.sampled_from([("e", ("r",)), ("e", ("r", "r")), ("e", ("r", "n")), ("e", ("n",)), ("e", ("r", "n", "r"))])


def nodes(children):
    two_or_three = st.lists(children, min_size=2, max_size=3).map(tuple)
    chains = st.tuples(two_or_three, st.sampled_from([("r",), ("n",), ("n", "r"), ("r", "n")]))
    return two_or_three | two_or_three.map(lambda parts: (*parts, ("u",))) | chains


def lists(found):
    return [found.values[a:b].tolist() for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)]


@given(st.sampled_from(list(STRUCTURES.values())) | st.recursive(LEAVES, nodes, max_leaves=5), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_answers_are_those_of_the_definition(structure, seed):
    graph = random_graph(seed)
    queries = random_queries(structure, 4, seed)
    expected = [sorted(brute_force(graph, structure, query)) for query in queries]
    tails = sets.tails_of(graph)
    assert lists(sets.answer_lists(tails, structure, queries, chunk=3)) == expected
    assert lists(sets.answer_lists(tails._replace(place=None), structure, queries)) == expected


def test_a_table_too_large_is_searched_instead(monkeypatch):
    assert sets.tails_of(random_graph()).place is not None
    monkeypatch.setattr(sets, "LARGEST_TABLE", 10)
    assert sets.tails_of(random_graph()).place is None


def test_a_graph_without_edges_has_no_answers():
    nothing = build_graph(np.zeros((0, 3), int), entities=ENTITIES, relations=2)
    tails = sets.tails_of(nothing)
    for each in (tails, tails._replace(place=None)):
        assert lists(sets.answer_lists(each, "2p", np.array([[0, 1, 0]]))) == [[]]
    assert len(sets.answer_lists(tails, "1p", np.zeros((0, 2), int)).starts) == 1


def test_ids_out_of_range_are_named():
    tails = sets.tails_of(random_graph())
    with pytest.raises(ValueError, match="query 1p: query 1 has relation 6 at 1; expected 0 to 5"):
        sets.answer_lists(tails, "1p", np.array([[0, 1], [0, 6]]))
    with pytest.raises(ValueError, match="query 2p: query 0 has entity 12 at 0; expected 0 to 11"):
        sets.answer_lists(tails, "2p", np.array([[12, 1, 1]]))
    with pytest.raises(ValueError, match=r"query 2i: expected \(n, 4\) tokens of 2i, found \(1, 2\)"):
        sets.answer_lists(tails, "2i", np.array([[0, 1]]))
