"""A ViT that compiles in a second, and what tuner tests do with it."""

import functools

import jax
import jax.numpy as jnp

from jaxmodels.backbones.vit import Size, vit
from jaxmodels.tuning.tuner import Context

SIZE = Size(width=16, depth=2, heads=2, patch=4)
BACKBONE = vit(SIZE, image_size=8)
TOKENS = 1 + (8 // 4) ** 2
CLASSES = 5


@functools.cache
def backbone_params():
    """Random everywhere: fresh biases are zero, and zeros hide mistakes."""
    return randomise(BACKBONE.init(jax.random.key(1)), jax.random.key(2))


@functools.cache
def images(count=2):
    return jax.random.normal(jax.random.key(3), (count, 8, 8, 3))


def randomise(tree, key, deviation=0.1):
    """The tree plus noise, so that no leaf is zero."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    noisy = [x + deviation * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=False)]
    return jax.tree.unflatten(structure, noisy)


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
