"""A tiny ViT with random parameters; none is zero, so that every one of them shows."""

import jax
import numpy as np

from jaxmodels.backbones.vit import Size

SIZE = Size(width=16, depth=2, heads=2, patch=4)


def random_like(template, seed=0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jax.numpy.asarray(generator.standard_normal(leaf.shape, np.float32)), template)
