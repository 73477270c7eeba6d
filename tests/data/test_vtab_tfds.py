"""Tiny data sets in TFDS's format, prepared without TensorFlow (images are handed over as encoded PNG files)."""

import io
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from jaxmodels.data.vtab import TASKS
from jaxmodels.data.vtab_tfds import vtab_tfds_split


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        ValueError, match=r"--reader=tfds: needs tensorflow_datasets \(pip install 'jaxmodels\[tfds\]'\)"
    ):
        vtab_tfds_split(tmp_path, TASKS["cifar100"], "train800")


@pytest.fixture(scope="module")
def tfds():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that TFDS imports
        return pytest.importorskip("tensorflow_datasets", reason="optional package tensorflow_datasets is absent")


pytestmark = pytest.mark.filterwarnings("ignore")


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).save(buffer, "png")
    return buffer.getvalue()


def prepare(tfds, folder, task, features, splits, version=None, file_format="array_record"):
    """Writes {split: [example, ...]} as the prepared data set that `task` asks for."""
    name, *config = task.tfds.split("/")

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version or task.version)
        if config:
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config[0])]

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {split: enumerate(examples) for split, examples in splits.items()}

        def _generate_examples(self):
            raise AssertionError("splits carry their own examples")

    Builder.name = name
    Builder(data_dir=folder, file_format=file_format).download_and_prepare()


def coloured(n, start=0):
    shades = [np.full((4, 5, 3), (start + i) % 256, np.uint8) for i in range(n)]
    return [{"image": png(shade), "label": (start + i) % 10} for i, shade in enumerate(shades)]


