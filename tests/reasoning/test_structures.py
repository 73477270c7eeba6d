import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.data.query_structures import STRUCTURES, check_tokens, letters, structure_of
from jaxmodels.reasoning.structures import (
    canonical,
    de_morgan,
    disjuncts,
    rewrite,
)
from tests.reasoning.small import ENTITIES, RELATIONS, brute_force, random_graph, random_queries

TOKENS = {
    "1p": "e r", "2p": "e r r", "3p": "e r r r", "2i": "e r e r", "3i": "e r e r e r", "ip": "e r e r r",
    "pi": "e r r e r", "2in": "e r e r n", "3in": "e r e r e r n", "inp": "e r e r n r", "pin": "e r r e r n",
    "pni": "e r r n e r", "2u-DNF": "e r e r u", "up-DNF": "e r e r u r", "2u-DM": "e r n e r n n",
    "up-DM": "e r n e r n n r",
}  # fmt: skip


def test_sixteen_structures_and_their_tokens():
    assert {name: " ".join(letters(tree)) for name, tree in STRUCTURES.items()} == TOKENS


@pytest.mark.parametrize("name", ["2u", "up"])
def test_de_morgan_rewrites_one_into_the_other(name):
    found = de_morgan(f"{name}-DNF")
    assert found.structure == STRUCTURES[f"{name}-DM"]
    rows = rewrite(random_queries(f"{name}-DNF", 5), found)
    check_tokens(f"{name}-DM", rows, num_entities=ENTITIES, num_relations=RELATIONS, where="")


HOP = STRUCTURES["1p"]
UNIONS = {
    "plain": STRUCTURES["up-DNF"],
    "negated": (HOP, ((HOP, STRUCTURES["2in"], ("u",)), ("n",))),
    "nested": ((((HOP, HOP, ("u",)), STRUCTURES["2p"], (HOP, HOP, HOP, ("u",)))), ("r", "n", "r")),
}


@given(st.sampled_from(sorted(UNIONS)), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_both_rewritings_have_the_answers_of_the_original(case, seed):
    tree, graph = UNIONS[case], random_graph(seed)
    row = random_queries(tree, 1, seed)
    expected = brute_force(graph, tree, row[0])
    each = [brute_force(graph, part.structure, rewrite(row, part)[0]) for part in disjuncts(tree)]
    assert set.union(*each) == expected
    assert all("u" not in letters(part.structure) for part in disjuncts(tree))
    other = de_morgan(tree)
    assert brute_force(graph, other.structure, rewrite(row, other)[0]) == expected


def test_equal_queries_have_one_canonical_row():
    assert canonical("3in", np.array([[5, 1, 2, 3, 0, 0, -2]])).tolist() == [[2, 3, 5, 1, 0, 0, -2]]
    assert canonical("2p", np.array([[5, 3, 1]])).tolist() == [[5, 3, 1]]
    assert canonical("pi", np.array([[5, 3, 1, 0, 2]])).tolist() == [[5, 3, 1, 0, 2]]
    assert canonical("ip", np.array([[5, 3, 1, 0, 2]])).tolist() == [[1, 0, 5, 3, 2]]
    assert canonical("up-DNF", np.array([[5, 3, 1, 0, -1, 2]])).tolist() == [[1, 0, 5, 3, -1, 2]]
    assert canonical("3in", np.zeros((0, 7), int)).shape == (0, 7)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1, 2]], r"here: expected \(n, 4\) tokens of 2i, found \(1, 3\)"),
        ([[0, 1, 2, 6]], "here: query 0 has relation 6 at 3; expected 0 to 5"),
        ([[0, 1, 2, 3], [12, 1, 2, 3]], "here: query 1 has entity 12 at 0; expected 0 to 11"),
    ],
)
def test_wrong_rows_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        check_tokens("2i", np.array(rows), num_entities=ENTITIES, num_relations=RELATIONS, where="here")


def test_wrong_marks_and_names_are_named():
    with pytest.raises(ValueError, match="here: query 0 has negation -1 at 4; expected -2"):
        check_tokens("2in", np.array([[0, 1, 2, 3, -1]]), num_entities=9, num_relations=9, where="here")
    with pytest.raises(ValueError, match="no query structure '2u-DMF'; did you mean '2u-D"):
        structure_of("2u-DMF")
    with pytest.raises(ValueError, match="found 'x', expected e, r, n or u"):
        letters(("e", ("x",)))
