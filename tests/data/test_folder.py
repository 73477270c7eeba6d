from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.data.folder import _divide, class_folders
from tests.data.pictures import save


def make(root, **counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            save(root / name / f"{i}.png", i)
    return root


def names(entries):
    return [f"{entry.path.parent.name}/{entry.path.stem}:{entry.label}" for entry in entries]


@settings(deadline=None)
@given(st.integers(1, 60), st.floats(0, 0.49), st.floats(0, 0.49), st.text(max_size=3))
def test_each_image_is_in_exactly_one_part_and_training_is_never_empty(count, val_share, test_share, key):
    paths = [Path(f"{i:02}") for i in range(count)]
    train, val, test = _divide(paths, val_share, test_share, key)
    assert sorted(train + val + test) == paths and train
    assert abs(len(test) - test_share * count) <= 1 and abs(len(val) - val_share * count) <= 1


def test_every_class_is_divided_alike(tmp_path):
    found = class_folders(make(tmp_path, cat=10, dog=20), val_share=0.1, test_share=0.3)
    assert found.classes == ("cat", "dog")
    for label, count in ((0, 10), (1, 20)):
        parts = [sum(e.label == label for e in split) for split in (found.train, found.val, found.test)]
        assert parts == [6 * count // 10, count // 10, 3 * count // 10]


def test_the_division_follows_from_seed_and_names_alone(tmp_path):
    first = class_folders(make(tmp_path / "a", cat=10, dog=10))
    again = class_folders(make(tmp_path / "b", ant=10, cat=10, dog=10))
    other = class_folders(tmp_path / "a", seed=1)

    def cats(found):
        return {e.path.name for e in found.test if e.path.parent.name == "cat"}

    assert cats(first) == cats(again)
    assert names(first.test) != names(other.test)


def test_a_single_image_goes_to_training(tmp_path):
    found = class_folders(make(tmp_path, cat=10, rare=1))
    assert "rare/0:1" in names(found.train)
    assert all("rare" not in name for name in names(found.val + found.test))


def test_ready_made_splits_are_kept(tmp_path):
    make(tmp_path / "train", cat=3, dog=2)
    make(tmp_path / "test", dog=2)
    make(tmp_path / "val", cat=1)
    found = class_folders(tmp_path)
    assert names(found.train) == ["cat/0:0", "cat/1:0", "cat/2:0", "dog/0:1", "dog/1:1"]
    assert (names(found.val), names(found.test)) == (["cat/0:0"], ["dog/0:1", "dog/1:1"])


def test_validation_is_cut_from_training_where_it_is_missing(tmp_path):
    make(tmp_path / "train", cat=10, dog=10)
    make(tmp_path / "test", cat=2, dog=2)
    found = class_folders(tmp_path, val_share=0.3)
    assert [len(split) for split in (found.train, found.val, found.test)] == [14, 6, 4]
    assert not set(found.train) & set(found.val)


def fails(root, match, **options):
    with pytest.raises(ValueError, match=match) as error:
        class_folders(root, **options)
    assert "\n" not in str(error.value)


def test_errors_say_what_was_found(tmp_path):
    fails(tmp_path / "nowhere", "--data_dir: found no folder")
    fails(tmp_path, "expected one folder per class in .*, found none; .* holds nothing")
    save(tmp_path / "loose/cat.jpg", 3)
    fails(tmp_path / "loose", "found none, but 1 images that lie in no class folder; .* holds cat.jpg")
    fails(make(tmp_path / "one", cat=3), "at least two class folders in .*, found only 'cat'")
    fails(make(tmp_path / "empty", cat=3, dog=0), r"empty/dog: expected images \(.bmp")
    fails(make(tmp_path / "few", cat=2, dog=2), "too few images per class for val_share=0.2")
    fails(make(tmp_path / "half/train", cat=2, dog=2).parent, "expected both train/ and test/")
    fails(tmp_path / "few", "shares of sum below 1", val_share=0.5, test_share=0.5)


def test_a_class_that_training_lacks_is_named(tmp_path):
    make(tmp_path / "train", cat=3, dog=2)
    make(tmp_path / "test", cats=2, dog=1)
    fails(tmp_path, "test/cats: train/ has no class of that name; did you mean 'cat'")
