"""Bottleneck adapters: z -> up(act(down(z))) with biases, beside the sub-layers of every block.

- `adapter`, sequential: the bottleneck reads a branch's output z and is added to it, z + s up(act(down(z))), before
  the residual addition; after attention and MLP (Houlsby et al. 2019, arXiv 1902.00751) or after the MLP only
  (Pfeiffer et al. 2021, arXiv 2005.00247).
- `adaptformer`, parallel: it reads the residual stream before the MLP's norm, x + MLP(LN x) + s up(act(down(x)))
  (Chen et al. 2022, arXiv 2205.13535).

An all-zero initialisation, found in published code, is not offered: hidden = 0 cuts up's gradient, up = 0 cuts down's,
and both matrices stay zero for ever.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.nn.transformer import gelu
from jaxmodels.rules import nearest
from jaxmodels.tuning.dropout import check_rate, drop
from jaxmodels.tuning.sites import ports_like
from jaxmodels.tuning.tuner import Tuner

ACTIVATIONS = {
    "gelu": gelu,
    "relu": jax.nn.relu,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # NOAH's and CLIP's
}
KINDS = {"houlsby": r".*/(attn_out|mlp_out)", "pfeiffer": r".*/mlp_out"}


def bottleneck_init(key: jax.Array, width: int, hidden: int, init: str) -> dict[str, Any]:
    """Parameters {'down', 'up'}, each {'kernel' (in, out), 'bias' (out,)}.

    Args:
        key: randomness.
        width: D, of input and output.
        hidden: h, the bottleneck.
        init: a key of `INITS`.
    """
    return INITS[init](key, width, hidden)


def bottleneck(params: Any, x: jax.Array, activation: str, dropout: float, key: jax.Array | None, site: int):
    """up(drop(act(down(x)))) in x's dtype: (..., D) -> (..., D)."""
    h = drop(ACTIVATIONS[activation](_dense(params["down"], x)), dropout, key, site)
    return _dense(params["up"], h)


def adapter(
    hidden: int = 8,
    *,
    kind: str = "pfeiffer",
    activation: str = "gelu",
    init: str = "xavier",
    scale: float = 1.0,
    dropout: float = 0.0,
) -> Tuner:
    """Sequential adapters.

    Args:
        hidden: h. The "Adapter-8" of VTAB tables (NOAH) is hidden=8, 'pfeiffer', 'quick_gelu', 'xavier'.
        kind: 'houlsby' (after attention and after the MLP) or 'pfeiffer' (after the MLP only).
        activation: 'gelu' (exact), 'relu' or 'quick_gelu'.
        init: 'xavier' (uniform, biases N(0, 1e-6); the tuned model starts near, not at, the frozen one) or
            'kaiming_zero_up' (down uniform in +-1/sqrt(D), the rest zero; starts at the frozen one).
        scale: s.
        dropout: rate on the bottleneck's hidden units.

    Raises:
        ValueError: an option outside these values, or (at init) a backbone without such ports.
    """
    _check(hidden, activation, init, dropout)
    if kind not in KINDS:
        raise ValueError(f"kind: found '{kind}', expected one of {', '.join(KINDS)}{nearest(kind, KINDS)}")
    config = {
        "method": "adapter",
        "hidden": hidden,
        "kind": kind,
        "activation": activation,
        "init": init,
        "scale": scale,
        "dropout": dropout,
    }

    def writes(params, context):
        def writer(path, site):
            def write(call, x, **seen):
                z = call(x, **seen)
                return z + scale * bottleneck(params[path], z, activation, dropout, context.key, site)

            return write

        return {path: writer(path, site) for site, path in enumerate(sorted(params))}

    return Tuner(config, lambda key, backbone: _init(key, backbone, KINDS[kind], hidden, init), writes)


def adaptformer(
    hidden: int = 64,
    *,
    scale: float = 0.1,
    activation: str = "relu",
    init: str = "kaiming_zero_up",
    dropout: float = 0.0,
) -> Tuner:
    """Parallel adapters, one per MLP, on the residual stream.

    Args:
        hidden: h; 64 as published, 8 in VTAB tables.
        scale: s.
        activation: as in `adapter`.
        init: as in `adapter`.
        dropout: rate on the bottleneck's hidden units; the authors use 0 or 0.1.

    Raises:
        ValueError: an option outside these values, or (at init) a backbone without such ports.
    """
    _check(hidden, activation, init, dropout)
    config = {
        "method": "adaptformer",
        "hidden": hidden,
        "scale": scale,
        "activation": activation,
        "init": init,
        "dropout": dropout,
    }

    def writes(params, context):
        def writer(path, site):
            def write(call, x, *, residual, **seen):
                z = call(x, residual=residual, **seen)
                beside = bottleneck(params[path], residual, activation, dropout, context.key, site)
                return z + (scale * beside).astype(z.dtype)

            return write

        return {path: writer(path, site) for site, path in enumerate(sorted(params))}

    return Tuner(config, lambda key, backbone: _init(key, backbone, KINDS["pfeiffer"], hidden, init), writes)


def _init(key, backbone, pattern, hidden, init):
    known = backbone.shapes().ports
    return {
        path: bottleneck_init(jax.random.fold_in(key, i), known[path][1].shape[-1], hidden, init)
        for i, path in enumerate(ports_like(backbone, pattern))
    }


def _check(hidden: int, activation: str, init: str, dropout: float) -> None:
    if hidden < 1:
        raise ValueError(f"hidden: found {hidden}, expected at least 1")
    for name, value, known in (("activation", activation, ACTIVATIONS), ("init", init, INITS)):
        if value not in known:
            raise ValueError(f"{name}: found '{value}', expected one of {', '.join(known)}{nearest(value, known)}")
    check_rate(dropout)


def _dense(params: Any, x: jax.Array) -> jax.Array:
    bias = params["bias"].astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    return x @ params["kernel"].astype(x.dtype) + bias


def _xavier(key: jax.Array, width: int, hidden: int) -> dict[str, Any]:
    def layer(key, shape):
        kernel_key, bias_key = jax.random.split(key)
        kernel = jax.nn.initializers.xavier_uniform()(kernel_key, shape)
        return {"kernel": kernel, "bias": 1e-6 * jax.random.normal(bias_key, shape[1:])}

    down, up = jax.random.split(key)
    return {"down": layer(down, (width, hidden)), "up": layer(up, (hidden, width))}


def _kaiming_zero_up(key: jax.Array, width: int, hidden: int) -> dict[str, Any]:
    bound = width**-0.5  # kaiming uniform with a = sqrt(5)
    kernel = jax.random.uniform(key, (width, hidden), minval=-bound, maxval=bound)
    return {
        "down": {"kernel": kernel, "bias": jnp.zeros(hidden)},
        "up": {"kernel": jnp.zeros((hidden, width)), "bias": jnp.zeros(width)},
    }


INITS = {"xavier": _xavier, "kaiming_zero_up": _kaiming_zero_up}
