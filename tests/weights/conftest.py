"""A tiny ViT with random parameters; none is zero, so that every one of them shows."""

import jax
import numpy as np
import pytest

from jaxmodels.backbones.vit import Size, vit

SIZE = Size(width=16, depth=2, heads=2, patch=4)


def random_like(template, seed=0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jax.numpy.asarray(generator.standard_normal(leaf.shape, np.float32)), template)


@pytest.fixture(scope="session")
def backbone():
    return vit(SIZE, image_size=8)


@pytest.fixture(scope="session")
def params(backbone):
    return random_like(backbone.shapes().params)


@pytest.fixture(scope="session")
def head():
    return random_like({"kernel": np.zeros((SIZE.width, 3)), "bias": np.zeros(3)}, seed=1)
