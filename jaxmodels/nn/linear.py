"""Dense layers initialised as in PyTorch."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for weights and biases of linear layers.
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def linear(
    features: int, fan_in: int, *, use_bias: bool = True, name: str | None = None, dot_general: Any = None
) -> nn.Dense:
    """A dense layer of PyTorch's default initialisation.

    Args:
        features: width of its output.
        fan_in: width of its input.
        use_bias: with a bias.
        name: in the parameters.
        dot_general: what multiplies instead of `jax.lax.dot_general`.
    """
    bound = max(fan_in, 1) ** -0.5

    def bias_init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(
        features, use_bias=use_bias, kernel_init=fan_in_uniform, bias_init=bias_init, name=name, dot_general=dot_general
    )
