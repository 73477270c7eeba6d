"""Tuners of feature maps that Res-Tuning uses on U-Nets: the group adapter and the zero-initialised upsampling.

Both follow the authors' code for Stable Diffusion (Jiang et al. 2023, arXiv 2310.19859). Maps are (B, h, w, C).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.nn.transformer import gelu
from jaxmodels.tuning.res_adapter import linear

HEADS = 4  # groups of a group adapter in the authors' code
FACTOR = 2  # its hidden width, in group widths


def init_group_adapter(
    key: jax.Array, inputs: int, *, heads: int = HEADS, factor: int = FACTOR, zero_last: bool = False
) -> dict[str, Any]:
    """Parameters of a group adapter: weights uniform in +-1/sqrt(fan in), biases N(0, 1) (the code's surprise).

    Args:
        key: random key.
        inputs: C, a multiple of heads.
        heads: number of groups, which share one MLP of width C / heads.
        factor: hidden width over group width.
        zero_last: the last layer starts at zero.

    Returns:
        {'down': {'kernel' (C/heads, factor C/heads), 'bias'}, 'up': {'kernel', 'bias'}}.

    Raises:
        ValueError: C is no multiple of heads.
    """
    if inputs % heads:
        raise ValueError(f"heads: found {heads} groups for {inputs} channels, expected a divisor")
    width, hidden = inputs // heads, factor * inputs // heads
    keys = jax.random.split(key)
    up = {"kernel": jnp.zeros((hidden, width)), "bias": jnp.zeros(width)}
    return {
        "down": _kaiming_linear(keys[0], width, hidden),
        "up": up if zero_last else _kaiming_linear(keys[1], hidden, width),
    }


def group_adapter(params: Any, x: Float[Array, "b *n c"]) -> Float[Array, "b *n c"]:
    """Adds MLP(x) to x in groups of channels, the group index fastest: channel = c * heads + group.

    Args:
        params: see `init_group_adapter`; the number of groups follows from their width.
        x: tokens or a map, channels last.

    Returns:
        As x.
    """
    width = params["down"]["kernel"].shape[0]
    u = x.astype(params["down"]["kernel"].dtype).reshape(*x.shape[:-1], width, x.shape[-1] // width).swapaxes(-1, -2)
    u = u + linear(params["up"], gelu(linear(params["down"], u)))
    return u.swapaxes(-1, -2).reshape(x.shape).astype(x.dtype)


def init_upsample(inputs: int, outputs: int) -> dict[str, Any]:
    """A 3 x 3 convolution of zeros: {'conv': {'kernel' (3, 3, inputs, outputs), 'bias' (outputs,)}}."""
    return {"conv": {"kernel": jnp.zeros((3, 3, inputs, outputs)), "bias": jnp.zeros(outputs)}}


def upsample(
    params: Any, x: Float[Array, "b h w c"], size: tuple[int, int] | None = None
) -> Float[Array, "b hh ww cc"]:
    """Nearest resize, then the convolution (padding 1).

    Args:
        params: see `init_upsample`.
        x: a map.
        size: height and width of the result; twice those of x unless given.

    Returns:
        (B, *size, outputs).
    """
    height, width = size or (2 * x.shape[1], 2 * x.shape[2])
    kernel, bias = params["conv"]["kernel"], params["conv"]["bias"]
    u = nearest(x.astype(kernel.dtype), (height, width))
    y = jax.lax.conv_general_dilated(u, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return (y + bias.reshape(1, 1, 1, -1)).astype(x.dtype)


def nearest(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b hh ww c"]:
    """Nearest resize with source index floor(i in / out), as PyTorch's 'nearest'.

    `jax.image.resize` samples at half-pixel centres, which differs unless the ratio is an integer.

    >>> nearest(jnp.arange(3.0).reshape(1, 1, 3, 1), (1, 5)).ravel()
    Array([0., 0., 1., 1., 2.], dtype=float32)
    """
    rows, columns = ([i * old // new for i in range(new)] for old, new in zip(x.shape[1:3], size, strict=True))
    return jnp.take(jnp.take(x, jnp.asarray(rows), 1), jnp.asarray(columns), 2)


def _kaiming_linear(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    weight_key, bias_key = jax.random.split(key)
    bound = inputs**-0.5  # kaiming_uniform_(a=sqrt(5))
    kernel = jax.random.uniform(weight_key, (inputs, outputs), minval=-bound, maxval=bound)
    return {"kernel": kernel, "bias": jax.random.normal(bias_key, (outputs,))}
