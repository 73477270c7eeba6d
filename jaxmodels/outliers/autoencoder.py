"""The autoencoder of one view (Wang et al. 2024, arXiv 2408.07819, released code)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.nn.linear import linear
from jaxmodels.rules import nearest

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "leakyrelu": lambda x: jax.nn.leaky_relu(x, 0.2),
}


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's running statistics: momentum 0.1, the running variance unbiased."""

    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b d"], weight: Float[Array, " b"] | None, train: bool) -> Float[Array, "b d"]:
        """Normalises the columns.

        Args:
            x: rows.
            weight: 1 for the rows that count, 0 for padding; None counts all.
            train: by the rows' own statistics, which move the running ones; else by the running ones.
        """
        width = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, width)
        bias = self.param("bias", nn.initializers.zeros, width)
        mean = self.variable("stats", "mean", jnp.zeros, width, x.dtype)
        variance = self.variable("stats", "variance", jnp.ones, width, x.dtype)
        if not train:
            now_mean, now_variance = mean.value, variance.value
        else:
            rows = (jnp.ones(len(x), x.dtype) if weight is None else weight.astype(x.dtype))[:, None]
            count = rows.sum()
            now_mean = (x * rows).sum(0) / count
            now_variance = (rows * (x - now_mean[None]) ** 2).sum(0) / count
            if self.is_mutable_collection("stats") and not self.is_initializing():
                unbiased = now_variance * count / jnp.maximum(count - 1, 1)
                mean.value = (1 - self.momentum) * mean.value + self.momentum * now_mean
                variance.value = (1 - self.momentum) * variance.value + self.momentum * unbiased
        return (x - now_mean[None]) / jnp.sqrt(now_variance + self.epsilon)[None] * scale[None] + bias[None]


class AutoEncoder(nn.Module):
    """Dense layers down to a latent vector and back up; the output goes through a sigmoid, for inputs in [0, 1].

    The latent vector has neither activation nor norm. Parameters are in float32 unless converted; computation is in
    the type of the input.

    Attributes:
        widths: D, the hidden widths, and L of the latent vector; the decoder mirrors them.
        activation: of the hidden layers: 'relu', 'sigmoid', 'tanh' or 'leakyrelu' (slope 0.2).
        batch_norm: normalise before each hidden activation.
    """

    widths: tuple[int, ...]
    activation: str = "relu"
    batch_norm: bool = False

    def setup(self) -> None:
        """Layers by name: encoder_0, encoder_norm_0, ..."""
        check(self.widths, self.activation)
        down, up = self.widths, self.widths[::-1]
        self.encoder = [linear(b, a) for a, b in zip(down, down[1:], strict=False)]
        self.decoder = [linear(b, a) for a, b in zip(up, up[1:], strict=False)]
        hidden = len(self.widths) - 2
        self.encoder_norm = [BatchNorm() for _ in range(hidden)] if self.batch_norm else []
        self.decoder_norm = [BatchNorm() for _ in range(hidden)] if self.batch_norm else []

    def encode(
        self, x: Float[Array, "b d"], weight: Float[Array, " b"] | None = None, train: bool = False
    ) -> Float[Array, "b l"]:
        """Latent vectors; `weight` and `train` matter to batch norm alone."""
        return self._run(self.encoder, self.encoder_norm, x, weight, train)

    def decode(
        self, z: Float[Array, "b l"], weight: Float[Array, " b"] | None = None, train: bool = False
    ) -> Float[Array, "b d"]:
        """Reconstructions in (0, 1)."""
        return jax.nn.sigmoid(self._run(self.decoder, self.decoder_norm, z, weight, train))

    def __call__(
        self, x: Float[Array, "b d"], weight: Float[Array, " b"] | None = None, train: bool = False
    ) -> tuple[Float[Array, "b d"], Float[Array, "b l"]]:
        """Reconstructions and latent vectors."""
        z = self.encode(x, weight, train)
        return self.decode(z, weight, train), z

    def _run(self, layers, norms, x, weight, train):
        for i, layer in enumerate(layers):
            x = layer(x)
            if i < len(layers) - 1:
                x = norms[i](x, weight, train) if norms else x
                x = ACTIVATIONS[self.activation](x)
        return x


def check(widths: tuple[int, ...], activation: str) -> None:
    """Raises ValueError unless there are an input and a latent width, all positive, and such an activation."""
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths: found {widths}, expected D, hidden widths and L, all of at least 1")
    if activation not in ACTIVATIONS:
        hint = nearest(activation, ACTIVATIONS)
        raise ValueError(f"activation: found '{activation}', expected one of {', '.join(ACTIVATIONS)}{hint}")
