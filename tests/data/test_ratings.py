"""Readers of rating tables: layouts, conversion, what is wrong in a file, and the other splits."""

import gzip

import numpy as np
import pytest
import scipy.sparse

from jaxmodels.data.interaction_splits import read_matrices, split_latest
from jaxmodels.data.interactions import of_lists
from jaxmodels.data.interests import latent_interests
from jaxmodels.data.ratings import listed, read_ratings

ROWS = [(u, i, 1 + (u * i) % 5, 100 * u + i) for u in (3, 7) for i in (2, 4, 9, 11, 30, 31)]


def written(tmp_path, separator, header="", name="ratings.dat", columns=4):
    lines = ([header] if header else []) + [separator.join(map(str, row[:columns])) for row in ROWS]
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("separator", "header"),
    [("::", ""), ("\t", ""), (",", ""), (" ", ""), (";", ""), (",", "userId,movieId,rating,timestamp"),
     ("\t", "user_id:token\titem_id:token\trating:float\ttimestamp:float")],
)  # fmt: skip
def test_every_layout_reads_the_same(tmp_path, separator, header):
    found = read_ratings(written(tmp_path, separator, header))
    expected = np.array(ROWS)
    for values, column in zip(found, expected.T, strict=True):
        np.testing.assert_array_equal(values, column)


def test_columns_stand_where_the_header_says_and_ids_may_be_words(tmp_path):
    path = tmp_path / "mine.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("rating,Item ID,user\n5,tea,ann\n1,jam,ann\n4,tea,bob\n")
    found = read_ratings(path)
    assert found.users.tolist() == ["ann", "ann", "bob"] and found.items.tolist() == ["tea", "jam", "tea"]
    assert found.ratings.tolist() == [5, 1, 4] and found.times is None
    data = listed(found, fewest=1)
    assert data.items.tolist() == ["jam", "tea"] and data.users.tolist() == ["ann", "bob"]
    assert data.data.items.tolist() == [0, 1, 1] and data.data.starts.tolist() == [0, 2, 3]


def test_cells_may_be_quoted(tmp_path):
    path = tmp_path / "quoted.csv"
    path.write_text('user,item,rating\n0,"Film 3, 1903",4\n0,"The ""end""",2\n"7", Tea ,5\n')
    found = read_ratings(path)
    assert found.items.tolist() == ["Film 3, 1903", 'The "end"', "Tea"] and found.users.tolist() == [0, 0, 7]
    path.write_text('"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276726";"a, b, c; d";"5"\n')
    found = read_ratings(path)
    assert found.users.tolist() == [276725, 276726] and found.ratings.tolist() == [0, 5]
    assert found.items.tolist() == ["034545104X", "a, b, c; d"]


def test_movielens_keeps_good_ratings_and_raw_item_numbers(tmp_path):
    found = listed(read_ratings(written(tmp_path, "::")), least=4.0, fewest=2, raw_items=True)
    kept = [(u, i) for u, i, rating, _ in ROWS if rating >= 4]
    assert found.users.tolist() == [3, 7] and found.data.num_items == max(i for _, i in kept) + 1
    assert [(int(found.users[u]), int(i)) for u, i in zip(found.data.users, found.data.items, strict=True)] == kept
    assert found.items is None and found.times.tolist() == [t for *_, rating, t in ROWS if rating >= 4]
    dense = listed(read_ratings(written(tmp_path, "::")), least=4.0, fewest=2)
    assert dense.data.num_items == len({i for _, i in kept}) and dense.items[dense.data.items].tolist() == [
        i for _, i in kept
    ]


def test_of_a_pair_that_is_rated_twice_the_newest_row_counts(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("user,item,rating,time\n1,5,5,10\n1,5,2,90\n1,6,1,10\n1,6,4,20\n1,6,5,15\n")
    found = listed(read_ratings(path), least=4.0, fewest=1)
    assert found.items.tolist() == [6] and found.times.tolist() == [20.0]
    path.write_text("1 5 5\n1 5 2\n1 6 4\n")  # without times the last row
    assert listed(read_ratings(path), least=4.0, fewest=1).items.tolist() == [6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, expected rows of user, item"),
        ("user,item\n", "holds a header and no row"),
        ("1\n2\n", ":1: found one column, expected user, item"),
        ("1,2\n3\n", r":2: expected user, item, found '3'"),
        ("1,2,5\n1,3,nan\n", ":2: rating is 'nan', expected a number"),
        ("1,2,5\n1,3,inf\n", ":2: rating is 'inf', expected a number"),
        ("1,2,5\n1,3,good\n", ":2: rating is 'good', expected a number"),
        ("user,rating\n1,2\n", "found columns user, rating, expected one named 'item'"),
        ("user,itm,rating\n1,2,3\n", "expected one named 'item'; did you mean 'item'"),
        ("user,item\n1,\n", ":2: expected user, item, found '1,'"),
        ("user,item,rating\n0,Film 3, 1903,4\n", ":2: found 4 cells, expected 3: '0,Film 3, 1903,4'"),
        ("1,2,5\n1,3,5,6\n", ":2: found 4 cells, expected 3"),
        ('1,2,5\n1,"3,5\n', ":2: unexpected end of data: "),
        ("1;2;3,5\n", ":1: rating is '3,5', expected a number"),
    ],
)
def test_wrong_files_are_named(tmp_path, text, message):
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"wrong.csv.*{message}"):
        read_ratings(path)


