"""Positional encoders: node arrays in, node features out; `Encoded` puts one before any model."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from jraph import GraphsTuple

from jaxmodels.graphs.layers import linear


class LapPE(nn.Module):
    """A DeepSet over Laplacian eigenvectors, concatenated to the features (Rampasek et al. 2022, arXiv 2205.12454).

    Each entry v and its eigenvalue pass Linear 2 -> hidden, ReLU, Linear hidden -> features, ReLU; the sum over
    eigenvectors is the encoding. Eigenvectors that a small graph lacks are NaN and count as nothing. In training (rng
    'sign') every eigenvector gets a random sign.

    Attributes:
        features: columns added.
        hidden: width between the layers.
    """

    features: int = 16
    hidden: int = 32

    @nn.compact
    def __call__(self, nodes: dict[str, ArrayLike]) -> Float[Array, "n d"]:
        """Features from x (N, d), eigvecs (N, m) and eigvals (N, m) or (N, m, 1)."""
        vectors, values = jnp.asarray(nodes["eigvecs"]), jnp.asarray(nodes["eigvals"])
        vectors = vectors * self.signs(vectors.shape[1]).astype(vectors.dtype)[None]
        missing = jnp.isnan(vectors)[..., None]
        pairs = jnp.stack([vectors, values.reshape(vectors.shape)], -1)
        pairs = jnp.where(jnp.isnan(pairs), 0.0, pairs)
        x = nn.relu(linear(self.hidden, 2, name="first")(pairs))
        x = nn.relu(linear(self.features, self.hidden, name="second")(x))
        return jnp.concatenate([jnp.asarray(nodes["x"]), jnp.where(missing, 0.0, x).sum(1)], -1)

    def signs(self, count: int) -> Float[Array, "m"]:
        """A sign per eigenvector: random with the rng 'sign', else 1."""
        if not self.has_rng("sign"):
            return jnp.ones(count)
        return sign_of(jax.random.uniform(self.make_rng("sign"), (count,)))


def sign_of(uniform: Float[Array, "m"]) -> Float[Array, "m"]:
    """1 where a uniform number is 0.5 or more, else -1."""
    return jnp.where(uniform >= 0.5, 1.0, -1.0)


class RRWP(nn.Module):
    """X plus a linear map of random-walk return probabilities, without a bias (GRIT, Ma et al. 2023, 2305.17589)."""

    @nn.compact
    def __call__(self, nodes: dict[str, ArrayLike]) -> Float[Array, "n d"]:
        """Features from x (N, d) and rrwp (N, m)."""
        x = jnp.asarray(nodes["x"])
        dense = nn.Dense(x.shape[-1], use_bias=False, kernel_init=nn.initializers.xavier_uniform(), name="linear")
        return x + dense(jnp.asarray(nodes["rrwp"]))


class Encoded(nn.Module):
    """A model behind an encoder of its node arrays, or of features (`nn.Dense`, an embedding).

    Attributes:
        encoder: nodes of the graph -> features (N, d).
        model: such as `N2` or a peer.
    """

    encoder: nn.Module
    model: nn.Module

    @nn.compact
    def __call__(self, graph: GraphsTuple) -> Float[Array, "rows c"]:
        """The model's outputs on the encoded graph."""
        return self.model(graph._replace(nodes=self.encoder(graph.nodes)))
