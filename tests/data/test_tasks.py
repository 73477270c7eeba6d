import json

import numpy as np
import pytest
from PIL import Image

from jaxmodels.data import fgvc
from jaxmodels.data.batches import batches, eval_batches
from jaxmodels.data.images import normalise, resize
from jaxmodels.data.tasks import embedded_tasks, fgvc_tasks, folder_task, vtab1k_tasks
from tests.data.pictures import save


def check_examples(task, size):
    for source in (task.val, task.test) + (() if task.augment else (task.train, task.trainval)):
        row = source[0]
        assert row["image"].shape == (size, size, 3) and row["image"].dtype == np.float32
        assert row["label"].dtype == np.int32 and 0 <= row["label"] < task.num_classes
    assert len(task.trainval) == len(task.train) + len(task.val)


def test_embedded_tasks_are_normalised_examples():
    tasks = embedded_tasks(["shape_count", "digits"])
    assert [(task.name, task.group, task.real) for task in tasks] == [
        ("shape_count", "structured", False),
        ("digits", "natural", True),
    ]
    for task in tasks:
        check_examples(task, 32)
        assert abs(task.train[0]["image"]).max() <= 1
    (larger,) = embedded_tasks(["digits"], image_size=48, normalisation="imagenet")
    check_examples(larger, 48)
    assert larger.train[0]["image"].max() > 2
    np.testing.assert_array_equal(larger.train[0]["label"], tasks[1].train[0]["label"])
    with pytest.raises(ValueError, match="--tasks=tisue"):
        embedded_tasks(["tisue"])


@pytest.fixture
def vtab_dir(tmp_path):
    folder = tmp_path / "vtab-1k/dtd"
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for i in range(9):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)).save(folder / f"images/{i}.png")
    for name, numbers in {"train800": range(5), "val200": (5, 6), "test": (7, 8)}.items():
        (folder / f"{name}.txt").write_text("".join(f"images/{i}.png {i}\n" for i in numbers))
    return tmp_path


@pytest.mark.parametrize("method", ["bicubic", "bilinear", "tf_bilinear"])
@pytest.mark.parametrize("statistics", ["imagenet", "inception"])
def test_vtab_is_resized_directly_and_normalised(vtab_dir, method, statistics):
    options = {"image_size": 12, "resize_method": method, "normalisation": statistics}
    (task,) = vtab1k_tasks(vtab_dir, ["dtd"], **options)
    check_examples(task, 12)
    assert (task.num_classes, task.group, task.augment) == (47, "natural", None)
    assert [int(row["label"]) for row in task.trainval] == list(range(7))
    image = np.asarray(Image.open(vtab_dir / "vtab-1k/dtd/images/7.png"))
    np.testing.assert_array_equal(task.test[0]["image"], normalise(resize(image, 12, method), statistics))


