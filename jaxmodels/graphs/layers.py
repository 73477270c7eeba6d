"""Layers that N2 and its peers share, initialised as in PyTorch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.nn.linear import linear


class Dropout(nn.Module):
    """Zeroes entries with probability `rate` and rescales the others; the identity without the rng 'dropout'."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """X, or x with some entries 0."""
        if self.rate == 0.0 or not self.has_rng("dropout"):
            return x
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros_like(x))


class Encode(nn.Module):
    """dropout(LeakyReLU_0.01(linear(x))): N2's one non-linear layer, with the dropout behind the activation."""

    features: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        """Applies the layer to the last axis."""
        x = linear(self.features, x.shape[-1], name="linear")(x)
        return Dropout(self.dropout)(nn.leaky_relu(x, 0.01))


def norm(name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with PyTorch's epsilon and the two-pass variance; statistics in float32 or wider."""
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)
