"""Every quantity of every fixture of RCPMOD agrees within the fixture's tolerance."""

from pathlib import Path

import jax
import pytest

from tests.parity.__main__ import checker_for

FILES = sorted((Path(__file__).parents[1] / "goldens" / "rcpmod").glob("*.npz"))


def test_the_fixtures_are_there():
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_fixture(file):
    with jax.default_matmul_precision("highest"):
        quantities = checker_for("rcpmod", file)(file)
    assert quantities and not [quantity for quantity in quantities if not quantity.passed]
