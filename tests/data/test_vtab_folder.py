import shutil

import pytest

from jaxmodels.data.vtab import TASKS
from jaxmodels.data.vtab_folder import vtab_folder_split
from tests.data.pictures import save

TASK = TASKS["eurosat"]


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "vtab-1k" / "eurosat"
    for i in range(6):
        save(folder / f"images/{i} .png", 10 * i)
    lists = {"train800": (0, 1, 2), "val200": (3,), "train800val200": (0, 1, 2, 3), "test": (4, 5)}
    for name, numbers in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"images/{i} .png {i + 4}\n" for i in numbers) + "\n")
    return tmp_path


@pytest.mark.parametrize("inner", ["", "vtab-1k"])
def test_lists_become_images_and_labels(data_dir, inner):
    for split, expected in {
        "train800": [0, 1, 2],
        "val200": [3],
        "train800val200": [0, 1, 2, 3],
        "test": [4, 5],
    }.items():
        source = vtab_folder_split(data_dir / inner, TASK, split)
        assert [int(row["label"]) - 4 for row in source] == expected
        assert [int(row["image"][0, 0, 0]) // 10 for row in source] == expected
        assert source[0]["image"].shape == (10, 12, 3)


def fails(data_dir, match, split="train800", task=TASK):
    with pytest.raises(ValueError, match=match) as error:
        vtab_folder_split(data_dir, task, split)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("images/0 .png", "expected 'path label'"),
        ("3", "expected 'path label'"),
        ("images/0.png -1", "expected 'path label'"),
        ("images/0.png 10", "a label from 0 to 9, found 10"),
        ("../../secret.png 1", "expected an image path below"),
        ("/etc/secret.png 1", "expected an image path below"),
    ],
)
def test_a_bad_line_is_named_with_its_number(data_dir, line, complaint):
    file = data_dir / "vtab-1k/eurosat/train800.txt"
    file.write_text(f"images/1 .png 3\n\n{line}\n")
    fails(data_dir, f"train800.txt:3: .*{complaint}")


def test_missing_things_are_named_with_what_is_there(data_dir):
    fails(data_dir / "nowhere", r"--data_dir: found no folder at .*nowhere; .* holds vtab-1k/")
    fails(data_dir, r"found no folder 'cifar' of cifar100 at .*cifar; .* holds vtab-1k/", task=TASKS["cifar100"])
    folder = data_dir / "vtab-1k/eurosat"
    (folder / "val200.txt").unlink()
    fails(data_dir, r"found no list .*val200.txt; .* holds images/, test.txt", "val200")
    fails(data_dir, "split 'val': expected one of train800", "val")
    shutil.rmtree(folder / "images")
    fails(data_dir, r"test.txt:1: found no image .*; .* holds test.txt", "test")
    (folder / "test.txt").write_text("\n")
    fails(data_dir, "test.txt: .*found no line", "test")
    (folder / "test.txt").write_bytes(b"\xff\xfe\x00")
    fails(data_dir, "test.txt: expected text", "test")