@pytest.mark.parametrize("cache, train_stays, test_stays", [("none", 0, 0), ("disk", 1, 1), ("ram", 1, 1)])
def test_the_cache_keeps_what_it_says(vtab_dir, cache, train_stays, test_stays):
    (task,) = vtab1k_tasks(vtab_dir, ["dtd"], image_size=8, cache=cache)
    expected = task.train[0]["image"].copy()
    assert len(task.test[0]) == 2
    task.train[0]["image"][:] = 0  # a reader may write into what it gets
    for i in range(9):
        (vtab_dir / f"vtab-1k/dtd/images/{i}.png").unlink()
    for source, stays in ((task.train, train_stays), (task.test, test_stays)):
        if stays:
            assert source[0]["image"].shape == (8, 8, 3)
        else:
            with pytest.raises(ValueError, match="no such image file"):
                source[0]
    if train_stays:
        np.testing.assert_array_equal(task.train[0]["image"], expected)
        np.testing.assert_array_equal(task.trainval[0]["image"], expected)


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"reader": "zip"}, "--reader=zip: expected 'folder' or 'tfds'"),
        ({"version": "1.0.0"}, "only --reader=tfds has versions"),
        ({"cache": "train"}, "--cache=train: expected one of ram, disk, none"),
        ({"resize_method": "area"}, "resize 'area'"),
        ({"normalisation": "clip"}, "normalisation 'clip'"),
        ({"image_size": 0}, "image_size=0"),
        ({"names": ["cifar"]}, "found no folder 'cifar' of cifar100"),
    ],
)
def test_wrong_options_fail_before_anything_is_read(vtab_dir, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        vtab1k_tasks(vtab_dir, **{"names": ["dtd"], **options})


@pytest.fixture
def own(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        for i in range(5):
            save(tmp_path / "pets" / name / f"{i}.png", 100 * label + 10 * i, (40, 30))
    return tmp_path / "pets"


@pytest.mark.parametrize("augmentation", ["none", "timm", "vpt"])
def test_own_images_train_and_test(own, augmentation):
    task = folder_task(own, image_size=16, augmentation=augmentation)
    check_examples(task, 16)
    assert (task.name, task.class_names, task.num_classes) == ("pets", ("cat", "dog"), 2)
    assert (len(task.train), len(task.val), len(task.test)) == (6, 2, 2)
    assert (task.augment is None) == (augmentation == "none")
    batch = batches(task.trainval, 8, seed=0, augment=task.augment)[0]
    assert batch["image"].shape == (8, 16, 16, 3) and batch["image"].dtype == np.float32
    assert sorted(batch["label"].tolist()) == [0] * 4 + [1] * 4
    (tested,) = eval_batches(task.test, 4)
    assert tested["mask"].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("augmentation", ["none", "timm"])
@pytest.mark.parametrize("cache, train_stays, test_stays", [("none", 0, 0), ("disk", 1, 1), ("ram", 1, 1)])
def test_the_cache_of_cropped_tasks_keeps_what_it_says(own, cache, train_stays, test_stays, augmentation):
    task = folder_task(own, image_size=16, cache=cache, augmentation=augmentation)
    readers = [(s, train_stays) for s in (task.train, task.val, task.trainval)] + [(task.test, test_stays)]
    for source, _ in readers:
        assert len(source[-1]) == 2
    for path in own.glob("*/*.png"):
        path.unlink()
    for source, stays in readers:
        if stays:
            assert source[-1]["image"].ndim == 3
        else:
            with pytest.raises(ValueError, match="no such image file"):
                source[-1]


def test_augmentation_changes_training_only(own):
    augmented, plain = (folder_task(own, image_size=16, augmentation=name) for name in ("timm", "none"))
    np.testing.assert_array_equal(augmented.test[1]["image"], plain.test[1]["image"])
    first, second = (batches(augmented.train, 6, seed=0, augment=augmented.augment)[step] for step in (0, 1))
    assert abs(np.sort(first["image"].mean((1, 2, 3))) - np.sort(second["image"].mean((1, 2, 3)))).max() > 1e-3
    with pytest.raises(ValueError, match="augmentation 'mixup': expected one of timm, vpt, none"):
        folder_task(own, augmentation="mixup")


def test_fine_grained_sets(own, monkeypatch):
    root = own.parent
    monkeypatch.setitem(fgvc.SETS, "toy", fgvc.FgvcSet("toy", "Toy", "pets", 2, (4, 2, 4), ""))
    for split, numbers in {"train": (0, 1), "val": (2,), "test": (3, 4)}.items():
        table = {f"{name}/{i}.png": 5 + label for i in numbers for label, name in enumerate(("cat", "dog"))}
        (own / f"{split}.json").write_text(json.dumps(table))
    (task,) = fgvc_tasks(root, ["toy"], image_size=16, cache="ram")
    check_examples(task, 16)
    assert (task.group, task.description, len(task.trainval)) == ("fgvc", "Toy", 6)
    assert batches(task.trainval, 6, seed=0, augment=task.augment)[0]["image"].shape == (6, 16, 16, 3)
