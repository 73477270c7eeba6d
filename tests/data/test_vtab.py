import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.vtab import (
    GROUPS,
    TASKS,
    clevr_count_label,
    clevr_distance_label,
    dsprites_label,
    kitti_label,
    vtab_task,
)

# Sizes of the TFDS splits behind the published numbers, and where the benchmark cuts val200 and test.
SIZES = {
    "cifar100": {"train": 50_000, "test": 10_000},
    "caltech101": {"train": 3_060, "test": 6_084},
    "dtd": {"train": 1_880, "validation": 1_880, "test": 1_880},
    "oxford_flowers102": {"train": 1_020, "validation": 1_020, "test": 6_149},
    "oxford_iiit_pet": {"train": 3_680, "test": 3_669},
    "svhn": {"train": 73_257, "test": 26_032},
    "sun397": {"train": 76_128, "validation": 10_875, "test": 21_750},
    "patch_camelyon": {"train": 262_144, "validation": 32_768, "test": 32_768},
    "eurosat": {"train": 27_000},
    "resisc45": {"train": 31_500},
    "diabetic_retinopathy": {"train": 35_126, "validation": 10_906, "test": 42_670},
    "clevr_count": {"train": 70_000, "validation": 15_000, "test": 15_000},
    "clevr_dist": {"train": 70_000, "validation": 15_000, "test": 15_000},
    "dmlab": {"train": 65_550, "validation": 22_628, "test": 22_735},
    "kitti": {"train": 6_347, "validation": 423, "test": 711},
    "dsprites_loc": {"train": 737_280},
    "dsprites_ori": {"train": 737_280},
    "smallnorb_azi": {"train": 24_300, "test": 24_300},
    "smallnorb_ele": {"train": 24_300, "test": 24_300},
}
VAL_STARTS = {
    "cifar100": 45_000, "caltech101": 2_754, "oxford_iiit_pet": 2_944, "svhn": 65_931, "eurosat": 16_200,
    "resisc45": 18_900, "clevr_count": 63_000, "clevr_dist": 63_000, "dsprites_loc": 589_824, "dsprites_ori": 589_824,
}  # fmt: skip
TEST_CUTS = {
    "eurosat": ("train", 21_600, 27_000), "resisc45": ("train", 25_200, 31_500),
    "clevr_count": ("validation", 0, 15_000), "clevr_dist": ("validation", 0, 15_000),
    "dsprites_loc": ("train", 663_552, 737_280), "dsprites_ori": ("train", 663_552, 737_280),
    "smallnorb_azi": ("test", 12_150, 24_300), "smallnorb_ele": ("test", 12_150, 24_300),
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_splits_are_those_of_the_benchmark(name):
    task, sizes = TASKS[name], SIZES[name]
    (train,), (val,), (test,) = (task.cuts(split, sizes) for split in ("train800", "val200", "test"))
    assert train == ("train", 0, 800)
    assert val[1] == VAL_STARTS.get(name, 0) and val[2] - val[1] == 200
    assert val[0] == ("train" if name in VAL_STARTS else "test" if "norb" in name else "validation")
    assert test == TEST_CUTS.get(name, ("test", 0, sizes.get("test")))
    assert test[2] - test[1] == task.test_size
    assert task.cuts("train800val200", sizes) == [train, val]


def test_a_caltech_build_of_another_size_moves_the_cut():
    assert TASKS["caltech101"].cuts("val200", {"train": 3059, "test": 6084}) == [("train", 2753, 2953)]


def test_groups_have_seven_four_and_eight_tasks():
    assert [sum(task.group == group for task in TASKS.values()) for group in GROUPS] == [7, 4, 8]
    assert sum(task.test_size for task in TASKS.values()) == 387_904


def test_an_unknown_task_names_the_nearest_and_folders_are_names_too():
    assert vtab_task("cifar") is vtab_task("cifar100")
    with pytest.raises(ValueError, match="--tasks=clevr_cont: .*did you mean 'clevr_count'"):
        vtab_task("clevr_cont")
    with pytest.raises(ValueError, match="split 'validation': expected one of train800"):
        vtab_task("dtd").cuts("validation", {})


def slow_bin(thresholds, value):
    best = -1
    for i, threshold in enumerate(thresholds):
        if threshold < value:
            best = i
    return best


@given(st.lists(st.sampled_from([0.5, 8.0, 8.25, 8.5, 9.0, 9.2, 9.5, 9.99, 10.0, 42.0]), min_size=1))
def test_clevr_distance_against_a_loop(depths):
    coordinates = [[3.0, 99.0, depth] for depth in depths]
    assert clevr_distance_label(coordinates) == slow_bin([0, 8, 8.5, 9, 9.5, 10, 100], min(depths))


@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from([-2.0, 8.0, 8.1, 20.0, 20.5, 998.0, 999.5, 2000.0]))))
def test_kitti_against_a_loop(objects):
    depth = 1000.0
    for kind, z in objects:
        if kind < 3:
            depth = min(depth, z)
    types, depths = np.asarray([o[0] for o in objects], int), np.asarray([o[1] for o in objects])
    assert kitti_label(types, depths) == slow_bin([-100, 8, 20, 999], depth)


@given(st.sampled_from([16, 32, 40, 100]), st.data())
def test_dsprites_bins_against_division(values, data):
    attribute = data.draw(st.integers(0, values - 1))
    assert dsprites_label(attribute, values) == int(np.floor(attribute / (values / 16))) < 16


def test_clevr_counts_from_three():
    assert [clevr_count_label(n) for n in range(3, 11)] == list(range(8))
