"""Published weights by name: a table of where they are, and fetching them through huggingface_hub (extra [hub]).

What arrives is checked against a sha256. Where the table has none, the commit and hash of the first download are kept
in a small JSON file in the cache, and every later load must agree with them (trust on first use).
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels.atomic import write_text
from jaxmodels.rules import nearest

Triple = tuple[float, float, float]

HALF: Triple = (0.5, 0.5, 0.5)  # inputs in [-1, 1]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
LOCK = "jaxmodels-lock.json"

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_GOOGLE = "https://storage.googleapis.com/vit_models"


class Published(NamedTuple):
    """One published checkpoint.

    Attributes:
        size: a key of `backbones.vit.SIZES`.
        repo: Hugging Face repository, or None for what lies elsewhere and is downloaded by hand.
        file: file within the repository, or the address elsewhere.
        layout: whose names it has, a name of `weights.vit.LAYOUTS`.
        licence: as its publisher states it.
        mean: of the inputs it was pre-trained with, per channel, pixels in [0, 1].
        std: as `mean`.
        image_size: side of its training images in pixels.
        revision: commit, where it is known here; None takes the newest once and then keeps it.
        sha256: of the file, where it is known here; None means trust on first use.
    """

    size: str
    repo: str | None
    file: str
    layout: str
    licence: str
    mean: Triple = HALF
    std: Triple = HALF
    image_size: int = 224
    revision: str | None = None
    sha256: str | None = None


def _timm(size: str, name: str, revision: str | None = None) -> Published:
    return Published(size, f"timm/{name}", _SINGLE, "timm", "Apache-2.0", revision=revision)


def _mae(size: str, name: str, revision: str | None = None) -> Published:
    repo = f"timm/{name}.mae"
    return Published(size, repo, _SINGLE, "timm", "CC-BY-NC-4.0", IMAGENET_MEAN, IMAGENET_STD, revision=revision)


def _npz(size: str, file: str) -> Published:
    return Published(size, None, f"{_GOOGLE}/{file}", "google", "Apache-2.0")


_MOCO = "https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/linear-vit-b-300ep.pth.tar"

# 'in21k' is the original ImageNet-21k training, 'augreg' the later one with more augmentation: other weights, and
# results that differ by points. The hashes are not known here, so that all of them are trusted on first use.
PUBLISHED = {
    "vit_b16_in21k": _timm("b16", "vit_base_patch16_224.orig_in21k", "2034f547cb5a999af2b68395c887c647a11f58c2"),
    "vit_l16_in21k": _timm("l16", "vit_large_patch16_224.orig_in21k"),
    "vit_h14_in21k": _timm("h14", "vit_huge_patch14_224.orig_in21k"),
    "vit_ti16_augreg_in21k": _timm("ti16", "vit_tiny_patch16_224.augreg_in21k"),
    "vit_s16_augreg_in21k": _timm("s16", "vit_small_patch16_224.augreg_in21k"),
    "vit_b16_augreg_in21k": _timm("b16", "vit_base_patch16_224.augreg_in21k"),
    "vit_l16_augreg_in21k": _timm("l16", "vit_large_patch16_224.augreg_in21k"),
    "vit_b16_in21k_hf": Published("b16", "google/vit-base-patch16-224-in21k", _SINGLE, "hf", "Apache-2.0"),
    "vit_b16_mae": _mae("b16", "vit_base_patch16_224", "9085cfddecbe125d73b95d25b7d4eb4832f216fa"),
    "vit_l16_mae": _mae("l16", "vit_large_patch16_224"),
    "vit_h14_mae": _mae("h14", "vit_huge_patch14_224"),
    "vit_b16_moco_v3": Published("b16", None, _MOCO, "timm", "CC-BY-NC-4.0", IMAGENET_MEAN, IMAGENET_STD),
    "vit_b16_in21k_npz": _npz("b16", "imagenet21k/ViT-B_16.npz"),
    "vit_l16_in21k_npz": _npz("l16", "imagenet21k/ViT-L_16.npz"),
    "vit_h14_in21k_npz": _npz("h14", "imagenet21k/ViT-H_14.npz"),
    "vit_b16_augreg_in21k_npz": _npz("b16", "augreg/B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz"),
}


def fetch(name: str, *, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The local copy of published weights, downloaded if need be and verified.

    Args:
        name: a key of `PUBLISHED`, or a hub repository 'owner/name' with safetensors (single or sharded).
        cache_dir: where downloads are kept; Hugging Face's own cache unless given.

    Returns:
        Path of the .safetensors file, or of the index of a sharded one.

    Raises:
        ValueError: an unknown name, huggingface_hub is not installed, the hub cannot be reached, it has no such file,
            or the file is not the one that is expected.
    """
    entry = _entry(name)
    if entry.repo is None:
        convert = "" if entry.file.endswith(".npz") else ", convert it as docs/weights.md shows"
        raise ValueError(f"{name}: is not on the hub; download {entry.file}{convert} and give its path")
    client = _client(name)
    lock = Path(cache_dir or client.constants.HF_HUB_CACHE) / LOCK
    locked = _read_lock(lock).get(f"{entry.repo}/{entry.file}", {})
    revision = entry.revision or locked.get("revision")
    path = _download(client, name, entry.repo, entry.file, revision, cache_dir)
    if path is None and name not in PUBLISHED:
        return _fetch_shards(client, name, entry.repo, lock, cache_dir)
    if path is None:
        raise ValueError(f"{name}: '{entry.repo}' has no file '{entry.file}' on the hub")
    _verify(name, path, entry, lock)
    return path


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(name: str) -> Published:
    if name in PUBLISHED:
        return PUBLISHED[name]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return Published("", name, _SINGLE, "", "")
    raise ValueError(
        f"weights: found '{name}', expected a file, a hub repository 'owner/name' or one of "
        f"{', '.join(PUBLISHED)}{nearest(name, PUBLISHED)}"
    )


