"""Res-Prefix: trained keys and values beside a frozen operation (Jiang et al. 2023, arXiv 2310.19859).

At the attention (place 'mha') this is prefix tuning, unbound: MHA'(x) = (1 - lam) Attn(Q, K, V) + lam Attn(Q, K_pre,
V_pre), both through the frozen output projection. Beside the feed-forward part or the block there is no attention to
mix with, so the branch is projection-free and added: OP(x) + w Attn(split(x), K_pre, V_pre).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.tuning.places import CORE, OUTPUTS, block_ports, check_choice, check_place, check_positive, core_shape
from jaxmodels.tuning.tuner import Tuner
from jaxmodels.tuning.unbound import attend_shared, mix, mix_attention


def res_prefix(length: int = 10, *, place: str = "mha", lam: str | float | None = None) -> Tuner:
    """A Res-Prefix in every block.

    Args:
        length: n, trained key-value pairs per block.
        place: 'mha' (exactly prefix tuning), 'ffn' (reads LN2(x)) or 'block' (reads the block's input).
        lam: the branch's weight. At 'mha' the mixture is (1 - lam) original + lam branch: 'exact' (what None means
            there) is the data-dependent weight per query and head, a number is constant, 'learned' is the sigmoid of
            one parameter per block, which starts at n / (n + N), the exact weight when all keys score alike. At 'ffn'
            and 'block' the branch is added with weight lam; None means 1, 'learned' starts at 0.5.

    Returns:
        An activation tuner; parameters {port: {'key' (n, H, d), 'value' (n, H, d), 'lam' () if learned}}, 2 n D per
        block.

    Raises:
        ValueError: a length below 1, an unknown place, a lam that is none of these; at init, a backbone without heads.
    """
    check_positive("length", length)
    check_place(place)
    check_lam(lam, place)

    def init(key, backbone):
        params = {}
        for i, path in enumerate(prefix_ports(backbone, place)):
            keys = jax.random.split(jax.random.fold_in(key, i))
            tokens, heads, width = core_shape(backbone, path)
            shape = (length, heads, width)
            params[path] = {"key": init_shared(keys[0], shape), "value": init_shared(keys[1], shape)}
            params[path] |= init_lam(lam, place, length / tokens)
        return params

    def writes(params, context):
        branch = core_writer if place == "mha" else side_writer
        return {path: branch(p["key"], p["value"], lam_of(p, lam, place)) for path, p in params.items()}

    return Tuner({"method": "res_prefix", "length": length, "place": place, "lam": lam}, init, writes)


def prefix_ports(backbone: Backbone, place: str) -> list[str]:
    """Where a prefix or prompt writes: at the attention itself, or at OP's output."""
    return block_ports(backbone, CORE if place == "mha" else OUTPUTS[place])


def init_shared(key: jax.Array, shape: tuple[int, int, int]) -> Float[Array, "n h d"]:
    """Keys, values or prompts (n, H, d): uniform in +-sqrt(6 / (n D + D)).

    This is Xavier's bound as PyTorch computes it for a (1, n, D) tensor, D = H d.
    """
    length, heads, width = shape
    bound = (6.0 / ((length + 1) * heads * width)) ** 0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def check_lam(lam: str | float | None, place: str) -> None:
    """Raises a ValueError for a weight that is not defined at this place."""
    if isinstance(lam, str):
        check_choice("lam", lam, ("exact", "learned"))
        if lam == "exact" and place != "mha":
            raise ValueError(f"lam: 'exact' mixes with the frozen attention of place='mha', found place='{place}'")


def init_lam(lam: str | float | None, place: str, odds: float) -> dict[str, jax.Array]:
    """The parameter of a learned weight: the logit of odds / (1 + odds) at the attention, of 0.5 elsewhere."""
    if lam != "learned":
        return {}
    return {"lam": jnp.log(jnp.float32(odds)) if place == "mha" else jnp.zeros(())}


def lam_of(params: Any, lam: str | float | None, place: str) -> Float[Array, ""] | float | None:
    """The weight as a number or a traced scalar; None is the exact, data-dependent one."""
    if lam == "learned":
        return jax.nn.sigmoid(params["lam"])
    if lam is None:
        return None if place == "mha" else 1.0
    return None if lam == "exact" else float(lam)


def core_writer(k: Float[Array, "n h d"], v: Float[Array, "n h d"], lam: Float[Array, ""] | float | None):
    """Writer at the attention (B, N, H, d): mixes it with the attention over k, v (lam None: exactly).

    The exact mixture hands on the log-sum-exp over all keys, so several of these compose to the attention over all of
    their keys. With a constant or learned weight there is no such set of keys and the log-sum-exp stays as it was.
    """

    def write(call, q, keys, values, bias=None):
        out, lse = call(q, keys, values, bias)
        branch, branch_lse = attend_shared(q, k, v)
        if lam is None:
            merged = mix_attention(out, lse, branch, branch_lse)
            return merged.out, merged.lse
        return mix(out, branch, jnp.full_like(lse, lam)), lse

    return write


def side_writer(k: Float[Array, "n h d"], v: Float[Array, "n h d"], lam: Float[Array, ""] | float):
    """Writer at an operation's output: adds lam Attn(split(inputs), k, v), without any projection."""

    def write(call, x, *, inputs, **seen):
        out = call(x, inputs=inputs, **seen)
        queries = inputs.reshape(inputs.shape[0], -1, *k.shape[1:])
        branch, _ = attend_shared(queries, k, v)
        return out + (lam * branch).reshape(out.shape).astype(out.dtype)

    return write
