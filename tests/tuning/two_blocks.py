"""A two-block ViT with random weights: large enough to tell tuners apart, small enough to compile in a moment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.backbones.vit import Size, vit

SIZE = Size(width=8, depth=2, heads=2, patch=4)
TINY = vit(SIZE, image_size=8)
KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(9).normal(size=(3, 8, 8, 3)), jnp.float32)


def noisy(params, seed=1):
    """The tree with noise on every leaf, so that nothing that starts at zero can hide."""
    leaves, tree = jax.tree.flatten(params)
    generator = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [x + jnp.asarray(0.3 * generator.normal(size=x.shape), x.dtype) for x in leaves])


def drawn(init):
    """What `init()` would give, but for the values: random, from no compiled program (those are what tests cost)."""
    return noisy(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(init)))


def drawn_tuner(tuner):
    """Random parameters of a tuner of `TINY`."""
    return drawn(lambda: tuner.init(KEY, TINY))


@functools.cache
def frozen_params():
    """Weights of `TINY`; norms scale by about one."""

    def start(path, leaf):
        return np.full(leaf.shape, path[-1].key == "scale", leaf.dtype)

    return noisy(jax.tree_util.tree_map_with_path(start, TINY.shapes().params))
