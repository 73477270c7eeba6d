"""Layers that several transformer backbones share: attention with its log-sum-exp, the MLP, stochastic depth."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxmodels.ports import Port


def attend(
    q: Float[Array, "b n h d"], k: Float[Array, "b m h d"], v: Float[Array, "b m h d"], bias: Array | None = None
) -> tuple[Float[Array, "b n h d"], Float[Array, "b h n"]]:
    """Softmax attention that also returns its normaliser: softmax(q k^T / sqrt(d) + bias) v and the log-sum-exp.

    Two attentions over disjoint keys merge exactly from their outputs and log-sum-exps, which is what unbinds prefixes
    and prompts from a backbone. Logits and softmax are computed in float32 (or wider). Without a bias the probabilities
    are computed again in the backward pass instead of being kept (Dao et al. 2022, arXiv 2205.14135), which saves
    4 B H N M bytes a layer.

    Args:
        q: queries (B, N, H, d).
        k: keys (B, M, H, d).
        v: values (B, M, H, d).
        bias: added to the logits, broadcast against (B, H, N, M).

    Returns:
        out (B, N, H, d) in v's dtype, lse (B, H, N) in float32 or wider.
    """
    # Heads come before tokens, so that both products are plain batched ones: on a CPU XLA multiplies them four times
    # faster than it does (b, n, h, d) (ViT-B/16, 8 images, forward: 4.4 against 19.8 ms; `benchmarks/attention.py`).
    q, k, v = q.swapaxes(1, 2), k.swapaxes(1, 2), v.swapaxes(1, 2)
    out, lse = _attend(q, k, v) if bias is None else _forward(q, k, v, bias)
    return out.swapaxes(1, 2), lse


def _forward(q: Array, k: Array, v: Array, bias: Array | None = None) -> tuple[Array, Array]:
    """`attend` on (B, H, N, d)."""
    logits = _logits(q, k)
    if bias is not None:
        logits = logits + jnp.broadcast_to(bias, logits.shape)
    peak = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    weights = jnp.exp(logits - peak)
    total = weights.sum(-1, keepdims=True)
    # Dividing after the product touches d numbers per query instead of M.
    out = _product("bhnm,bhmd->bhnd", weights.astype(v.dtype), v) / total
    return out.astype(v.dtype), (jnp.log(total) + peak)[..., 0]


def _logits(q: Array, k: Array) -> Array:
    return _product("bhnd,bhmd->bhnm", q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), k)


def _product(spec: str, a: Array, b: Array) -> Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


@jax.custom_vjp
def _attend(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    return _forward(q, k, v)


def _attend_forward(q, k, v):
    out, lse = _forward(q, k, v)
    return (out, lse), (q, k, v, out, lse)


def _attend_backward(residuals, cotangents):
    q, k, v, out, lse = residuals
    g, g_lse = cotangents
    weights = jnp.exp(_logits(q, k) - lse[..., None])
    to_v = _product("bhnm,bhnd->bhmd", weights.astype(g.dtype), g)
    share = (g * out).astype(lse.dtype).sum(-1) - g_lse  # d loss / d lse flows into the logits by their weights
    to_logits = (weights * (_product("bhnd,bhmd->bhnm", g, v) - share[..., None])).astype(q.dtype)
    scale = q.shape[-1] ** -0.5
    to_q = scale * _product("bhnm,bhmd->bhnd", to_logits, k)
    to_k = scale * _product("bhnm,bhnd->bhmd", to_logits, q)
    return to_q.astype(q.dtype), to_k.astype(k.dtype), to_v.astype(v.dtype)


_attend.defvjp(_attend_forward, _attend_backward)


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The exact GELU, x (1 + erf(x / sqrt 2)) / 2, computed in float32 or wider.

    `jax.nn.gelu(approximate=False)` goes through erfc, 2.5 times as slow on a CPU (`benchmarks/attention.py`).
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * wide * (1.0 + jax.lax.erf(wide * jnp.asarray(0.5**0.5, wide.dtype)))).astype(x.dtype)


class Attend(nn.Module):
    """`attend` as a port: writers see queries, keys and values already split into heads."""

    @nn.compact
    def __call__(self, q, k, v, bias=None):
        """See `attend`."""
        return attend(q, k, v, bias)


class Attention(nn.Module):
    """Multi-head self-attention with separate q, k, v projections; ports q_proj, k_proj, v_proj, core, proj."""

    heads: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Attention over the tokens of each example."""
        width = x.shape[-1]

        def project(name: str) -> Float[Array, "b n h d"]:
            y = nn.Dense(width, dtype=self.dtype, kernel_init=trunc_normal, name=name)(x)
            return y.reshape(*y.shape[:-1], self.heads, width // self.heads)

        out, _ = Attend(name="core")(project("q_proj"), project("k_proj"), project("v_proj"))
        return nn.Dense(width, dtype=self.dtype, kernel_init=trunc_normal, name="proj")(out.reshape(x.shape))


class Mlp(nn.Module):
    """fc2(GELU(fc1(x))), with the exact (erf) GELU of the published checkpoints."""

    hidden: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        """Applies the two layers to the last axis."""
        h = nn.Dense(self.hidden, dtype=self.dtype, kernel_init=trunc_normal, name="fc1")(x)
        h = Port(name="act")(gelu(h))
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=trunc_normal, name="fc2")(h)


class DropPath(nn.Module):
    """Stochastic depth: drops a whole residual branch per example and rescales the others by 1/(1 - rate).

    Active exactly when the caller provides the rng 'drop_path'; without it the layer is the identity.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b *rest"]) -> Float[Array, "b *rest"]:
        """Returns x, or x with whole examples zeroed."""
        if self.rate == 0.0 or not self.has_rng("drop_path"):
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        keep = jax.random.bernoulli(self.make_rng("drop_path"), 1.0 - self.rate, shape)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros_like(x))


# Megatron's split of a block: the first product of each branch by columns (heads, hidden units), the second by rows, so
# that one all-reduce per branch joins them (Shoeybi et al. 2019, arXiv 1909.08053); fsdp takes the other dimension.
SHARDINGS = (
    (r".*/(q_proj|k_proj|v_proj|fc1)/kernel", ("fsdp", "model")),
    (r".*/(attn/proj|fc2)/kernel", ("model", "fsdp")),
    (r".*/(q_proj|k_proj|v_proj|fc1)/bias", ("model",)),
)

# timm's default initialisation: standard deviation 0.02 before a cut at +-2 (absolute), so hardly anything is cut.
trunc_normal = nn.initializers.truncated_normal(stddev=0.02, lower=-100.0, upper=100.0)