def test_what_cannot_be_converted_is_named(tmp_path):
    found = read_ratings(written(tmp_path, ",", columns=2))
    with pytest.raises(
        ValueError, match="mine: found no column of ratings, expected one: rows count from a rating of 4"
    ):
        listed(found, least=4.0, name="mine")
    with pytest.raises(ValueError, match="mine: no user has 9 items or more"):
        listed(found, fewest=9, name="mine")
    far = found._replace(items=found.items + 2**31)
    with pytest.raises(ValueError, match="data: found item 2147483650, expected ids from 0 to 2147483646"):
        listed(far, raw_items=True)
    with pytest.raises(ValueError, match="data: no user has 7 items or more with ratings from 3"):
        listed(read_ratings(written(tmp_path, "::")), least=3.0, fewest=7)
    words = found._replace(items=np.array([f"i{i}" for i in found.items]))
    with pytest.raises(ValueError, match="expected item ids that are numbers from 0"):
        listed(words, raw_items=True)


def test_the_newest_items_are_the_test():
    data = of_lists([np.arange(10), np.arange(5)], 10)
    times = np.concatenate([np.arange(10)[::-1], np.zeros(5)])
    parts = split_latest(data, times)
    assert [part.items[: part.starts[1]].tolist() for part in parts] == [[4, 5, 6, 7, 8, 9], [2, 3], [0, 1]]
    assert [part.items[part.starts[1] :].tolist() for part in parts] == [[0, 1, 2], [3], [4]]
    with pytest.raises(ValueError, match="shares"):
        split_latest(data, times, shares=(0.9, 0.3))


def test_matrices_are_read_as_they_are(tmp_path):
    dense = np.random.default_rng(0).permutation(60).reshape(6, 10)
    for part, low in (("train", 0), ("val", 20), ("test", 30)):
        wanted = (dense >= low) & (dense < low + (20 if low == 0 else 10))
        scipy.sparse.save_npz(tmp_path / f"user_{part}_matrix.npz", scipy.sparse.coo_matrix(wanted.astype(float)))
    parts = read_matrices(tmp_path)
    assert (parts.train.num_users, parts.train.num_items) == (6, 10)
    assert set(zip(parts.val.users, parts.val.items, strict=True)) == set(
        zip(*np.nonzero((dense >= 20) & (dense < 30)), strict=True)
    )
    twice = scipy.sparse.coo_matrix(((dense >= 25) & (dense < 40)).astype(float))
    scipy.sparse.save_npz(tmp_path / "user_test_matrix.npz", twice)
    with pytest.raises(ValueError, match="in two of the matrices"):
        read_matrices(tmp_path)
    (tmp_path / "user_val_matrix.npz").unlink()
    with pytest.raises(ValueError, match="user_val_matrix.npz: found no such file"):
        read_matrices(tmp_path)


def test_synthetic_users_have_the_interests_that_are_said():
    made = latent_interests(60, 120, kinds=8, fewest=12, most=20, seed=3)
    assert made.data.num_users == 60 and made.data.num_items == 120
    counts = np.diff(made.data.starts)
    assert counts.min() >= 12 and counts.max() <= 20
    np.testing.assert_allclose(made.held.sum(1), 1)
    inside = made.held[made.data.users, made.kinds[made.data.items]] > 0
    assert inside.mean() > 0.8 and ((made.held > 0).sum(1) > 1).mean() > 0.5
    again = latent_interests(60, 120, kinds=8, fewest=12, most=20, seed=3)
    assert again.data.items.tolist() == made.data.items.tolist()
    with pytest.raises(ValueError, match="expected fewer items"):
        latent_interests(5, 10, fewest=15)
