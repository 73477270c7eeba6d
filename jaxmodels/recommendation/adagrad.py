"""Adagrad as PyTorch has it: epsilon outside of the root, which tiny gradients (weight decay alone) can tell."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Squares(NamedTuple):
    """Sums of squared gradients."""

    total: Any


def adagrad(rate: float, *, weight_decay: float = 0.0, epsilon: float = 1e-10) -> optax.GradientTransformation:
    """-rate g / (sqrt(sum g^2) + epsilon), with coupled weight decay: g = gradient + weight_decay x parameter.

    Args:
        rate: learning rate.
        weight_decay: added to the gradient (L2).
        epsilon: beside the root.
    """

    def init(params):
        return Squares(jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        total = jax.tree.map(lambda s, g: s + g * g, state.total, updates)
        moved = jax.tree.map(lambda g, s: -rate * g / (jnp.sqrt(s) + epsilon), updates, total)
        return moved, Squares(total)

    own = optax.GradientTransformation(init, update)
    return optax.chain(optax.add_decayed_weights(weight_decay), own) if weight_decay else own
