import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.data.query_structures import STRUCTURES, check_tokens, letters
from jaxmodels.reasoning.diffusion import (
    KEPT,
    OPERATIONS,
    apply_operation,
    backward,
    diffusion_matrix,
    relation_histogram,
    surroundings,
)
from jaxmodels.reasoning.graph import answers, as_lists, build_graph
from jaxmodels.reasoning.noise import noisy_answers, noisy_triples
from jaxmodels.reasoning.pool import diffuse, possible
from jaxmodels.reasoning.structures import canonical, disjuncts
from tests.reasoning.small import ENTITIES, POSITIVE, RELATIONS, brute_force, random_graph, random_queries

CASES = [(operation, name) for operation, table in OPERATIONS.items() for name in table]


def answered(graph, name, seed, count=40):
    """Random queries that have answers, and one answer of each."""
    rows = random_queries(name, count, seed)
    sets = answers(graph, name, rows)
    rows, sets = rows[sets.any(1)], sets[sets.any(1)]
    return rows, sets.argmax(1)


@given(st.sampled_from(CASES), st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 2.0]))
@settings(max_examples=80, deadline=None)
def test_the_answer_that_was_known_answers_the_result(case, seed, tau):
    operation, name = case
    graph = random_graph(seed)
    rows, positive = answered(graph, name, seed)
    uniform = np.random.default_rng(seed).random((len(rows), 6))
    for made in apply_operation(surroundings(graph), operation, name, rows, positive, uniform, tau):
        assert made.name in OPERATIONS[operation][name]
        check_tokens(made.name, made.queries, num_entities=ENTITIES, num_relations=RELATIONS, where="")
        for query, known in list(zip(made.queries, made.positive, strict=True))[:5]:
            assert known in brute_force(graph, made.name, query)
        if operation in ("conjoin1", "union1"):
            before = rows[made.source]
            new = [q for q, old in zip(made.queries, before, strict=True) if not equal_hops(name, old)]
            assert not any(equal_hops(made.name, query) for query in new)


def equal_hops(name, query):
    kinds, hops = "".join(letters(STRUCTURES[name])), []
    for i in range(len(kinds) - 1):
        if kinds[i : i + 2] == "er" and kinds[i + 2 : i + 3] in ("", "e", "u"):
            hops.append((int(query[i]), int(query[i + 1])))
    return name in ("2i", "3i", "2u-DNF") and len(set(hops)) < len(hops)


def test_negation_needs_another_entity_with_edges_that_excludes_the_answer():
    graph = build_graph(np.array([[0, 0, 1], [2, 0, 3]]), entities=5, relations=2)
    near, row, known = surroundings(graph), np.array([[0, 0]]), np.array([1])
    uniform = np.zeros((1, 6))

    def made(other):
        uniform[0, 4] = (other + 0.5) / 5
        return apply_operation(near, "negate1", "1p", row, known, uniform)[0].queries.tolist()

    assert made(1) == [] and made(4) == []  # the answer itself; no edge
    assert made(3) == [[0, 0, 2, 0, -2]]
    both = build_graph(np.array([[0, 0, 1], [0, 0, 3]]), entities=5, relations=2)
    uniform[0, 4] = 3.5 / 5
    assert apply_operation(surroundings(both), "negate1", "1p", row, known, uniform)[0].queries.tolist() == []


def test_walks_do_not_turn_back_and_follow_the_weights():
    graph = build_graph(np.array([[0, 0, 1], [2, 2, 1], [3, 2, 1]]), entities=4, relations=4)
    near, count = surroundings(graph), 4000
    at, weight = np.full(count, 1), np.tile([0.0, 0.2, 0.0, 0.8], (count, 1))  # incoming 0 and 2 are outgoing 1 and 3
    uniform = np.random.default_rng(0).random((count, 2))
    none, one = np.full(count, -1), np.ones(count)
    step = backward(near, at, weight, none, uniform, one)
    assert step.ok.all() and abs((step.relation == 2).mean() - 0.8) < 0.03
    assert set(step.entity[step.relation == 2]) == {2, 3} and set(step.entity[step.relation == 0]) == {0}
    flat = backward(near, at, weight, none, uniform, 0 * one)
    assert abs((flat.relation == 2).mean() - 0.5) < 0.03
    assert (backward(near, at, weight, np.full(count, 3), uniform, one).relation == 0).all()
    assert not backward(near, np.array([2]), weight[:1], np.array([2]), uniform[:1], one[:1]).ok.any()


def test_diffusion_is_a_distribution_and_can_be_switched_off():
    near = surroundings(random_graph(1))
    start = relation_histogram("2p", random_queries("2p", 5), RELATIONS)
    np.testing.assert_allclose((start @ near.spread).sum(1), 1.0)
    for off in ({"beta": 1.0}, {"hops": 0}):
        np.testing.assert_allclose(surroundings(random_graph(1), **off).spread, np.eye(RELATIONS), atol=1e-12)
    assert not np.allclose(near.spread, np.eye(RELATIONS))
    np.testing.assert_allclose(relation_histogram("2p", np.array([[0, 2, 2]]), 4), [[0, 0, 0.5, 0.5]])
    with pytest.raises(ValueError, match="beta: found 0.0, expected above 0"):
        diffusion_matrix(np.eye(2), beta=0.0)
    with pytest.raises(ValueError, match="hops: found -1"):
        diffusion_matrix(np.eye(2), hops=-1)


