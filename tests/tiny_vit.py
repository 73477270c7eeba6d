"""A tiny ViT with random parameters; none is zero, so that every one of them shows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.backbones.vit import Size, vit

SIZE = Size(width=16, depth=2, heads=2, patch=4)
BACKBONE = vit(SIZE, image_size=8)
TOKENS = 1 + (8 // 4) ** 2


def once(function):
    """Caches what a function returns, also when its first caller is being traced: no tracer may stay in the cache."""

    @functools.cache
    def cached(*args):
        with jax.ensure_compile_time_eval():
            return function(*args)

    return cached


def random_like(template, seed=0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.standard_normal(leaf.shape, np.float32)), template)
