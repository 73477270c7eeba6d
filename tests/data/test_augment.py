import numpy as np
import pytest
from PIL import Image

from jaxmodels.data.augment import (
    centre_crop,
    colour_jitter,
    flip,
    random_resized_crop,
    resize_short_side,
    timm_train,
    vpt_train,
)

# Red tells the column, green the row.
RAMP = np.zeros((60, 90, 3), np.uint8)
RAMP[..., 0], RAMP[..., 1] = 2 * np.arange(90), 4 * np.arange(60)[:, None]


@pytest.mark.parametrize("view", [timm_train, vpt_train])
def test_views_follow_from_their_generator(view):
    first, again, other = (view(RAMP, np.random.default_rng(seed), 28) for seed in (1, 1, 2))
    assert first.shape == (28, 28, 3) and first.dtype == np.uint8
    assert (first == again).all() and (first != other).any()


def test_crops_cover_the_range_of_areas_and_ratios():
    shares, ratios = [], []
    for seed in range(300):
        crop = random_resized_crop(RAMP, np.random.default_rng(seed), size=64).astype(float)
        width = np.ptp(crop[..., 0]) / 2 + 1
        height = np.ptp(crop[..., 1]) / 4 + 1
        shares.append(width * height / (60 * 90))
        ratios.append(width / height)
    assert 0.06 < min(shares) < 0.15 and 0.8 < max(shares) < 1.05
    assert 0.7 < min(ratios) < 0.85 and 1.2 < max(ratios) < 1.45
    whole = random_resized_crop(RAMP, np.random.default_rng(0), size=30, scale=(1.0, 1.0), ratio=(1.5, 1.5))
    assert (whole == np.asarray(Image.fromarray(RAMP).resize((30, 30), Image.Resampling.BICUBIC))).all()


def test_a_box_that_never_fits_becomes_the_largest_centred_one():
    wide = RAMP[:10]
    crop = random_resized_crop(wide, np.random.default_rng(0), size=20, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    expected = Image.fromarray(wide[:, 40:50]).resize((20, 20), Image.Resampling.BICUBIC)
    assert (crop == np.asarray(expected)).all()


def test_flip_mirrors_half_of_the_time():
    rng = np.random.default_rng(0)
    flipped = [bool((flip(RAMP, rng) == RAMP[:, ::-1]).all()) for _ in range(200)]
    assert 70 < sum(flipped) < 130


def test_jitter_of_strength_zero_is_nothing_and_of_04_stays_within_range():
    rng = np.random.default_rng(0)
    assert (colour_jitter(RAMP, rng, 0.0) == RAMP).all()
    grey = np.full((8, 8, 3), 100, np.uint8)
    levels = [int(colour_jitter(grey, rng)[0, 0, 0]) for _ in range(200)]
    assert 60 <= min(levels) < 70 and 130 < max(levels) <= 140


def test_the_test_view_is_short_side_then_centre():
    assert resize_short_side(RAMP, 32).shape == (32, 48, 3)
    assert resize_short_side(RAMP.transpose(1, 0, 2), 32).shape == (48, 32, 3)
    crop = centre_crop(RAMP, 28)
    expected = np.asarray(Image.fromarray(RAMP).resize((48, 32), Image.Resampling.BILINEAR))[2:30, 10:38]
    assert (crop == expected).all()
    assert centre_crop(np.zeros((300, 500, 3), np.uint8), 224).shape == (224, 224, 3)


def test_vpt_crops_anywhere():
    corners = {tuple(vpt_train(RAMP, np.random.default_rng(seed), 28)[0, 0, :2]) for seed in range(60)}
    assert len({c[0] for c in corners}) > 10 and len({c[1] for c in corners}) == 5
