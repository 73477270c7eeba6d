import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.vtab_metric import summarise, top1_percent


@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=9), st.data())
def test_top1_against_a_loop_with_ties(logits, data):
    labels = data.draw(st.lists(st.integers(0, 2), min_size=len(logits), max_size=len(logits)))
    right = sum(row.index(max(row)) == label for row, label in zip(logits, labels, strict=True))
    assert top1_percent(logits, labels) == pytest.approx(100 * right / len(labels))


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from("abc")), min_size=1, max_size=20))
def test_means_against_loops(rows):
    accuracies, groups = [r[0] for r in rows], [r[1] for r in rows]
    found = summarise(accuracies, groups)
    means = {g: np.mean([a for a, b in rows if b == g]) for g in groups}
    assert found.groups == pytest.approx(means) and list(found.groups) == list(dict.fromkeys(groups))
    assert found.mean_of_groups == pytest.approx(sum(means.values()) / len(means))
    assert found.mean_of_tasks == pytest.approx(sum(accuracies) / len(accuracies))


def test_names_are_matched_not_positions():
    assert summarise({"b": 10.0}, {"a": "x", "b": "y"}).groups == {"y": 10.0}
    with pytest.raises(ValueError, match="no group is known for c"):
        summarise({"c": 1.0}, {"a": "x"})
    with pytest.raises(ValueError, match="one figure per task, found 1 for 2"):
        summarise([1.0], ["x", "y"])