@pytest.fixture(scope="module")
def eurosat(tfds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    features = {"image": tfds.features.Image(shape=(4, 5, 3)), "label": tfds.features.ClassLabel(num_classes=10)}
    prepare(tfds, folder, TASKS["eurosat"], features, {"train": coloured(1500)})
    return folder


def test_slices_of_a_data_set_with_config(tfds, eurosat):
    everything = tfds.builder_from_directory(eurosat / "eurosat/rgb/2.0.0").as_data_source(split="train")
    labels = [int(example["label"]) for example in everything]
    task = TASKS["eurosat"]
    expected = {"train800": labels[:800], "val200": labels[900:1100], "test": labels[1200:]}
    expected["train800val200"] = expected["train800"] + expected["val200"]
    for split, found in expected.items():
        source = vtab_tfds_split(eurosat, task, split)
        assert len(source) == len(found)
        assert [int(source[i]["label"]) for i in range(0, len(source), 7)] == found[::7]
    row = vtab_tfds_split(eurosat, task, "train800")[3]
    assert row["image"].shape == (4, 5, 3) and row["image"].dtype == np.uint8 and row["label"].dtype == np.int32
    assert int(row["image"][0, 0, 0]) % 2 == int(row["label"]) % 2
    assert "tensorflow" not in sys.modules


def test_what_is_missing_is_named(tfds, eurosat):
    with pytest.raises(ValueError, match=r"found no prepared eurosat/rgb:9.0.0 at .*rgb holds 2.0.0/; prepare it with"):
        vtab_tfds_split(eurosat, TASKS["eurosat"], "test", version="9.0.0")
    with pytest.raises(ValueError, match="found no prepared cifar100:3.0.2"):
        vtab_tfds_split(eurosat, TASKS["cifar100"], "test")
    with pytest.raises(ValueError, match="--data_dir: found no folder"):
        vtab_tfds_split(eurosat / "nowhere", TASKS["eurosat"], "test")


def test_another_version_on_request(tfds, eurosat, tmp_path):
    (tmp_path / "eurosat/rgb").mkdir(parents=True)
    (tmp_path / "eurosat/rgb/2.1.0").symlink_to(eurosat / "eurosat/rgb/2.0.0")
    assert len(vtab_tfds_split(tmp_path, TASKS["eurosat"], "val200", version="2.1.0")) == 200


def test_a_missing_split_is_named(tfds, tmp_path):
    features = {"image": tfds.features.Image(shape=(4, 5, 3)), "label": tfds.features.ClassLabel(num_classes=10)}
    prepare(tfds, tmp_path, TASKS["dtd"], features, {"train": coloured(3), "test": coloured(3)})
    with pytest.raises(ValueError, match="dtd: expected a split 'validation', found test, train"):
        vtab_tfds_split(tmp_path, TASKS["dtd"], "train800")


def test_clevr_and_kitti_labels_come_from_their_objects(tfds, tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    depths = [[12.0, 8.2, 9.7], [10.5, 11.0, 30.0, 12.0]]
    clevr = [
        {"image": png(image), "objects": [{"size": 0, "pixel_coords": [1.0, 2.0, z]} for z in row]} for row in depths
    ]
    objects = {"size": np.int64, "pixel_coords": tfds.features.Tensor(shape=(3,), dtype=np.float32)}
    features = {"image": tfds.features.Image(shape=(4, 5, 3)), "objects": tfds.features.Sequence(objects)}
    prepare(tfds, tmp_path, TASKS["clevr_dist"], features, {"train": clevr, "validation": clevr})
    assert sorted(int(row["label"]) for row in vtab_tfds_split(tmp_path, TASKS["clevr_dist"], "test")) == [1, 5]
    assert sorted(int(row["label"]) for row in vtab_tfds_split(tmp_path, TASKS["clevr_count"], "test")) == [0, 1]

    scenes = [[(0, 30.0), (4, 2.0)], [(2, 9.0), (1, 7.0)], [(5, 3.0)], []]
    kitti = [
        {"image": png(image), "objects": [{"type": t, "location": [0.0, 0.0, z]} for t, z in scene]} for scene in scenes
    ]
    objects = {"type": np.int64, "location": tfds.features.Tensor(shape=(3,), dtype=np.float32)}
    features = {"image": tfds.features.Image(shape=(4, 5, 3)), "objects": tfds.features.Sequence(objects)}
    prepare(tfds, tmp_path, TASKS["kitti"], features, {"train": kitti, "validation": kitti, "test": kitti})
    assert sorted(int(row["label"]) for row in vtab_tfds_split(tmp_path, TASKS["kitti"], "test")) == [0, 2, 3, 3]


def test_dsprites_and_smallnorb_become_rgb(tfds, tmp_path):
    sprite = np.zeros((4, 4, 1), np.uint8)
    sprite[1, 2] = 1
    rows = [{"image": png(sprite), "label_x_position": x, "label_orientation": 39 - x} for x in range(20)]
    features = {"image": tfds.features.Image(shape=(4, 4, 1))}
    features |= {"label_x_position": np.int64, "label_orientation": np.int64}
    prepare(tfds, tmp_path, TASKS["dsprites_loc"], features, {"train": rows})
    row = vtab_tfds_split(tmp_path, TASKS["dsprites_loc"], "train800")[0]
    assert row["image"].shape == (4, 4, 3) and row["image"][1, 2].tolist() == [255] * 3 and row["image"].sum() == 765
    found = [int(row["label"]) for row in vtab_tfds_split(tmp_path, TASKS["dsprites_loc"], "train800")]
    assert sorted(found) == [x // 2 for x in range(20)]
    found = [int(row["label"]) for row in vtab_tfds_split(tmp_path, TASKS["dsprites_ori"], "train800")]
    assert sorted(found) == sorted(int((39 - x) / 2.5) for x in range(20))

    toy = [
        {"image": png(np.full((4, 4, 1), 9 * i, np.uint8)), "label_azimuth": i, "label_elevation": 8} for i in range(6)
    ]
    features = {"image": tfds.features.Image(shape=(4, 4, 1)), "label_azimuth": np.int64, "label_elevation": np.int64}
    prepare(tfds, tmp_path, TASKS["smallnorb_azi"], features, {"train": toy, "test": toy})
    source = vtab_tfds_split(tmp_path, TASKS["smallnorb_azi"], "test")
    assert len(source) == 3
    assert all((row["image"] == 9 * row["label"]).all() and row["image"].shape == (4, 4, 3) for row in source)
