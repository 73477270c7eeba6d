"""Every quantity of every fixture of DPCML and its baselines agrees within the fixture's tolerance."""

from pathlib import Path

import jax
import numpy as np
import pytest

from tests.parity.__main__ import checker_for

FILES = sorted((Path(__file__).parents[1] / "goldens" / "dpcml").glob("*.npz"))


def test_the_fixtures_are_there():
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_fixture(file):
    with jax.default_matmul_precision("highest"):
        quantities = checker_for("dpcml", file)(file)
    assert quantities and not [quantity for quantity in quantities if not quantity.passed]


def test_sizes_come_from_the_file(tmp_path):
    """More users than items, the new ones without any; and an item that all users have."""
    (source,) = (file for file in FILES if file.stem == "libcml_baselines")
    with np.load(source) as found:
        arrays = {key: (key.split("/")[0], found[key]) for key in found}
    users, items = arrays["interactions"][1].shape
    total, crml = items + 7, ("crml_multi", "crml_uniform_inbatch")
    kept = {}
    for key, (case, value) in arrays.items():
        if case not in ("interactions", *crml) or "after3" in key or key.endswith("/predict"):
            continue
        if key.endswith(("/u", "/users_unique")):
            value = value + total - users
        elif key == "interactions" or "user_embed" in key or "user_bias" in key:
            value = np.pad(value, [(total - users, 0)] + [(0, 0)] * (value.ndim - 1))
        kept[key] = value
    for case in crml:
        user, item = (kept[f"{case}/param/{side}_embeddings.weight"] for side in ("user", "item"))
        kept[f"{case}/predict"] = -((user[:, None] - item[None]) ** 2).sum(-1)
    popular = {key: value for key, (case, value) in arrays.items() if case in ("interactions", "cpe", "lrml")}
    popular["interactions"] = np.concatenate([np.ones((users, 1)), popular["interactions"][:, 1:]], 1)
    for number, each in enumerate((kept, popular)):
        file = tmp_path / f"libcml_baselines_{number}.npz"
        np.savez(file, **each)
        with jax.default_matmul_precision("highest"):
            quantities = checker_for("dpcml", file)(file)
        assert quantities and not [quantity for quantity in quantities if not quantity.passed]
