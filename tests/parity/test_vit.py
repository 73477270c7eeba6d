"""Every fixture of the Vision Transformer, quantity by quantity."""

from pathlib import Path

import jax
import pytest

from tests.parity.__main__ import checker_for

FILES = sorted((Path(__file__).parents[1] / "goldens" / "vit").glob("*.npz"))


def test_there_are_fixtures():
    assert len(FILES) >= 5


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_agrees_with_the_official_implementation(file):
    with jax.default_matmul_precision("highest"):
        quantities = checker_for("vit", file)(file)
    assert quantities
    assert [q for q in quantities if not q.passed] == []
