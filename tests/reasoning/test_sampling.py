import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.data.query_files import SPLITS
from jaxmodels.data.query_structures import NEGATION, STRUCTURES
from jaxmodels.reasoning import sampling
from jaxmodels.reasoning.graph import build_graph
from jaxmodels.reasoning.grounding import fingerprints, ground
from jaxmodels.reasoning.sampling import Limits, block, one_hop, promising, split_of
from jaxmodels.reasoning.sampling_run import SAMPLED
from jaxmodels.reasoning.structures import canonical, has
from tests.reasoning.small import ENTITIES, brute_force, random_graph, random_queries
from tests.reasoning.small_triples import random_triples


def accepted(split, name, query, limits):
    """(easy, hard) by the definition, None where the rules refuse the query."""
    big, small = (brute_force(each.graph, name, query) for each in (split.big, split.small))
    if split.name == "train":
        most = limits.train_negated if has(name, "n") else limits.train
        return (set(), big) if big and len(big) <= (most or 99) else None
    gained, lost = big - small, small - big
    if not gained or max(len(gained), len(lost)) > (limits.evaluation or 99) or (has(name, "n") and not lost):
        return None
    return small if limits.lost else small & big, gained


def pairs(found):
    rows = [
        [set(part.values[a:b].tolist()) for a, b in zip(part.starts[:-1], part.starts[1:], strict=True)]
        for part in (found.easy, found.hard)
    ]
    return {tuple(query): both for query, *both in zip(found.tokens.tolist(), *rows, strict=True)}


@given(st.sampled_from(SAMPLED[1:]), st.sampled_from(SPLITS), st.integers(0, 10_000), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_block_holds_what_the_rules_accept_and_nothing_else(name, of, seed, limited, lost):
    split = split_of(random_triples(seed), of)
    limits = Limits(2, 4, 3, lost) if limited else Limits(None, None, None, lost)
    found = block(split, name, seed=seed, number=1, attempts=60, limits=limits)
    drawn = ground(split.big.graph, name, 60, stream(seed, of, name))
    first = {tuple(canonical(name, query[None])[0].tolist()): query for query in drawn[::-1]}
    expected = {}
    for query in first.values():
        both = accepted(split, name, query, limits)
        if both:
            expected[tuple(query.tolist())] = list(both)
    assert pairs(found) == expected
    assert found.drawn == len(drawn)


def stream(seed, of, name, number=1):
    parts = [seed, SPLITS.index(of), sampling.zlib.crc32(name.encode()), number]
    return np.random.default_rng(np.random.SeedSequence(parts))


@pytest.mark.parametrize("of", SPLITS)
def test_one_hop_queries_are_all_those_of_the_splits_own_edges(of):
    kg = random_triples(3)
    split = split_of(kg, of)
    found = pairs(one_hop(split, limits=Limits(None, None, None)))
    own = {(h, r) for h, r, _ in getattr(kg, of).tolist()} | {(t, r + 1) for _, r, t in getattr(kg, of).tolist()}
    every = {query: accepted(split, "1p", query, Limits(None, None, None)) for query in own}
    assert found == {query: list(both) for query, both in every.items() if both}


def test_cheap_conditions_save_work_and_work_on_sorted_keys_too(monkeypatch):
    kg = random_triples(1, entities=40, edges=(120, 1, 2))
    table = split_of(kg, "test")
    monkeypatch.setattr("jaxmodels.reasoning.sets.LARGEST_TABLE", 1)
    searched = split_of(kg, "test")
    assert table.new.dtype == bool and searched.new.dtype != bool
    for name in ("2i", "inp", "pin"):
        drawn = ground(table.big.graph, name, 200, np.random.default_rng(0))
        kept = promising(table, name, drawn)
        assert 0 < len(kept) < 0.9 * len(drawn)
        np.testing.assert_array_equal(kept, promising(searched, name, drawn))


@pytest.mark.parametrize("name", SAMPLED)
def test_a_grounded_query_has_its_seed_as_an_answer_and_no_step_goes_back(name):
    graph = random_graph(2)
    rows = ground(graph, name, 300, np.random.default_rng(0))
    assert 50 < len(rows) <= 300
    if not has(name, "n"):
        assert all(brute_force(graph, name, row) for row in rows[:40])
    for chain in {"2p": [(1, 2)], "3p": [(1, 2), (2, 3)], "pni": [(1, 2)], "pi": [(1, 2)]}.get(name, []):
        assert not (rows[:, chain[0]] == rows[:, chain[1]] ^ 1).any()
    if name == "2i":
        assert (rows[:, :2] != rows[:, 2:]).any(1).all()
    if name == "pni":
        assert (rows[:, 3] == NEGATION).all()


def test_relations_are_drawn_uniformly_not_edges():
    # Entity 0 has five heads under relation 0 and one under relation 2.
    triples = np.array([[h, 0, 0] for h in range(1, 6)] + [[6, 2, 0]])
    graph = build_graph(triples, entities=7, relations=4)
    rows = ground(graph, "1p", 14_000, np.random.default_rng(0))
    counts = collections.Counter(tuple(row) for row in rows.tolist() if row[1] % 2 == 0)
    assert len(counts) == 6 and abs(counts[6, 2] - 1000) < 150  # entity 0 in a seventh, its relation 2 in half of those
    assert all(abs(counts[head, 0] - 200) < 75 for head in range(1, 6))


def test_a_chain_that_can_only_go_back_fails():
    graph = build_graph(np.array([[0, 0, 1]]), entities=2, relations=2)
    assert len(ground(graph, "2p", 50, np.random.default_rng(0))) == 0
    assert len(ground(graph, "1p", 50, np.random.default_rng(0))) == 50
    with pytest.raises(ValueError, match="graph: found no edges"):
        ground(build_graph(np.zeros((0, 3), int), entities=2, relations=2), "1p", 5, np.random.default_rng(0))


@given(st.sampled_from(list(STRUCTURES)), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_fingerprints_tell_queries_apart_as_sorting_does(name, seed):
    rows = random_queries(name, 200, seed) % np.where(random_queries(name, 1)[0] < 0, 100, 3)[None]
    rows = np.where(random_queries(name, 1) < 0, random_queries(name, 1), rows)
    _, first = np.unique(canonical(name, rows), axis=0, return_inverse=True)
    _, second = np.unique(fingerprints(name, rows), return_inverse=True)
    assert len(set(zip(first.ravel().tolist(), second.tolist(), strict=True))) == first.max() + 1 == second.max() + 1


def test_blocks_have_streams_of_their_own():
    split = split_of(random_triples(0), "train")
    a, b, again = (
        block(split, "3p", seed=0, number=n, attempts=50, limits=Limits()).tokens.tolist() for n in (0, 1, 0)
    )
    assert a == again != b
    assert block(split, "3p", seed=1, number=0, attempts=50, limits=Limits()).tokens.tolist() != a
    with pytest.raises(ValueError, match="split 'dev': expected one of train, valid, test"):
        split_of(random_triples(0), "dev")
    assert ENTITIES == 12
