from pathlib import Path

import pytest

from tests.parity.__main__ import checker_for

FILES = sorted((Path(__file__).parents[1] / "goldens" / "vtab").glob("*.npz"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_quantity_of_the_fixture_agrees(file):
    checker = checker_for("vtab", file)
    assert checker is not None, f"no checker knows {file.name}"
    quantities = checker(file)
    assert quantities
    assert [q for q in quantities if not q.passed] == []


def test_there_are_fixtures():
    assert len(FILES) >= 3
