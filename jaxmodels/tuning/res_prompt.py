"""Res-Prompt: trained tokens beside a frozen operation (Jiang et al. 2023, arXiv 2310.19859).

At the attention (place 'mha') prompts x_pro are keys and values after the backbone's own projections, which is
attention over [x; x_pro] of which only the rows of x are kept (VPT-deep, unbound). Beside the feed-forward part or the
block the same trained array serves as keys and values without projection: OP(x) + w Attn(split(x), P, P).
"""

import jax
from jaxtyping import Array, Float

from jaxmodels.tuning.places import check_place, check_positive, core_shape
from jaxmodels.tuning.res_prefix import (
    check_lam,
    core_writer,
    init_lam,
    init_shared,
    lam_of,
    prefix_ports,
    side_writer,
)
from jaxmodels.tuning.tree import get
from jaxmodels.tuning.tuner import Tuner


def res_prompt(
    length: int = 10,
    *,
    place: str = "block",
    lam: str | float | None = None,
    normalise: bool = False,
    epsilon: float = 1e-6,
) -> Tuner:
    """A Res-Prompt in every block.

    Args:
        length: n, trained tokens per block.
        place: 'mha', 'ffn' (reads LN2(x)) or 'block' (reads the block's input).
        lam: the branch's weight, as in `res_prefix`.
        normalise: at 'mha', send the prompts through the block's frozen LN1 before the projections: with the exact
            weight this equals VPT-deep, whose prompts are tokens of the block's input.
        epsilon: of that LayerNorm (1e-6 in Google's and timm's checkpoints, 1e-12 in Hugging Face's).

    Returns:
        An activation tuner; parameters {port: {'prompt' (n, H, d), 'lam' () if learned}}, n D per block. At 'mha' the
        projections are the backbone's own parameters, without what a weight tuner of the same chain adds to them.

    Raises:
        ValueError: a length below 1, an unknown place or lam, `normalise` away from 'mha'; at init, a backbone without
            heads.
    """
    check_positive("length", length)
    check_place(place)
    check_lam(lam, place)
    if normalise and place != "mha":
        raise ValueError(f"normalise: needs place='mha', whose projections follow the norm; found place='{place}'")

    def init(key, backbone):
        params = {}
        for i, path in enumerate(prefix_ports(backbone, place)):
            tokens, heads, width = core_shape(backbone, path)
            prompt = init_shared(jax.random.fold_in(key, i), (length, heads, width))
            params[path] = {"prompt": prompt} | init_lam(lam, place, length / tokens)
        return params

    def projected(prompt, block):
        x = prompt.reshape(prompt.shape[0], -1)
        if normalise:
            x = _layer_norm(x, block["norm1"], epsilon)
        keys, values = (_project(x, block["attn"][name]) for name in ("k_proj", "v_proj"))
        return keys.reshape(prompt.shape), values.reshape(prompt.shape)

    def writer(path, params, backbone):
        weight = lam_of(params, lam, place)
        if place == "mha":
            return core_writer(*projected(params["prompt"], get(backbone, path.removesuffix("/attn/core"))), weight)
        return side_writer(params["prompt"], params["prompt"], weight)

    def writes(params, context):
        return {path: writer(path, p, context.backbone) for path, p in params.items()}

    config = {"method": "res_prompt", "length": length, "place": place, "lam": lam}
    return Tuner(config | {"normalise": normalise, "epsilon": epsilon}, init, writes)


def _project(x: Float[Array, "n c"], layer) -> Float[Array, "n e"]:
    return x @ layer["kernel"].astype(x.dtype) + layer["bias"].astype(x.dtype)[None]


def _layer_norm(x: Float[Array, "n c"], norm, epsilon: float) -> Float[Array, "n c"]:
    centred = x - x.mean(-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(x.var(-1, keepdims=True) + epsilon)
    return normed * norm["scale"].astype(x.dtype)[None] + norm["bias"].astype(x.dtype)[None]
