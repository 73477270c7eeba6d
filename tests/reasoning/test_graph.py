import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.data.query_structures import STRUCTURES
from jaxmodels.reasoning.graph import answers, as_lists, build_graph, draw_answers, hard_answers
from jaxmodels.reasoning.structures import de_morgan, rewrite
from tests.reasoning.small import ENTITIES, RELATIONS, brute_force, random_graph, random_queries


@given(st.sampled_from(sorted(STRUCTURES)), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_answers_are_those_of_brute_force(name, seed):
    graph, rows = random_graph(seed), random_queries(name, 5, seed)
    found = answers(graph, name, rows, chunk=2)
    for row, query in zip(found, rows, strict=True):
        assert set(np.flatnonzero(row).tolist()) == brute_force(graph, name, query)


@given(st.sampled_from(["2u", "up"]), st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_union_and_its_de_morgan_form_have_equal_answers(name, seed):
    graph, rows = random_graph(seed), random_queries(f"{name}-DNF", 4, seed)
    other = rewrite(rows, de_morgan(f"{name}-DNF"))
    assert (answers(graph, f"{name}-DNF", rows) == answers(graph, f"{name}-DM", other)).all()


def test_a_graph_holds_both_directions_once():
    graph = build_graph(np.array([[0, 0, 1], [0, 0, 1], [1, 2, 1]]), entities=3, relations=4)
    assert graph.edges.tolist() == [[0, 0, 1], [1, 1, 0], [1, 2, 1], [1, 3, 1]]


def test_hard_answers_need_the_larger_graph():
    small = build_graph(np.array([[0, 0, 1]]), entities=3, relations=2)
    big = build_graph(np.array([[0, 0, 1], [0, 0, 2]]), entities=3, relations=2)
    easy, hard = hard_answers(small, big, {"1p": np.array([[0, 0]])})["1p"]
    assert easy.tolist() == [[False, True, False]] and hard.tolist() == [[False, False, True]]


def test_drawn_answers_are_answers_and_reach_all_of_them():
    lists = as_lists(np.array([[True, False, True, True], [False, True, False, False]]))
    uniform = np.array([0.0, 0.5, 0.999, 0.999])
    assert draw_answers(lists, np.array([0, 0, 0, 1]), uniform).tolist() == [0, 2, 3, 1]


def test_errors_name_the_row():
    with pytest.raises(ValueError, match="triples, row 1: unknown relation 7, expected 0 to 5"):
        build_graph(np.array([[0, 0, 1], [0, 7, 1]]), entities=ENTITIES, relations=RELATIONS)
    with pytest.raises(ValueError, match="relations: found 3, expected an even number"):
        build_graph(np.array([[0, 0, 1]]), entities=2, relations=3)
    with pytest.raises(ValueError, match="query 1p: query 0 has relation 9 at 1; expected 0 to 5"):
        answers(random_graph(), "1p", np.array([[0, 9]]))
