"""The bypass of Res-Tuning: a chain of tuners that runs beside a frozen network (Jiang et al. 2023, arXiv 2310.19859).

    x_0 = root;  x_l = lam_l lateral_l(stem_l) + (1 - lam_l) vertical_l(x_{l-1}),  lam_l = sigmoid(logit_l)

is the paper's form (merge 'lambda'; the paper's "horizontal" tuner is the lateral one). The released code has no lam:
x_l = lateral_l(stem_l) + vertical_l(x_{l-1}) (merge 'sum'). On a pyramid of maps each block but the last may end with
an upsampling to the next stem's size. The same chain serves transformers (`res_tuning_bypass`) and U-Nets.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.tuning.places import check_choice
from jaxmodels.tuning.res_adapter import adapter, check_weight, init_adapter
from jaxmodels.tuning.res_maps import group_adapter, init_group_adapter, init_upsample, upsample

KINDS = ("adapter", "group_adapter", "identity", "zero")
MERGES = ("lambda", "sum")


class ChainKinds(NamedTuple):
    """What is static in a chain.

    Attributes:
        lateral: kind of the tuner on the stems: 'adapter', 'group_adapter', 'identity' (passes its input on) or 'zero'
            (contributes nothing).
        vertical: kind of the tuner on the bypass itself.
        merge: 'lambda' (paper) or 'sum' (released code).
        weight: of adapters, see `res_adapter`.
    """

    lateral: str = "adapter"
    vertical: str = "adapter"
    merge: str = "lambda"
    weight: str = "none"


def check_kinds(kinds: ChainKinds) -> None:
    """Raises a ValueError for an unknown kind, or for a chain whose result would not depend on its inputs."""
    check_choice("lateral", kinds.lateral, KINDS)
    check_choice("vertical", kinds.vertical, KINDS)
    check_choice("merge", kinds.merge, MERGES)
    check_weight(kinds.weight)
    if kinds.lateral == kinds.vertical == "zero":
        raise ValueError("lateral, vertical: both are 'zero', so the bypass would carry nothing")
    if kinds.weight != "none" and "adapter" not in (kinds.lateral, kinds.vertical):
        raise ValueError(f"weight: found '{kinds.weight}', but neither lateral nor vertical is an adapter")


def init_chain(
    key: jax.Array,
    widths: Sequence[int],
    kinds: ChainKinds,
    *,
    hidden: int | Sequence[int] = 10,
    upsample_to: Sequence[int | None] = (),
    zero_init_last: bool = False,
) -> list[dict[str, Any]]:
    """Parameters of a chain, one dict per block.

    Args:
        key: random key.
        widths: channels of each stem; the bypass arrives at block l with the same width.
        kinds: the static part.
        hidden: h of adapters, one or one per block.
        upsample_to: channels after block l's upsampling, None for a block without; empty for none at all.
        zero_init_last: the last block's tuners start with a zero last layer.

    Returns:
        [{'lateral', 'vertical', 'lam' () if merged by lambda, 'aux' if upsampled}, ...]; a kind without parameters has
        no entry.

    Raises:
        ValueError: unknown kinds.
    """
    check_kinds(kinds)
    blocks = []
    for i, width in enumerate(widths):
        keys = jax.random.split(jax.random.fold_in(key, i))
        bottleneck = hidden if isinstance(hidden, int) else hidden[i]
        zero_last = zero_init_last and i == len(widths) - 1
        block: dict[str, Any] = {}
        for side, kind, side_key in zip(("lateral", "vertical"), (kinds.lateral, kinds.vertical), keys, strict=True):
            if kind == "adapter":
                block[side] = init_adapter(side_key, width, bottleneck, weight=kinds.weight, zero_last=zero_last)
            elif kind == "group_adapter":
                block[side] = init_group_adapter(side_key, width, zero_last=zero_last)
        if kinds.merge == "lambda":
            block["lam"] = jnp.zeros(())
        outputs = upsample_to[i] if upsample_to else None
        if outputs is not None:
            block["aux"] = init_upsample(width, outputs)
        blocks.append(block)
    return blocks


def run_chain(
    blocks: Sequence[Any],
    root: Float[Array, "b *n c"],
    stems: Sequence[Float[Array, "b *_ _"]],
    kinds: ChainKinds,
) -> Float[Array, "b *m d"]:
    """The bypass: the last block's result.

    Detach root and stems before (`jax.lax.stop_gradient`), or feed them as data: otherwise the network keeps what its
    own backward pass would need.

    Args:
        blocks: see `init_chain`.
        root: x_0, tokens (B, N, C) or a map (B, h, w, C).
        stems: one activation per block, in order.
        kinds: the static part.

    Returns:
        Shaped as the last stem.

    Raises:
        ValueError: a stem whose shape is not that of the bypass where they meet.
    """
    x = root
    for i, (block, stem) in enumerate(zip(blocks, stems, strict=True)):
        if x.shape != stem.shape:
            raise ValueError(
                f"bypass block {i}: the bypass arrives with the shape {x.shape}, expected its stem's, {stem.shape}"
            )
        lateral = _tune(kinds.lateral, kinds.weight, block.get("lateral"), stem)
        vertical = _tune(kinds.vertical, kinds.weight, block.get("vertical"), x)
        if kinds.merge == "lambda":
            lam = jax.nn.sigmoid(block["lam"]).astype(x.dtype)
            lateral, vertical = lam * lateral, (1.0 - lam) * vertical
        x = lateral + vertical
        if "aux" in block:
            following = stems[i + 1].shape if i + 1 < len(stems) else None
            x = upsample(block["aux"], x, None if following is None else (following[1], following[2]))
    return x


def _tune(kind: str, weight: str, params: Any, x: jax.Array) -> jax.Array:
    if kind == "adapter":
        return adapter(params, x, weight=weight)
    if kind == "group_adapter":
        return group_adapter(params, x)
    return x if kind == "identity" else jnp.zeros_like(x)