def test_unlisted_structures_fail_and_unknown_operations_are_named():
    near = surroundings(random_graph())
    rows = random_queries("3p", 1)
    assert apply_operation(near, "extend", "3p", rows, np.array([0]), np.zeros((1, 6))) == []
    with pytest.raises(ValueError, match="no operation 'extent'; did you mean 'extend'"):
        apply_operation(near, "extent", "3p", rows, np.array([0]), np.zeros((1, 6)))


def test_every_base_structure_is_reached_from_one_hop_in_two_operations():
    supported = [name for name in STRUCTURES if not name.endswith("-DM")]
    reached = {"1p"}
    for _ in range(2):
        reached |= {t for n in reached for o in possible(n, supported) for t in OPERATIONS[o][n]}
    assert reached == set(supported)
    assert all(len(KEPT[name]) == len(targets) for name, targets in OPERATIONS["sub"].items())


def draw(**more):
    graph = random_graph(3, edges=40)
    seeds = {"1p": np.unique(graph.edges[:, :2], axis=0)}
    lists = {"1p": as_lists(answers(graph, "1p", seeds["1p"]))}
    options = {"targets": POSITIVE, "quota": 20, "supported": POSITIVE, "max_answers": 6} | more
    return graph, seeds, diffuse(surroundings(graph), seeds, lists, **options)


def test_the_pool_holds_new_queries_with_their_exact_answers():
    unwanted = draw()[2].queries["2p"][:5]
    graph, seeds, pool = draw(holdout=("ip",), exclude={"2p": unwanted})
    assert "ip" not in pool.queries and "1p" not in pool.queries  # every 1p with answers is a seed
    assert set(pool.report()) >= {"2p", "2i", "pi", "2u-DNF"} and max(pool.report().values()) <= 20
    for name, rows in pool.queries.items():
        keys = {row.tobytes() for row in canonical(name, rows)}
        assert len(keys) == len(rows)
        for i, row in enumerate(rows[:5]):
            found = pool.answers[name].values[slice(*pool.answers[name].starts[i : i + 2])]
            assert set(found.tolist()) == brute_force(graph, name, row) and 1 <= len(found) <= 6
    assert not {row.tobytes() for row in pool.queries["2p"]} & {row.tobytes() for row in unwanted}


def test_one_operation_each_at_depth_one_and_an_end_by_attempts():
    pool = draw(depth=1, max_attempts=500)[2]
    assert pool.attempts == 500 and set(pool.queries) <= {"2p", "2i", "pi", "2u-DNF"}
    again = draw(depth=1, max_attempts=500)[2]
    assert all((again.queries[name] == rows).all() for name, rows in pool.queries.items())
    other = draw(depth=1, max_attempts=500, seed=1)[2]
    assert other.queries["2p"].tolist() != pool.queries["2p"].tolist()


def test_pools_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="targets: '2in' is not supported by the model"):
        draw(targets=("2in",))
    with pytest.raises(ValueError, match="targets: none is left after holding out ip"):
        draw(targets=("ip",), holdout=("ip",))
    with pytest.raises(ValueError, match="depth: found 0"):
        draw(depth=0)


def test_noise_changes_the_share_it_says_and_nothing_else():
    rng = np.random.default_rng(0)
    triples = np.stack([rng.integers(ENTITIES, size=50), 0 * np.arange(50), rng.integers(ENTITIES, size=50)], axis=1)
    noisy = noisy_triples(triples, rng.permutation(50), rng.random(50), eta=0.3, entities=ENTITIES)
    assert (noisy[:, :2] == triples[:, :2]).all() and (noisy[:, 2] != triples[:, 2]).sum() == 15
    lists = as_lists(rng.random((200, ENTITIES)) < 0.5)
    assert noisy_answers(lists, rng, eta=0.0, entities=ENTITIES).values.tolist() == lists.values.tolist()
    changed = noisy_answers(lists, rng, eta=0.5, entities=ENTITIES)
    assert 0.6 < len(changed.values) / len(lists.values) < 1.0  # merged
    assert (np.diff(changed.values)[np.diff(np.repeat(np.arange(200), changed.counts)) == 0] > 0).all()
    with pytest.raises(ValueError, match="eta: found 1.5"):
        noisy_triples(triples, np.arange(50), np.zeros(50), eta=1.5, entities=ENTITIES)


def test_disjuncts_of_what_diffusion_makes_are_supported():
    assert {len(disjuncts(name)) for name in POSITIVE} == {1, 2}
