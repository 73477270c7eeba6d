"""A bottleneck adapter beside each linear layer: y = W x + b + up(GELU(down(x))), the adapter SNELL compares with."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxmodels.nn.transformer import gelu
from jaxmodels.tuning.kernelized import targeted
from jaxmodels.tuning.tuner import Tuner


def parallel_adapter(rank: int = 8, *, targets: Sequence[str] | None = None) -> Tuner:
    """Parallel adapters with biases (the "Adapter-8" of arXiv 2411.01800: one per linear layer of each block).

    Down is uniform in +-1/sqrt(inputs), up and both biases zero, so the tuned model starts equal to the frozen one; the
    official code re-draws both from a truncated normal, which does not.

    Args:
        rank: hidden width.
        targets: layers among q, k, v, proj, fc1, fc2; None takes all that the backbone has.

    Returns:
        An activation tuner with (inputs + outputs) rank + rank + outputs parameters per layer. It cannot be merged.

    Raises:
        ValueError: rank below 1, or unknown targets (at init).
    """
    if rank < 1:
        raise ValueError(f"rank: found {rank}, expected at least 1")

    def init(key, backbone):
        params = {}
        for i, (path, site) in enumerate(targeted(backbone, targets).items()):
            bound = site.inputs**-0.5
            down = jax.random.uniform(jax.random.fold_in(key, i), (site.inputs, rank), minval=-bound, maxval=bound)
            params[path] = {
                "down": {"kernel": down, "bias": jnp.zeros(rank)},
                "up": {"kernel": jnp.zeros((rank, site.outputs)), "bias": jnp.zeros(site.outputs)},
            }
        return params

    def writes(params, context):
        def writer(layer):
            def write(call, x):
                y = call(x)
                hidden = gelu(_dense(layer["down"], x))
                return y + _dense(layer["up"], hidden).astype(y.dtype)

            return write

        return {path: writer(layer) for path, layer in params.items()}

    config = {"method": "parallel_adapter", "rank": rank, "targets": None if targets is None else list(targets)}
    return Tuner(config, init, writes)


def _dense(params, x):
    y = x @ params["kernel"].astype(x.dtype)
    return y + jnp.broadcast_to(params["bias"].astype(x.dtype), y.shape)
