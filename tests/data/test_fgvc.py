import json

import pytest

from jaxmodels.data.fgvc import SETS, FgvcSet, fgvc_set, fgvc_split
from tests.data.pictures import save

TOY = FgvcSet("toy", "Toy", "toy", 3, (4, 1, 2), "images")
FILES = {
    "train": {"a/1.png": 30, "b/2.png": 7, "c/3.png": "112", "a/4.png": 30},
    "val": {"b/5.png": 7},
    "test": {"a/6.png": 30, "c/7.png": 112},
}


@pytest.fixture
def data_dir(tmp_path):
    for split, table in FILES.items():
        for name in table:
            save(tmp_path / "toy/images" / name, 10 * int(name[2]))
        (tmp_path / "toy" / f"{split}.json").write_text(json.dumps(table))
    return tmp_path


def test_ids_become_contiguous_by_sorting_numbers_not_strings(data_dir):
    found = {split: [int(row["label"]) for row in fgvc_split(data_dir, TOY, split)] for split in FILES}
    assert found == {"train": [1, 0, 2, 1], "val": [0], "test": [1, 2]}  # 7, 30, 112
    assert [int(row["image"][0, 0, 0]) for row in fgvc_split(data_dir, TOY, "test")] == [60, 70]


def fails(data_dir, match, split="train", row=TOY):
    with pytest.raises(ValueError, match=match) as error:
        fgvc_split(data_dir, row, split)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("{", "val.json: expected JSON"),
        ("[1]", "val.json: expected image names -> class ids"),
        ("{}", "val.json: expected image names -> class ids"),
        ('{"x.png": "cat"}', "val.json: 'x.png': expected a class id, found 'cat'"),
        ('{"x.png": true}', "val.json: 'x.png': expected a class id, found True"),
        ('{"x.png": 8}', "val.json: 'x.png' has class 8, which no image of train.json has"),
        ('{"../x.png": 7}', "val.json: expected an image path below"),
        ('{"x.png": 7}', "val.json: found no image .*x.png"),
    ],
)
def test_malformed_tables_are_named(data_dir, text, complaint):
    (data_dir / "toy/val.json").write_text(text)
    fails(data_dir, complaint, "val")


def test_what_is_missing_is_named(data_dir):
    fails(data_dir, "found no folder 'CUB_200_2011' of CUB-200-2011", row=SETS["cub"])
    fails(data_dir, "train.json: expected 4 classes, found 3", row=TOY._replace(num_classes=4))
    fails(data_dir, "split 'dev': expected one of train, val, test", "dev")
    (data_dir / "toy/test.json").unlink()
    fails(data_dir, "--data_dir: found no .*test.json; .*toy holds images/, train.json", "test")
    with pytest.raises(ValueError, match="--tasks=bird: .*it has cub, nabirds"):
        fgvc_set("bird")


def test_the_five_sets():
    assert [row.num_classes for row in SETS.values()] == [200, 555, 102, 120, 196]
    assert sum(SETS["cub"].sizes[:2]) == 5_994
