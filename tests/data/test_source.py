import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.source import Source, array_source, concat, mapped, subset


def values(source):
    return [int(row["x"]) for row in source]


@given(st.lists(st.integers(0, 9), max_size=30), st.data())
def test_sources_behave_as_the_lists_they_stand_for(xs, data):
    cut = data.draw(st.integers(0, len(xs)))
    whole = concat([array_source({"x": np.asarray(part, int)}) for part in (xs[:cut], [], xs[cut:])])
    chosen = data.draw(st.lists(st.integers(0, len(xs) - 1), max_size=9)) if xs else []
    assert values(whole) == xs
    assert values(subset(whole, chosen)) == [xs[i] for i in chosen]
    assert values(mapped(whole, lambda row: {"x": 2 * row["x"]})) == [2 * x for x in xs]
    if xs:
        assert whole[-1]["x"] == xs[-1]
        with pytest.raises(IndexError):
            whole[len(xs)]


def test_anything_with_length_and_index_is_a_source():
    assert isinstance([{"x": 1}], Source)
    assert values(concat([[{"x": 1}], array_source({"x": [2]})])) == [1, 2]


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"one common length, found \{'x': 2, 'y': 3\}"):
        array_source({"x": [1, 2], "y": [1, 2, 3]})


def test_subset_refuses_indices_outside():
    with pytest.raises(ValueError, match=r"indices in \[0, 2\), found 0..2"):
        subset(array_source({"x": [1, 2]}), [0, 2])
