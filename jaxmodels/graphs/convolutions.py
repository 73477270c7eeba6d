"""Message passing layers: (graph, x (N, d)) -> (N, d'), messages from senders to receivers; defaults as in PyG."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jraph import GraphsTuple

from jaxmodels.graphs.adjacency import symmetric
from jaxmodels.graphs.layers import Dropout, linear

glorot = nn.initializers.glorot_uniform()


class GCNConv(nn.Module):
    """D^-1/2 (A + I) D^-1/2 x W + b (Kipf and Welling 2017, arXiv 1609.02907); a node has one self loop."""

    features: int

    @nn.compact
    def __call__(self, graph: GraphsTuple, x: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """One layer."""
        x = nn.Dense(self.features, use_bias=False, kernel_init=glorot, name="linear")(x)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return (symmetric(graph, one_loop=True) @ x).astype(x.dtype) + bias[None]


class GATConv(nn.Module):
    """Additive attention over senders and the node itself (Velickovic et al. 2018, arXiv 1710.10903).

    e_ij = LeakyReLU_0.2(<a_s, W x_j> + <a_r, W x_i>), softmax over j. Self loops of the graph count once, as the node
    itself.

    Attributes:
        features: per head.
        heads: of attention.
        concat: heads side by side (N, heads * features), or their mean (N, features).
        dropout: of the normalised attention.
    """

    features: int
    heads: int = 8
    concat: bool = True
    dropout: float = 0.0

    @nn.compact
    def __call__(self, graph: GraphsTuple, x: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """One layer."""
        rows, (s, r) = x.shape[0], (jnp.asarray(graph.senders), jnp.asarray(graph.receivers))
        x = nn.Dense(self.heads * self.features, use_bias=False, kernel_init=glorot, name="linear")(x)
        x = x.reshape(rows, self.heads, self.features)
        source = (x * self.param("source", glorot, (self.heads, self.features))[None]).sum(-1)
        target = (x * self.param("target", glorot, (self.heads, self.features))[None]).sum(-1)
        sent = jnp.where((s == r)[:, None], -jnp.inf, nn.leaky_relu(source[s] + target[r], 0.2))
        own = nn.leaky_relu(source + target, 0.2)
        peak = jax.lax.stop_gradient(jnp.maximum(jax.ops.segment_max(sent, r, rows), own))
        sent, own = jnp.exp(sent - peak[r]), jnp.exp(own - peak)
        total = jax.ops.segment_sum(sent, r, rows) + own
        sent, own = Dropout(self.dropout)(sent / total[r]), Dropout(self.dropout)(own / total)
        out = jax.ops.segment_sum(x[s] * sent[..., None], r, rows) + x * own[..., None]
        out = out.reshape(rows, -1) if self.concat else out.mean(1)
        return out + self.param("bias", nn.initializers.zeros, (out.shape[1],))[None]


class GINConv(nn.Module):
    """linear(ReLU(linear((1 + eps) x_i + sum of what arrives))), eps 0 at first (Xu et al. 2019, arXiv 1810.00826)."""

    features: int

    @nn.compact
    def __call__(self, graph: GraphsTuple, x: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """One layer."""
        arrived = jax.ops.segment_sum(x[graph.senders], graph.receivers, x.shape[0])
        x = (1.0 + self.param("eps", nn.initializers.zeros, ())) * x + arrived
        x = nn.relu(linear(self.features, x.shape[-1], name="first")(x))
        return linear(self.features, self.features, name="second")(x)


class SAGEConv(nn.Module):
    """W_1 mean of what arrives + W_2 x_i + b (Hamilton et al. 2017, arXiv 1706.02216); 0 where nothing arrives."""

    features: int

    @nn.compact
    def __call__(self, graph: GraphsTuple, x: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """One layer."""
        degree = jax.ops.segment_sum(jnp.ones(graph.receivers.shape, x.dtype), graph.receivers, x.shape[0])
        arrived = jax.ops.segment_sum(x[graph.senders], graph.receivers, x.shape[0])
        mean = arrived / jnp.maximum(degree, 1.0)[:, None]
        neighbours = linear(self.features, x.shape[-1], name="neighbours")(mean)
        return neighbours + linear(self.features, x.shape[-1], use_bias=False, name="own")(x)


class NodeLinear(nn.Module):
    """A linear layer on every node: what is left of a graph network without the graph."""

    features: int

    @nn.compact
    def __call__(self, graph: GraphsTuple, x: Float[Array, "n d"]) -> Float[Array, "n f"]:
        """One layer."""
        return linear(self.features, x.shape[-1], name="linear")(x)
