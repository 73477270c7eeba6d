import numpy as np
import pytest
import scipy.sparse

from jaxmodels.data.graph_checks import (
    checked_classes,
    checked_features,
    checked_split,
    found_file,
    split_of_masks,
    tidy_edges,
)
from jaxmodels.data.graph_files import random_split, stratified_folds


def test_a_random_split_takes_validation_then_test_from_one_permutation():
    split = random_split(23, seed=3)
    order = np.random.default_rng(3).permutation(23)
    assert split.val.tolist() == order[:4].tolist()
    assert split.test.tolist() == order[4:8].tolist()
    assert split.train.tolist() == order[8:].tolist()
    assert random_split(23, seed=4).val.tolist() != split.val.tolist()
    assert len(random_split(20, 0, share=0.1).test) == 2
    for share in (0.0, 0.5):
        with pytest.raises(ValueError, match="share=.*expected one between 0 and 0.5"):
            random_split(10, 0, share=share)


def test_stratified_folds_test_everything_once_with_the_classes_in_balance():
    labels = np.repeat([0, 1, 2], [20, 30, 10])
    splits = stratified_folds(labels, folds=5)
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(60))
    for split in splits:
        assert np.bincount(labels[split.test]).tolist() == [4, 6, 2]
        assert sorted([*split.train, *split.test]) == list(range(60)) and not len(split.val)
    again, other = stratified_folds(labels, folds=5), stratified_folds(labels, folds=5, seed=1)
    assert all((a.test == b.test).all() for a, b in zip(splits, again, strict=True))
    assert any((a.test != b.test).any() for a, b in zip(splits, other, strict=True))
    with pytest.raises(ValueError, match="folds=11: expected 2 to 10, the size of the smallest class"):
        stratified_folds(labels, folds=11)


def edges(senders, receivers, reverse=False, loops=True, features=None):
    out, into, of = tidy_edges(senders, receivers, 4, "edges.txt", reverse=reverse, loops=loops, features=features)
    assert out.dtype == into.dtype == np.int32
    return list(zip(out.tolist(), into.tolist(), strict=True)), of


def test_edges_are_sorted_distinct_and_as_directed_as_asked():
    pairs = [3, 0, 0, 2], [1, 2, 2, 2]
    assert edges(*pairs)[0] == [(0, 2), (2, 2), (3, 1)]
    assert edges(*pairs, loops=False)[0] == [(0, 2), (3, 1)]
    assert edges(*pairs, reverse=True)[0] == [(0, 2), (1, 3), (2, 0), (2, 2), (3, 1)]
    features = np.array([[1.0], [2], [3], [4]])
    found, of = edges(*pairs, reverse=True, loops=False, features=features)
    assert found == [(0, 2), (1, 3), (2, 0), (3, 1)] and of[:, 0].tolist() == [2, 1, 2, 1]
    assert edges([], [], reverse=True) == ([], None)
    with pytest.raises(ValueError, match=r"edges.txt: edge 1 is \(0, 4\); expected nodes 0 to 3"):
        edges([0, 0], [1, 4])
    with pytest.raises(ValueError, match=r"edge 0 is \(-1, 1\)"):
        edges([-1, 0], [1, 2])


@pytest.mark.parametrize(
    "parts, complaint",
    [
        (([0, 1], [2], [1]), "train and test share 1 indices, the first is 1"),
        (([0, 1], [1, 2], [3]), "train and val share 1"),
        (([0], [3], [2, 3]), "val and test share 1"),
        (([0, 4], [1], [2]), "train index 4; expected 0 to 3"),
        (([0], [-1], [2]), "val index -1"),
        (([0], [1], [2, 2]), "test lists an index twice"),
        (([], [1], [2]), "nothing to train on"),
    ],
)
def test_a_split_that_is_none_is_refused(parts, complaint):
    with pytest.raises(ValueError, match=f"here: {complaint}"):
        checked_split(*parts, num=4, where="here")


def test_masks_become_indices():
    masks = [np.array(mask, np.uint8) for mask in ([1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0])]
    assert [part.tolist() for part in split_of_masks(*masks, num=4, where="here")] == [[0, 3], [1], []]
    for wrong in (masks[0][:3], masks[0] * 2, masks[0] * 0.5):
        with pytest.raises(ValueError, match=r"here: expected a val mask \(4,\) of 0 and 1"):
            split_of_masks(masks[0], wrong, masks[2], num=4, where="here")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [np.array, scipy.sparse.csr_matrix])
def test_features_that_are_not_finite_are_named_by_row(kind, bad):
    x = np.array([[1.0, 0], [0, 2], [0, 0], [3, 4]])
    assert checked_features(kind(x), "x.npz").dtype == np.float32
    x[3, 0] = bad
    with pytest.raises(ValueError, match="x.npz: features of row 3 hold NaN or infinity"):
        checked_features(kind(x), "x.npz")


def test_classes_are_whole_numbers_from_0():
    assert checked_classes([0, 2, 0], 3, "y")[1] == 3
    for labels, complaint in (
        ([0, -2, 1], "row 1 has label -2"),
        ([0, 1], r"expected \(3,\) integer labels, found int64 \(2,\)"),
        ([0.0, 1, 2], "integer labels, found float64"),
    ):
        with pytest.raises(ValueError, match=f"y: .*{complaint}"):
            checked_classes(np.array(labels), 3, "y")
    with pytest.raises(ValueError, match="at least one node"):
        checked_classes(np.zeros(0, int), 0, "y")


def test_a_missing_file_is_named_with_what_is_there(tmp_path):
    with pytest.raises(ValueError, match=r"expected a.txt or a.txt.gz \(triples\), found nothing"):
        found_file(tmp_path, ["a.txt", "a.txt.gz"], "triples")
    for i in range(9):
        (tmp_path / f"b{i}").touch()
    with pytest.raises(ValueError, match=r"found b0, b1, .*b5, \.\.\. \(9 entries\)"):
        found_file(tmp_path, ["a.txt"], "triples")
    with pytest.raises(ValueError, match="found no such folder"):
        found_file(tmp_path / "none", ["a.txt"], "triples")