def _client(name: str) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError:
        raise ValueError(f"{name}: needs huggingface_hub to download; pip install 'jaxmodels[hub]'") from None
    return huggingface_hub


def _download(
    client: Any, name: str, repo: str, file: str, revision: str | None, cache_dir: str | os.PathLike[str] | None
) -> Path | None:
    """The local path of one file, or None when the repository has no such file."""
    try:
        return Path(client.hf_hub_download(repo, file, revision=revision, cache_dir=cache_dir))
    except client.errors.LocalEntryNotFoundError as error:  # offline; a kind of EntryNotFoundError
        reason: Exception = error
    except client.errors.EntryNotFoundError:
        return None
    except Exception as error:  # the HTTP library below differs between versions, and so do its errors
        reason = error
    first = (str(reason).splitlines() or [""])[0] or type(reason).__name__
    raise ValueError(f"{name}: cannot fetch '{file}' of '{repo}' from the hub: {first}") from None


def _fetch_shards(client: Any, name: str, repo: str, lock: Path, cache_dir: str | os.PathLike[str] | None) -> Path:
    locked = _read_lock(lock).get(f"{repo}/{_INDEX}", {})
    index = _download(client, name, repo, _INDEX, locked.get("revision"), cache_dir)
    if index is None:
        raise ValueError(f"{name}: expected {_SINGLE} or {_INDEX} in this hub repository, found neither")
    _verify(name, index, Published("", repo, _INDEX, "", ""), lock)
    try:
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index}: expected JSON with a 'weight_map' of tensor -> file") from None
    for shard in shards:
        if Path(shard).name != shard:
            raise ValueError(f"{index}: shard '{shard}' lies elsewhere, expected a file of the same folder")
        path = _download(client, name, repo, shard, _commit_of(index), cache_dir)
        if path is None:
            raise ValueError(f"{name}: '{repo}' has no file '{shard}' on the hub")
        _verify(name, path, Published("", repo, shard, "", ""), lock)
    return index


def _verify(name: str, path: Path, entry: Published, lock: Path) -> None:
    """Compares with the table's hash, else with the first download's; a first download is recorded."""
    key, found = f"{entry.repo}/{entry.file}", sha256_of(path)
    locks = _read_lock(lock)
    expected, where = entry.sha256, "the table"
    if expected is None and key in locks:
        expected, where = locks[key]["sha256"], str(lock)
    if expected is None:
        locks[key] = {"sha256": found, "revision": _commit_of(path)}
        write_text(lock, json.dumps(locks, indent=2, sort_keys=True))
    elif found != expected:
        raise ValueError(f"{name}: '{key}' ({path}) has sha256 {found}, expected {expected} ({where})")


def _commit_of(path: Path) -> str | None:
    """The commit in the hub's cache layout, snapshots/COMMIT/FILE."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None


def _read_lock(lock: Path) -> dict[str, dict[str, Any]]:
    if not lock.is_file():
        return {}
    try:
        locks = json.loads(lock.read_text())
        if all(isinstance(value["sha256"], str) for value in locks.values()):
            return locks
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(f"{lock}: expected JSON of file -> sha256 and revision; remove it to trust the next download")
