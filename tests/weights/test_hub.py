"""The hub, with a local stand-in for its download: the table, verification, and what goes wrong."""

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.backbones.vit import SIZES, vit
from jaxmodels.weights import hub
from jaxmodels.weights.hub import LOCK, PUBLISHED, Published, fetch, sha256_of
from jaxmodels.weights.load import load, load_head, locate
from jaxmodels.weights.vit import LAYOUTS
from jaxmodels.weights.vit_checkpoint import save_vit

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra [hub]: huggingface_hub")
from huggingface_hub import errors  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves the files of a folder as the hub's cache does, and remembers what it was asked for."""

    def __init__(self, remote: Path):
        self.remote, self.asked, self.online = remote, [], True

    def __call__(self, repo_id, filename, *, revision=None, cache_dir=None):
        self.asked.append((repo_id, filename, revision))
        if not self.online:
            raise errors.LocalEntryNotFoundError("cannot find the file in the cache.\nCheck your connection")
        if not (self.remote / filename).is_file():
            raise errors.EntryNotFoundError("404")
        target = Path(cache_dir) / "snapshots" / (revision or COMMIT) / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((self.remote / filename).read_bytes())
        return str(target)


@pytest.fixture
def remote(tmp_path, monkeypatch, backbone, params, head):
    folder = tmp_path / "remote"
    folder.mkdir()
    save_vit(folder / "model.safetensors", params, backbone, head=head)
    fake = FakeHub(folder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    return fake


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def add(monkeypatch, **changes):
    entry = Published("", "org/vit", "model.safetensors", "timm", "Apache-2.0")._replace(**changes)
    monkeypatch.setitem(PUBLISHED, "tiny", entry)


def test_a_name_loads_parameters_and_head(remote, cache, monkeypatch, backbone, params, head):
    add(monkeypatch)
    jax.tree.map(np.testing.assert_array_equal, load("tiny", backbone, cache_dir=cache), params)
    jax.tree.map(np.testing.assert_array_equal, load_head("tiny", backbone, cache_dir=cache), head)
    jax.tree.map(np.testing.assert_array_equal, load("org/vit", backbone, cache_dir=cache), params)


def test_a_path_needs_no_hub(remote, backbone, params):
    path = remote.remote / "model.safetensors"
    jax.tree.map(np.testing.assert_array_equal, load(path, backbone), params)
    jax.tree.map(np.testing.assert_array_equal, load(str(remote.remote), backbone), params)
    for missing in ("absent.npz", "./absent", "/absent/folder"):
        assert locate(missing) == Path(missing)
    assert remote.asked == []
    with pytest.raises(ValueError, match="absent.npz: expected a checkpoint, found no such file"):
        load("absent.npz", backbone)


def test_options_reach_the_reader(remote, cache, backbone):
    larger = vit(backbone.module.size, image_size=12)
    by_rule = [load("org/vit", larger, cache_dir=cache, resize=rule)["pos_embed"] for rule in ("timm", "hf")]
    assert np.abs(by_rule[0] - by_rule[1]).max() > 1e-3


def test_a_table_entry_is_fetched_at_its_commit_and_verified(remote, cache, monkeypatch):
    right = sha256_of(remote.remote / "model.safetensors")
    add(monkeypatch, revision="a" * 40, sha256=right)
    assert fetch("tiny", cache_dir=cache).is_file()
    assert remote.asked == [("org/vit", "model.safetensors", "a" * 40)]
    assert not (cache / LOCK).exists()
    add(monkeypatch, sha256="0" * 64)
    with pytest.raises(ValueError, match=f"tiny: .* has sha256 {right}, expected {'0' * 64} \\(the table\\)"):
        fetch("tiny", cache_dir=cache)


def test_the_first_download_is_recorded_and_later_ones_must_agree(remote, cache, monkeypatch):
    add(monkeypatch)
    path = fetch("tiny", cache_dir=cache)
    lock = json.loads((cache / LOCK).read_text())
    assert lock == {"org/vit/model.safetensors": {"sha256": sha256_of(path), "revision": COMMIT}}
    fetch("tiny", cache_dir=cache)
    assert remote.asked[1] == ("org/vit", "model.safetensors", COMMIT)
    with open(remote.remote / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")
    with pytest.raises(ValueError, match=f"tiny: .* has sha256 .*, expected .*{LOCK}"):
        fetch("tiny", cache_dir=cache)
    assert json.loads((cache / LOCK).read_text()) == lock


def test_a_broken_record_is_an_error(remote, cache):
    cache.mkdir()
    (cache / LOCK).write_text("[1]")
    with pytest.raises(ValueError, match=f"{LOCK}: expected JSON of file"):
        fetch("org/vit", cache_dir=cache)


def test_shards_come_with_their_index_at_one_commit(remote, cache, backbone, params):
    (remote.remote / "model.safetensors").rename(remote.remote / "model-1.safetensors")
    names = {"x": "model-1.safetensors"}
    index = remote.remote / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    path = fetch("org/vit", cache_dir=cache)
    assert path.name == index.name and (path.parent / "model-1.safetensors").is_file()
    assert remote.asked[-1] == ("org/vit", "model-1.safetensors", COMMIT)
    assert len(json.loads((cache / LOCK).read_text())) == 2
    index.write_text(json.dumps({"weight_map": {"x": "../model.safetensors"}}))
    (cache / LOCK).unlink()
    with pytest.raises(ValueError, match="lies elsewhere"):
        fetch("org/vit", cache_dir=cache)
    index.write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    (cache / LOCK).unlink()
    with pytest.raises(ValueError, match="has no file 'gone.safetensors'"):
        fetch("org/vit", cache_dir=cache)


def test_without_connection_there_is_one_line_and_no_weights(remote, cache, backbone):
    remote.online = False
    with pytest.raises(ValueError) as caught:
        load("org/vit", backbone, cache_dir=cache)
    assert str(caught.value) == (
        "org/vit: cannot fetch 'model.safetensors' of 'org/vit' from the hub: cannot find the file in the cache."
    )


def test_any_other_trouble_is_one_line_too(remote, cache, monkeypatch):
    def download(*args, **options):
        raise ConnectionError

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ValueError, match="cannot fetch .* from the hub: ConnectionError"):
        fetch("org/vit", cache_dir=cache)


def test_a_repository_without_weights_is_an_error(remote, cache, monkeypatch):
    (remote.remote / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="expected model.safetensors or .*index.json in this hub repository"):
        fetch("org/vit", cache_dir=cache)
    add(monkeypatch)
    with pytest.raises(ValueError, match="tiny: 'org/vit' has no file 'model.safetensors' on the hub"):
        fetch("tiny", cache_dir=cache)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=re.escape("org/vit: needs huggingface_hub to download; pip install")):
        fetch("org/vit")


