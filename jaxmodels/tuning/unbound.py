"""Unbinding: attention over more keys equals the frozen attention plus a branch beside it.

Attention over [K_pre; K] is a convex mixture of the attention over K and the one over K_pre (Jiang et al. 2023, arXiv
2310.19859). The weight follows from the two normalisers, per query and head,

    lam = sum_j exp(q.k_pre,j / sqrt(d)) / (sum_i exp(q.k_i / sqrt(d)) + sum_j exp(q.k_pre,j / sqrt(d)))
        = sigmoid(lse(q K_pre^T / sqrt(d)) - lse(q K^T / sqrt(d))),

the second form being the one that cannot overflow. So a prefix or a prompt is a residual tuner of an operation that
nobody has to change. Here are the pure functions; `res_prefix` and `res_prompt` place them on backbones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.nn.transformer import attend


class Mixture(NamedTuple):
    """out (B, N, H, d); lse (B, H, N) over all keys; weight (B, H, N) of the branch that was mixed in."""

    out: Float[Array, "b n h d"]
    lse: Float[Array, "b h n"]
    weight: Float[Array, "b h n"]


def mix(
    out: Float[Array, "b n h d"], branch: Float[Array, "b n h d"], weight: Float[Array, "b h n"]
) -> Float[Array, "b n h d"]:
    """(1 - weight) out + weight branch, in out's dtype."""
    share = weight.swapaxes(1, 2)[..., None]
    return ((1.0 - share) * out + share * branch).astype(out.dtype)


def mix_attention(
    out: Float[Array, "b n h d"],
    lse: Float[Array, "b h n"],
    branch: Float[Array, "b n h d"],
    branch_lse: Float[Array, "b h n"],
) -> Mixture:
    """Merges two attentions of the same queries over disjoint keys; exact, and so associative and commutative.

    Args:
        out: the attention's output (B, N, H, d).
        lse: its log-sum-exp (B, H, N).
        branch: output over the other keys.
        branch_lse: log-sum-exp over the other keys.

    Returns:
        What attention over the union of the keys gives.
    """
    weight = jax.nn.sigmoid(branch_lse - lse)
    return Mixture(mix(out, branch, weight), jnp.logaddexp(lse, branch_lse), weight)


def attend_shared(
    q: Float[Array, "b n h d"], k: Float[Array, "m h d"], v: Float[Array, "m h d"]
) -> tuple[Float[Array, "b n h d"], Float[Array, "b h n"]]:
    """`attend` over keys and values that all examples share (prefixes, prompts), cast to the queries' dtype.

    Args:
        q: queries (B, N, H, d).
        k: keys (M, H, d), M at least 1.
        v: values (M, H, d).

    Returns:
        out (B, N, H, d), lse (B, H, N).

    Raises:
        ValueError: no key at all; a softmax over nothing is not defined.
    """
    if not k.shape[0]:
        raise ValueError("length: found 0 keys, expected at least 1")
    spread = (q.shape[0], *k.shape)
    return attend(q, jnp.broadcast_to(k.astype(q.dtype), spread), jnp.broadcast_to(v.astype(q.dtype), spread))


def unbound_prefix(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b m h d"],
    v: Float[Array, "b m h d"],
    k_pre: Float[Array, "p h d"],
    v_pre: Float[Array, "p h d"],
) -> Mixture:
    """Res-Prefix: Attn(Q, [K_pre; K], [V_pre; V]) as the frozen attention and a branch.

    Args:
        q: queries (B, N, H, d).
        k: keys (B, M, H, d).
        v: values (B, M, H, d).
        k_pre: trained keys (P, H, d), already split in heads, no projection.
        v_pre: trained values (P, H, d).

    Returns:
        The mixture, before the output projection; `weight` is the paper's lambda.

    >>> q = jnp.zeros((1, 1, 1, 2))  # a query that likes all keys alike: one of four keys is a prefix
    >>> float(unbound_prefix(q, *jnp.zeros((2, 1, 3, 1, 2)), *jnp.zeros((2, 1, 1, 2))).weight[0, 0, 0])
    0.25
    """
    out, lse = attend(q, k, v)
    return mix_attention(out, lse, *attend_shared(q, k_pre, v_pre))


def unbound_prompt(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b n h d"],
    v: Float[Array, "b n h d"],
    q_pro: Float[Array, "p h d"],
    k_pro: Float[Array, "p h d"],
    v_pro: Float[Array, "p h d"],
) -> tuple[Mixture, Mixture]:
    """Res-Prompt: self-attention over [x; x_pro] in four smaller attentions.

    Args:
        q: queries of the tokens (B, N, H, d).
        k: their keys.
        v: their values.
        q_pro: queries of the prompts (P, H, d): x_pro through the backbone's own projection.
        k_pro: keys of the prompts.
        v_pro: values of the prompts.

    Returns:
        The rows of x (their weight is lambda: the prompts' share) and the rows of x_pro (B, P, H, d) (their weight is
        beta: the tokens' share).
    """
    rows = unbound_prefix(q, k, v, k_pro, v_pro)
    queries = jnp.broadcast_to(q_pro.astype(q.dtype), (q.shape[0], *q_pro.shape))
    prompts = mix_attention(*attend_shared(queries, k_pro, v_pro), *attend(queries, k, v))
    return rows, prompts
