"""Res-Adapter: a bottleneck beside a frozen operation (Jiang et al. 2023, arXiv 2310.19859).

The module is that of the authors' code: x + w (W_u phi(W_d x + b_d) + b_u) with phi the exact GELU, in which the
shortcut x belongs to the module (the bypass needs it) and can be left out (in a network the residual stream is the
shortcut). The weight w is 1, a trained scalar or vector, a constant, or a gate.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.nn.transformer import gelu
from jaxmodels.tuning.places import OUTPUTS, block_ports, check_choice, check_place, check_positive
from jaxmodels.tuning.tuner import Tuner

WEIGHTS = ("none", "scale", "scale_channel", "gate")  # and 'scalar_0.5': any constant


def res_adapter(
    hidden: int | Sequence[int] = 10,
    *,
    place: str = "ffn",
    reads: str = "inputs",
    weight: str = "none",
    shortcut: bool = False,
    zero_init: bool = False,
) -> Tuner:
    """A Res-Adapter in every block: OP(x) + w (W_u phi(W_d u + b_d) + b_u).

    Args:
        hidden: h, width of the bottleneck; a sequence gives one per block.
        place: OP is 'mha', 'ffn' or 'block'.
        reads: u is OP's normalised 'inputs' (the block's own input for place 'block'), or OP's 'output': then the
            branch equals an adapter after OP (Houlsby, Pfeiffer).
        weight: w: 'none' is 1; 'scale' a trained scalar, 'scale_channel' a trained vector (D,), both starting at 1;
            'gate' a sigmoid of the branch, averaged over the tokens; 'scalar_0.5' (any number) a constant.
        shortcut: also add u, as the authors' module does; off, because the residual stream already carries it.
        zero_init: start with W_u = b_u = 0, so that the tuned model starts equal to the frozen one.

    Returns:
        An activation tuner; parameters {port: {'down', 'up': {'kernel', 'bias'}, 'scaling' by weight}}.

    Raises:
        ValueError: an option that is none of these; at init, as many widths as there are not blocks.
    """
    check_place(place)
    check_choice("reads", reads, ("inputs", "output"))
    check_weight(weight)
    widths = [hidden] if isinstance(hidden, int) else list(hidden)
    for width in widths:
        check_positive("hidden", width)

    def init(key, backbone):
        paths = block_ports(backbone, OUTPUTS[place])
        return {
            path: init_adapter(
                jax.random.fold_in(key, i), _width(backbone, path), h, weight=weight, zero_last=zero_init
            )
            for i, (path, h) in enumerate(zip(paths, per_block(hidden, backbone), strict=True))
        }

    def writer(params):
        def write(call, x, *, inputs, **seen):
            out = call(x, inputs=inputs, **seen)
            u = out if reads == "output" else inputs
            return out + adapter(params, u, weight=weight, shortcut=shortcut).astype(out.dtype)

        return write

    config = {
        "method": "res_adapter",
        "hidden": hidden if isinstance(hidden, int) else widths,
        "place": place,
        "reads": reads,
        "weight": weight,
        "shortcut": shortcut,
        "zero_init": zero_init,
    }
    return Tuner(config, init, lambda params, context: {path: writer(p) for path, p in params.items()})


def per_block(hidden: int | Sequence[int], backbone: Backbone) -> list[int]:
    """One bottleneck width per block.

    Raises:
        ValueError: a sequence of another length than the backbone's depth.
    """
    depth = len(backbone.blocks)
    widths = [hidden] * depth if isinstance(hidden, int) else list(hidden)
    if len(widths) != depth:
        raise ValueError(f"hidden: found {len(widths)} widths, expected {depth}, one per block of {backbone.name}")
    return widths


def init_adapter(
    key: jax.Array,
    inputs: int,
    hidden: int,
    outputs: int | None = None,
    *,
    weight: str = "none",
    zero_last: bool = False,
) -> dict[str, Any]:
    """Parameters of one adapter: Xavier-uniform weights, biases N(0, 1e-6).

    Args:
        key: random key.
        inputs: C.
        hidden: h.
        outputs: C unless given; the shortcut needs C.
        weight: see `res_adapter`.
        zero_last: W_u = b_u = 0 instead.

    Returns:
        {'down': {'kernel' (C, h), 'bias'}, 'up': {'kernel' (h, outputs), 'bias'}} and, for a trained weight, 'scaling'.
    """
    keys = jax.random.split(key, 3)
    outputs = outputs or inputs
    up = {"kernel": jnp.zeros((hidden, outputs)), "bias": jnp.zeros(outputs)}
    params: dict[str, Any] = {
        "down": _xavier_linear(keys[0], inputs, hidden),
        "up": up if zero_last else _xavier_linear(keys[1], hidden, outputs),
    }
    if weight == "scale":
        params["scaling"] = jnp.ones(1)
    elif weight == "scale_channel":
        params["scaling"] = jnp.ones(outputs)
    elif weight == "gate":
        # PyTorch's default for a linear layer, which the authors' code leaves untouched here.
        bound = outputs**-0.5
        draw = jax.random.uniform(keys[2], (outputs + 1,), minval=-bound, maxval=bound)
        params["scaling"] = {"kernel": draw[:-1, None], "bias": draw[-1:]}
    return params


def adapter(
    params: Any, x: Float[Array, "b *n c"], *, weight: str = "none", shortcut: bool = True
) -> Float[Array, "b *n e"]:
    """One adapter on tokens (B, N, C) or on a map (B, h, w, C), whose pixels are tokens.

    Computes in the parameters' dtype and returns x's.

    Args:
        params: see `init_adapter`.
        x: the features.
        weight: see `res_adapter`.
        shortcut: add x.

    Returns:
        [x +] w (W_u phi(W_d x + b_d) + b_u), shaped as x but for its last axis.
    """
    u = x.astype(params["down"]["kernel"].dtype)
    branch = linear(params["up"], gelu(linear(params["down"], u)))
    branch = branch * _weight(params, branch, weight)
    return (u + branch if shortcut else branch).astype(x.dtype)


def linear(params: Any, x: Float[Array, "*n c"]) -> Float[Array, "*n e"]:
    """X W + b on the last axis."""
    y = x @ params["kernel"]
    return y + params["bias"].reshape((1,) * (y.ndim - 1) + (-1,))


def check_weight(weight: str) -> None:
    """Raises a ValueError for a weighting that `adapter` does not know."""
    if weight in WEIGHTS or _constant(weight) is not None:
        return
    check_choice("weight", weight, (*WEIGHTS, "scalar_0.5 (any constant)"))


def _constant(weight: str) -> float | None:
    number = re.fullmatch(r"scalar_(-?\d+\.?\d*(?:e-?\d+)?)", weight)
    return float(number[1]) if number else None


def _weight(params: Any, branch: jax.Array, weight: str) -> jax.Array | float:
    """W, shaped to multiply the branch (B, ..., C)."""
    constant = _constant(weight)
    if constant is not None:
        return constant
    if weight == "none":
        return 1.0
    if weight == "gate":
        gate = jax.nn.sigmoid(linear(params["scaling"], branch))
        return gate.mean(tuple(range(1, gate.ndim)), keepdims=True)
    return params["scaling"].reshape((1,) * (branch.ndim - 1) + (-1,))


def _xavier_linear(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    weight_key, bias_key = jax.random.split(key)
    kernel = jax.nn.initializers.xavier_uniform()(weight_key, (inputs, outputs))
    return {"kernel": kernel, "bias": 1e-6 * jax.random.normal(bias_key, (outputs,))}


def _width(backbone: Backbone, path: str) -> int:
    return backbone.shapes().ports[path][1].shape[-1]