def test_unknown_names_give_the_nearest():
    with pytest.raises(ValueError, match="found 'vit_b16_in21', .*; did you mean 'vit_b16_in21k'?"):
        fetch("vit_b16_in21")


def test_what_lies_elsewhere_says_where():
    with pytest.raises(ValueError, match=r"download https://storage.*ViT-B_16.npz and give its path"):
        fetch("vit_b16_in21k_npz")
    with pytest.raises(ValueError, match=r"linear-vit-b-300ep.pth.tar, convert it as docs/weights.md shows and give"):
        fetch("vit_b16_moco_v3")


def test_a_backbone_without_reader_is_refused(remote):
    other = Backbone("other", jax.numpy, 8, 16, ())
    with pytest.raises(ValueError, match="other: no checkpoints of .* are read, expected one of .*ViT"):
        load(remote.remote, other)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_is_complete_and_documented(name):
    entry = PUBLISHED[name]
    assert entry.size in SIZES and name.startswith(f"vit_{entry.size}_")
    assert entry.layout in {layout.name for layout in LAYOUTS}
    assert entry.licence in ("Apache-2.0", "CC-BY-NC-4.0")
    assert entry.image_size == 224 and len(entry.mean) == len(entry.std) == 3
    assert entry.revision is None or re.fullmatch("[0-9a-f]{40}", entry.revision)
    assert (entry.repo is None) == entry.file.startswith("https://")
    text = (Path(hub.__file__).parents[2] / "docs" / "weights.md").read_text()
    assert re.search(rf"`{name}`.*{re.escape(entry.licence)}", text)
