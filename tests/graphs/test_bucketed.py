"""Batches in a few sizes: every graph once an epoch, little padding, the same batch for the same step."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.graphs.bucketed import Bucketed, least_bounds
from tests.graphs.tiny import random_graph

SIZES = [3, 9, 0, 25, 4, 4, 7, 12, 5, 5, 6, 40, 3, 3, 8, 10]
GRAPHS = [random_graph(seed, nodes=n, edges=3 * n) for seed, n in enumerate(SIZES)]
LABELS = np.arange(len(GRAPHS))


def bucketed(**options):
    given = dict(batch_size=4, epochs=3, seed=1, others=(np.array([11, 3]),))
    return Bucketed(GRAPHS, LABELS, np.arange(14), **(given | options))


def shapes(batch):
    return {name: value.shape for name, value in batch.items()}


def test_an_epoch_has_every_graph_once_in_an_order_of_its_own():
    batches = bucketed()
    assert batches.per_epoch == 4
    orders = []
    for epoch in range(3):
        found = [batches[4 * epoch + part] for part in range(4)]
        orders.append(np.concatenate([b["label"][b["mask"] > 0] for b in found]).tolist())
        assert sorted(orders[-1]) == list(range(14))
        for batch in found:
            members = batch["label"][batch["mask"] > 0]
            assert batch["n_node"][: len(members)].tolist() == [SIZES[i] for i in members]
            assert batch["n_node"].sum() == len(batch["nodes"]) and batch["n_edge"].sum() == len(batch["senders"])
    assert len(set(map(tuple, orders))) == 3


def test_a_batch_is_a_function_of_the_step_and_the_seed():
    one, other = bucketed(), bucketed()
    other[11], other[2]
    for name, value in one[7].items():
        np.testing.assert_array_equal(value, other[7][name])
    assert bucketed(seed=2)[7]["label"].tolist() != one[7]["label"].tolist()


@pytest.mark.parametrize("buckets", [1, 2, 3])
def test_there_are_no_more_shapes_than_buckets(buckets):
    batches = bucketed(buckets=buckets)
    every = [batches[step] for step in range(12)] + batches.inorder(np.array([11, 3]))
    assert len({tuple(shapes(batch).items()) for batch in every}) <= len(batches.sizes) <= buckets


def test_more_buckets_pad_less():
    padding = [bucketed(buckets=buckets).padding for buckets in (1, 3)]
    assert 0 < padding[1] < padding[0] < 1
    batches = bucketed(buckets=3, others=())
    rows = [batches[step] for step in range(12)]
    real = sum(batch["n_node"][: int(batch["mask"].sum())].sum() for batch in rows)
    assert batches.padding == pytest.approx(1 - real / sum(len(batch["nodes"]) for batch in rows))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 4))
def test_bounds_are_the_best_there_are(loads, buckets):
    def total(bounds):
        return sum(min(bound for bound in bounds if bound >= load) for load in loads)

    found = least_bounds(np.array(loads, float), buckets).tolist()
    assert len(found) <= buckets and found[-1] == max(loads)
    others = itertools.combinations_with_replacement(loads, buckets - 1)
    assert total(found) == min(total((*other, max(loads))) for other in others)


def test_outputs_come_back_in_the_order_asked_for():
    (batch,) = bucketed().inorder(np.array([11, 3]))
    assert batch["label"][batch["mask"] > 0].tolist() == [11, 3]


def test_rows_can_be_shared_by_devices():
    batch = bucketed(shards=3)[0]
    assert all(shape[0] % 3 == 0 for shape in shapes(batch).values())


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="found none to train on"):
        Bucketed(GRAPHS, LABELS, np.array([], int), batch_size=4, epochs=1)
    with pytest.raises(ValueError, match="batch_size 0, buckets 3: expected at least 1"):
        bucketed(batch_size=0)


def test_folds_and_seeds_share_their_sizes():
    folds = [np.setdiff1d(np.arange(len(GRAPHS)), [i, i + 1]) for i in (0, 4, 8)]
    found = {
        tuple(Bucketed(GRAPHS, LABELS, fold, batch_size=4, epochs=3, seed=s).sizes) for fold in folds for s in (0, 1)
    }
    assert len(found) == 1
