"""Readers and splits of interactions."""

import numpy as np
import pytest

from jaxmodels.data.interactions import of_lists, read_users, split_interactions


def written(tmp_path, text):
    path = tmp_path / "users.dat"
    path.write_text(text)
    return path


def test_short_users_are_dropped_and_the_others_called_by_their_lines(tmp_path):
    data, users, items, _ = read_users(written(tmp_path, "5 4 3 2 1 0\n2 7 9\n\n5 6 0 1 2 3\n"))
    assert users.tolist() == [0, 3] and items is None
    assert data.num_users == 2 and data.num_items == 7
    assert data.items.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 6] and data.users.tolist() == [0] * 5 + [1] * 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3 1 2\n", r"users.dat:1: expected n and then n item ids"),
        ("1 0\n2 x 1\n", r"users.dat:2: expected n and then n item ids"),
        ("5 1 1 2 3 4\n", "users.dat:1: an item is listed twice"),
        ("1 99999999999999999999\n", "users.dat:1: found item 99999999999999999999, expected ids from 0 to 2147483646"),
        ("1 0\n", "no user has 5 items or more"),
    ],
)
def test_wrong_lines_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_users(written(tmp_path, text))


def test_a_split_divides_each_user_without_overlap():
    random = np.random.default_rng(0)
    data = of_lists([random.choice(50, size, replace=False) for size in (5, 9, 20, 31)], 50)
    parts = split_interactions(data, seed=3)
    assert [np.diff(part.starts).tolist() for part in parts] == [[3, 5, 12, 18], [1, 1, 4, 6], [1, 3, 4, 7]]
    pairs = np.concatenate([part.users * 50 + part.items for part in parts])
    assert sorted(pairs) == (data.users * 50 + data.items).tolist()
    again = split_interactions(data, seed=4)
    assert parts.train.items.tolist() != again.train.items.tolist()
    with pytest.raises(ValueError, match="shares: found"):
        split_interactions(data, shares=(0.9, 0.2))
