"""Resizing of position embeddings against torch and scipy, and properties of the three rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.weights.pos_embed import RULES, resize_pos_embed

GRIDS = [(4, 6), (6, 4), (7, 3), (3, 11), (14, 24), (5, 1), (2, 3)]


def random_positions(grid, width=3, seed=0):
    return np.random.default_rng(seed).standard_normal((1, 1 + grid * grid, width), np.float32)


@pytest.mark.parametrize(("old", "new"), GRIDS)
@pytest.mark.parametrize("antialias", [True, False])
def test_bicubic_equals_torch(old, new, antialias):
    torch = pytest.importorskip("torch", reason="needs the extra [peers]: torch")
    positions = random_positions(old).astype(np.float64)  # torch rounds coordinates in float32
    grid = torch.from_numpy(positions[:, 1:]).reshape(1, old, old, -1).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        grid, size=(new, new), mode="bicubic", align_corners=False, antialias=antialias
    )
    expected = resized.permute(0, 2, 3, 1).reshape(1, new * new, -1).numpy()
    found = resize_pos_embed(positions, new, rule="timm" if antialias else "hf")
    np.testing.assert_allclose(found[:, 1:], expected, atol=1e-12)
    np.testing.assert_array_equal(found[:, 0], positions[:, 0])


@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_linear_equals_scipy(old, new):
    scipy = pytest.importorskip("scipy.ndimage", reason="needs the extra [test]: scipy")
    positions = random_positions(old).astype(np.float64)
    factor = new / old
    expected = scipy.zoom(positions[0, 1:].reshape(old, old, -1), (factor, factor, 1), order=1)
    found = resize_pos_embed(positions, new, rule="google")
    np.testing.assert_allclose(found[0, 1:], expected.reshape(new * new, -1), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(old=st.integers(1, 9), new=st.integers(1, 12), rule=st.sampled_from(RULES), seed=st.integers(0, 99))
def test_a_constant_stays_and_transposing_commutes(old, new, rule, seed):
    constant = np.full((1, 1 + old * old, 2), 0.7)
    np.testing.assert_allclose(resize_pos_embed(constant, new, rule=rule), 0.7, rtol=1e-12)

    def transposed(positions, grid):
        cells = positions[:, 1:].reshape(1, grid, grid, -1).swapaxes(1, 2).reshape(1, grid * grid, -1)
        return np.concatenate([positions[:, :1], cells], axis=1)

    positions = random_positions(old, seed=seed)
    found = resize_pos_embed(transposed(positions, old), new, rule=rule)
    np.testing.assert_allclose(found, transposed(resize_pos_embed(positions, new, rule=rule), new), atol=1e-6)


def test_the_same_grid_is_untouched_and_dtypes_are_kept():
    positions = random_positions(4)
    assert resize_pos_embed(positions, 4) is positions
    assert resize_pos_embed(positions, 3).dtype == np.float32


def test_the_rules_differ():
    positions = random_positions(4)
    timm, hf, google = (resize_pos_embed(positions, 6, rule=rule) for rule in RULES)
    assert np.abs(timm - hf).max() > 0.05 and np.abs(timm - google).max() > 0.05


def test_what_is_no_class_token_and_square_is_an_error():
    with pytest.raises(ValueError, match="found 16 entries, expected a class token and a square"):
        resize_pos_embed(np.zeros((1, 16, 2)), 3)
    with pytest.raises(ValueError, match="resize: found 'cubic', expected one of timm, hf, google"):
        resize_pos_embed(random_positions(4), 6, rule="cubic")
