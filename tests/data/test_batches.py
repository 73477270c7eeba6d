import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.data.batches import batches, eval_batches, stack, steps_per_epoch
from jaxmodels.data.source import array_source


def numbers(n):
    return array_source({"x": np.arange(n)})


def jitter(example, rng):
    return {"x": example["x"], "noise": rng.random()}


sizes = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@settings(deadline=None, max_examples=40)
@given(sizes, st.integers(0, 2**31), st.integers(0, 5), st.sampled_from(["drop", "pad"]))
def test_each_example_at_most_once_per_epoch_and_with_pad_exactly_once(size, seed, epoch, remainder):
    n, batch_size = size
    steps = steps_per_epoch(n, batch_size, remainder=remainder)
    data = batches(numbers(n), batch_size, seed=seed, remainder=remainder)
    rows = [data[epoch * steps + step] for step in range(steps)]
    assert all(row["x"].shape == (batch_size,) for row in rows)
    seen = np.concatenate([row["x"][row["mask"] > 0] if remainder == "pad" else row["x"] for row in rows])
    assert len(set(seen.tolist())) == len(seen) == (n if remainder == "pad" else steps * batch_size)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 9), st.sampled_from(["drop", "pad"]))
def test_slices_of_the_hosts_concatenate_to_the_global_batch(hosts, local, step, remainder):
    source, options = numbers(23), {"seed": 3, "augment": jitter, "remainder": remainder}
    whole = batches(source, hosts * local, **options)[step]
    parts = [
        batches(source, hosts * local, **options, rows=range(i * local, (i + 1) * local))[step] for i in range(hosts)
    ]
    for name in whole:
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])


def test_a_batch_is_a_function_of_seed_and_step():
    def make():
        return batches(numbers(17), 4, seed=5, augment=jitter)

    straight = [make()[step] for step in range(12)]
    data = make()
    for step in (11, 0, 7, 7, 3):
        np.testing.assert_array_equal(data[step]["x"], straight[step]["x"])
        np.testing.assert_array_equal(data[step]["noise"], straight[step]["noise"])


def test_epochs_and_seeds_differ_and_no_seed_is_another_one_shifted():
    def orders(seed):
        data = batches(numbers(30), 30, seed=seed)
        return [tuple(data[epoch]["x"]) for epoch in range(5)]

    assert len({*orders(0), *orders(1), *orders(2)}) == 15


def test_augmentation_is_fresh_for_every_example_and_epoch():
    data = batches(numbers(8), 4, seed=0, augment=jitter)
    noise = np.concatenate([data[step]["noise"] for step in range(6)])
    assert len(set(noise.tolist())) == 24


def test_a_host_reads_only_its_own_rows():
    read = []

    class Watched(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    source = Watched({"x": np.int64(i)} for i in range(12))
    part = batches(source, 6, seed=0, rows=(4, 1))[0]
    assert read == part["x"].tolist() and len(read) == 2


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_must_fit_the_data(batch_size):
    with pytest.raises(ValueError, match=f"--batch_size={batch_size}: expected 1 to 10"):
        batches(numbers(10), batch_size, seed=0)


@pytest.mark.parametrize("rows", [(), (4,), (-1, 0)])
def test_rows_must_be_in_the_batch(rows):
    with pytest.raises(ValueError, match="rows: found .*, expected at least one of 0 to 3"):
        batches(numbers(10), 4, seed=0, rows=rows)
    with pytest.raises(ValueError, match="rows: found"):
        next(eval_batches(numbers(10), 4, rows=rows))


def test_an_unknown_remainder_is_refused():
    with pytest.raises(ValueError, match="remainder='keep': expected 'drop' or 'pad'"):
        batches(numbers(4), 2, seed=0, remainder="keep")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 30), st.integers(1, 3), st.integers(1, 8))
def test_evaluation_sees_everything_once_in_order(n, hosts, local):
    mine = [range(i * local, (i + 1) * local) for i in range(hosts)]
    parts = [list(eval_batches(numbers(n), hosts * local, rows=rows)) for rows in mine]
    assert {len(part) for part in parts} == {-(-n // (hosts * local))}
    rows = list(itertools.chain.from_iterable(zip(*parts, strict=True)))
    assert all(row["x"].shape == row["mask"].shape == (local,) for row in rows)
    seen = [x for row in rows for x, mask in zip(row["x"], row["mask"], strict=True) if mask]
    assert seen == list(range(n))


def test_stack_nests_and_names_what_does_not_fit():
    nested = stack([{"a": {"b": np.zeros(2)}, "c": 1}, {"a": {"b": np.ones(2)}, "c": 2}])
    assert nested["a"]["b"].shape == (2, 2) and nested["c"].tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"'image': one batch needs one shape, found \(2, 3\) and \(4, 3\)"):
        stack([{"image": np.zeros((4, 3))}, {"image": np.zeros((2, 3))}])
