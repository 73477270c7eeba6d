"""What tuner tests do with the tiny ViT."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.rules import path_name
from jaxmodels.tuning.tuner import Context
from tests.tiny_vit import BACKBONE, once

KEY = jax.random.key(0)
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


@once
def backbone_params():
    return random_tree(BACKBONE.shapes().params, 2)


@once
def images(count=2):
    return jnp.asarray(np.random.default_rng(3).standard_normal((count, 8, 8, 3)), jnp.float32)


def random_params(tuner, seed=1, backbone=BACKBONE):
    """Random parameters of a tuner."""
    return random_tree(jax.eval_shape(lambda key: tuner.init(key, backbone), KEY), seed)


def noisy(params, seed=1):
    """The tree with noise on every leaf, so that nothing that starts at zero can hide."""
    return jax.tree.map(jnp.add, params, random_tree(params, seed))


def drawn(init):
    """What `init()` would give, but for the values: random, from no compiled program (those are what tests cost)."""
    return random_tree(jax.eval_shape(init), 1)


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
