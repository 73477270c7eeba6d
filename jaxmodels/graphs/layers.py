"""Layers that N2 and its peers share, initialised as in PyTorch."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxmodels.nn.linear import linear

SAVED = "saved"


def saved(x: Array) -> Array:
    """X, marked as too dear to compute again in a backward pass whose policy saves the name `SAVED` only."""
    return checkpoint_name(x, SAVED)


class Dropout(nn.Module):
    """Zeroes entries with probability `rate` and rescales the others; the identity without the rng 'dropout'.

    Two entries share a random word, which halves the time: the rate is the nearest multiple of 2^-16, and the scale
    belongs to that multiple, so expectations stay exact.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """X, or x with some entries 0."""
        if self.rate == 0.0 or not self.has_rng("dropout"):
            return x
        *rows, width = x.shape
        words = jax.random.bits(self.make_rng("dropout"), (*rows, -(-width // 2)), jnp.uint32)
        kept = max(1, round((1.0 - self.rate) * 2**16))
        keep = jnp.concatenate([(words >> 16) < kept, (words & 0xFFFF) < kept], -1)[..., :width]
        return jnp.where(saved(keep), x * (2**16 / kept), jnp.zeros_like(x))


class Encode(nn.Module):
    """dropout(LeakyReLU_0.01(linear(x))): N2's one non-linear layer, with the dropout behind the activation."""

    features: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        """Applies the layer to the last axis."""
        x = linear(self.features, x.shape[-1], name="linear", dot_general=_product)(x)
        return Dropout(self.dropout)(jnp.where(saved(x >= 0), x, 0.01 * x))


def _product(x: Array, kernel: Array, dimensions: Any, precision: Any = None) -> Array:
    return rows_product(x, kernel)


@jax.custom_vjp
def rows_product(x: Float[Array, "*b c"], kernel: Float[Array, "c d"]) -> Float[Array, "*b d"]:
    """X @ kernel.

    Its gradient is written out so that all leading axes become one: by itself XLA turns the larger factor of the
    kernel's gradient over first, which takes as long as the product.
    """
    return x @ kernel


def _rows_product_keep(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _rows_product_pull(kept: tuple[Array, Array], pulled: Array) -> tuple[Array, Array]:
    x, kernel = kept
    return pulled @ kernel.T, x.reshape(-1, x.shape[-1]).T @ pulled.reshape(-1, pulled.shape[-1])


rows_product.defvjp(_rows_product_keep, _rows_product_pull)


class Norm(nn.Module):
    """LayerNorm over the last axis with PyTorch's epsilon, two-pass, in float32 or wider."""

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        """Normalised x, times `scale` (d,), plus `bias` (d,)."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        return layer_norm(x.astype(jnp.promote_types(jnp.result_type(x, scale), jnp.float32)), scale, bias)


def norm(name: str | None = None) -> Norm:
    """The layer norm of N2 and its peers."""
    return Norm(name=name)


@jax.custom_vjp
def layer_norm(x: Float[Array, "*b d"], scale: Float[Array, "d"], bias: Float[Array, "d"]) -> Float[Array, "*b d"]:
    """(x - mean) / sqrt(variance + 1e-5) * scale + bias, over the last axis.

    Its gradient is written out: automatic differentiation keeps six arrays of the size of x where one will do, and
    sums over rows in a form that XLA compiles badly for CPUs.
    """
    return _layer_norm(x, scale, bias)[0]


def _layer_norm(x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    centred = x - x.mean(-1, keepdims=True)
    root = jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    ones = (1,) * (x.ndim - 1)
    normal, root = saved(centred * root), saved(root)
    return normal * scale.reshape(*ones, -1) + bias.reshape(*ones, -1), (normal, root, scale)


def _layer_norm_pull(kept: tuple[Array, Array, Array], pulled: Array) -> tuple[Array, Array, Array]:
    normal, root, scale = kept
    inner = pulled * scale.reshape(*(1,) * (pulled.ndim - 1), -1)
    to_x = root * (inner - inner.mean(-1, keepdims=True) - normal * (inner * normal).mean(-1, keepdims=True))
    rows = tuple(range(pulled.ndim - 1))
    return to_x, (pulled * normal).sum(rows), pulled.sum(rows)


layer_norm.defvjp(_layer_norm, _layer_norm_pull)
