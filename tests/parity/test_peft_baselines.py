"""The baseline tuners agree with the fixtures, file by file; and the comparison notices a wrong model."""

from pathlib import Path

import numpy as np
import pytest

from tests.parity import __main__ as parity
from tests.parity.compare import read

FOLDER = Path(__file__).parents[1] / "goldens" / "peft_baselines"
FILES = sorted(FOLDER.glob("*.npz"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_passes(file):
    passed, line = parity.check("peft_baselines", file)
    assert passed, line


def altered(folder, name, **changes):
    """A copy of one fixture and its backbone, with arrays replaced."""
    for file in ("backbone.npz", name):
        arrays = read(FOLDER / file)
        np.savez(folder / file, **(arrays | changes if file == name else arrays))
    return folder / name


def test_a_wrong_option_fails(tmp_path):
    passed, line = parity.check("peft_baselines", altered(tmp_path, "adaptformer.npz", scale=np.float64(0.2)))
    assert not passed and "logits" in line and "FAILED" in line


def test_a_missing_gradient_fails(tmp_path):
    extra = {"grad/blocks.0.norm1.weight": np.zeros(32, np.float32)}
    passed, line = parity.check("peft_baselines", altered(tmp_path, "linear.npz", **extra))
    assert not passed and "keys differ: blocks.0.norm1.weight" in line


def test_an_array_that_nothing_compares_fails(tmp_path):
    passed, line = parity.check("peft_baselines", altered(tmp_path, "linear.npz", surprise=np.zeros(3)))
    assert not passed and "nothing compares 'surprise'" in line
