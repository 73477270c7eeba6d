"""Classification heads on pooled features (B, D): linear, and the three-layer MLP of VPT."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels.nn.transformer import trunc_normal


class Head(NamedTuple):
    """init: (key, width, num_classes) -> params; apply: (params, features (B, D)) -> float32 or wider logits (B, C)."""

    config: dict[str, Any]
    init: Callable[[jax.Array, int, int], Any]
    apply: Callable[[Any, jax.Array], jax.Array]


def linear_head() -> Head:
    """One linear layer: weights truncated normal 0.02, bias 0."""
    return Head({"head": "linear"}, _dense_init, lambda params, x: _dense(params, _widened(x)))


def mlp_head(layers: int = 3) -> Head:
    """A multi-layer head with ReLU between its layers (VPT's MLP-k baselines, Jia et al. 2022, arXiv 2203.12119).

    Args:
        layers: number of linear layers, at least 2; hidden ones have width D.

    Raises:
        ValueError: fewer than 2 layers.
    """
    if layers < 2:
        raise ValueError(f"layers: found {layers}, expected at least 2")

    def init(key, width, num_classes):
        keys = jax.random.split(key, layers)
        widths = [width] * (layers - 1) + [num_classes]
        return {f"layer{i}": _dense_init(k, width, w) for i, (k, w) in enumerate(zip(keys, widths, strict=True))}

    def apply(params, x):
        x = _widened(x)
        for i in range(layers - 1):
            x = jax.nn.relu(_dense(params[f"layer{i}"], x))
        return _dense(params[f"layer{layers - 1}"], x)

    return Head({"head": "mlp", "layers": layers}, init, apply)


def _dense_init(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    return {"kernel": trunc_normal(key, (inputs, outputs)), "bias": jnp.zeros(outputs)}


def _dense(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["kernel"] + params["bias"][None]


def _widened(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
