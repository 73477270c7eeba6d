"""A ViT that compiles in a second, and what tuner tests do with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.backbones.vit import Size, vit
from jaxmodels.rules import path_name
from jaxmodels.tuning.tuner import Context

SIZE = Size(width=16, depth=2, heads=2, patch=4)
BACKBONE = vit(SIZE, image_size=8)
TOKENS = 1 + (8 // 4) ** 2
CLASSES = 5


def random_tree(shapes, seed):
    """Random values in place of every leaf, around 1 for scales and 0 elsewhere: zeros hide mistakes.

    Drawn by NumPy, as every jax.random call of a new shape would be compiled.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        mean = 1.0 if path_name(path).endswith("scale") else 0.0
        return jnp.asarray(mean + 0.15 * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def backbone_params():
    return random_tree(BACKBONE.shapes().params, 2)


@functools.cache
def images(count=2):
    return jnp.asarray(np.random.default_rng(3).standard_normal((count, 8, 8, 3)), jnp.float32)


def random_params(tuner, seed=1, backbone=BACKBONE):
    """Random parameters of a tuner."""
    return random_tree(jax.eval_shape(lambda key: tuner.init(key, backbone), jax.random.key(0)), seed)


def tuned(tuner, params, *, key=None, backbone=BACKBONE):
    """Features (B, D) of the tuned tiny backbone."""
    state = tuner.init_state(backbone)
    writers = tuner.writes(params, Context(backbone_params(), state, key))
    return backbone.apply(backbone_params(), images(), writers=writers)


def frozen():
    """Features of the untuned backbone."""
    return BACKBONE.apply(backbone_params(), images())


def largest(difference):
    return float(jnp.abs(difference).max())
