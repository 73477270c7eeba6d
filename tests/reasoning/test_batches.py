import numpy as np
import pytest

from jaxmodels.data.query_files import Lists, Queries, empty_lists
from jaxmodels.reasoning.batches import Refreshed, Trained, query_batches, quotas, trained
from jaxmodels.reasoning.graph import Answers
from jaxmodels.reasoning.structures import width

ENTITIES = 9


def some(name, count, seed=0):
    rng = np.random.default_rng(seed)
    tokens = np.arange(count * width(name)).reshape(count, -1)
    lists = [np.sort(rng.permutation(ENTITIES)[: rng.integers(1, 4)]) for _ in range(count)]
    return Trained(tokens, Answers(np.append(0, np.cumsum([len(x) for x in lists])), np.concatenate(lists)))


QUERIES = {"1p": some("1p", 10), "2p": some("2p", 6), "2i": some("2i", 7)}
POOL = {"2p": some("2p", 5, 1), "ip": some("ip", 4, 2)}


def test_a_step_is_path_other_path_with_fixed_counts():
    loader = query_batches(QUERIES, 8, seed=0)
    assert loader.counts() == [{"1p": 5, "2p": 3}, {"2i": 8}, {"1p": 5, "2p": 3}]
    assert query_batches(QUERIES, 8, seed=0, alternate=False).counts() == [{"1p": 4, "2p": 2, "2i": 2}]
    assert query_batches({"2i": QUERIES["2i"]}, 8, seed=0).counts() == [{"2i": 8}]


def test_batches_are_a_function_of_seed_and_step():
    one, two = query_batches(QUERIES, 8, seed=3), query_batches(QUERIES, 8, seed=3)
    two[7]
    for left, right in zip(one[4], two[4], strict=True):
        for name in left:
            for key in left[name]:
                np.testing.assert_array_equal(left[name][key], right[name][key])
    assert not np.array_equal(one[4][1]["2i"]["query"], one[5][1]["2i"]["query"])


def test_each_epoch_visits_every_query_once():
    loader = query_batches({"2i": QUERIES["2i"]}, 7, seed=0)
    for step in range(3):
        assert sorted(loader[step][0]["2i"]["query"][:, 0]) == sorted(QUERIES["2i"].tokens[:, 0])


def test_positives_are_answers_and_weights_count_them():
    rows = query_batches(QUERIES, 8, seed=0, with_answers=ENTITIES)[0][1]["2i"]
    columns = [rows[key] for key in ("query", "positive", "weight", "answers")]
    for query, positive, weight, answers in zip(*columns, strict=True):
        index = np.flatnonzero(QUERIES["2i"].tokens[:, 0] == query[0])[0]
        sets = QUERIES["2i"].answers
        mine = sets.values[sets.starts[index] : sets.starts[index + 1]]
        assert positive in mine and weight == np.float32((len(mine) + 4) ** -0.5)
        assert answers[answers < ENTITIES].tolist() == mine.tolist()


def test_the_pool_takes_its_share_of_the_kinds_it_has():
    loader = query_batches(QUERIES, 8, seed=0, pool=POOL, pool_fraction=0.5)
    assert loader.counts() == [{"1p": 3, "2p": 5}, {"2i": 4, "ip": 4}, {"1p": 3, "2p": 5}]
    assert query_batches(QUERIES, 8, seed=0, pool=POOL, pool_fraction=0.0).counts()[1] == {"2i": 8}
    assert query_batches({"1p": QUERIES["1p"]}, 8, seed=0, pool=POOL).counts()[1] == {"ip": 8}


def test_a_refreshed_pool_changes_its_own_rows_alone():
    made = []

    def make(again):
        made.append(again)
        return query_batches(QUERIES, 8, seed=0, pool={"ip": some("ip", 4 + again, 2 + again)}, pool_fraction=0.5)

    loader, first = (
        Refreshed(make, 3),
        query_batches(QUERIES, 8, seed=0, pool={"ip": some("ip", 4, 2)}, pool_fraction=0.5),
    )
    assert loader.counts() == first.counts()
    for step in (0, 2, 4, 7, 1):
        for turn, (one, two) in enumerate(zip(loader[step], first[step], strict=True)):
            assert one.keys() == two.keys()
            for name in one:
                same = np.array_equal(one[name]["query"], two[name]["query"])
                assert same == (name != "ip" or step < 3), (step, turn, name)
    assert made == [0, 1, 2, 0]


def test_a_pool_without_a_row_is_an_error():
    assert query_batches(QUERIES, 8, seed=0, pool=POOL, pool_fraction=0.1).counts()[1] == {"2i": 7, "ip": 1}
    message = "--pool_fraction: found 0.1 of --batch_size=8, which over 4 devices has no row for diffused 2p, ip"
    with pytest.raises(ValueError, match=message):
        query_batches(QUERIES, 8, seed=0, pool=POOL, pool_fraction=0.1, multiple=4)


def test_devices_and_processes_share_rows():
    loader = query_batches(QUERIES, 8, seed=0, multiple=4)
    assert loader.counts()[0] == {"1p": 4, "2p": 4}
    mine = query_batches(QUERIES, 8, seed=0, multiple=4, rows=lambda n: range(n // 2, n))[2][0]["2p"]["query"]
    np.testing.assert_array_equal(mine, loader[2][0]["2p"]["query"][2:])


def test_queries_without_answers_do_not_train():
    lists = Lists(np.array([0, 2, 2, 3], np.int32), np.array([1, 4, 0], np.int32))
    found = trained({"1p": Queries(np.array([[0, 0], [1, 0], [2, 0]]), empty_lists(3), lists)})["1p"]
    assert found.tokens[:, 0].tolist() == [0, 2] and found.answers.counts.tolist() == [2, 1]
    assert found.answers.values.tolist() == [1, 4, 0]


def test_a_small_batch_is_named():
    with pytest.raises(ValueError, match="found 2 rows for a, b, c, expected a multiple of 1, at least 3"):
        quotas({"a": 1, "b": 1, "c": 1}, 2)
    assert sum(quotas({"a": 1, "b": 500, "c": 499}, 3).values()) == 3
