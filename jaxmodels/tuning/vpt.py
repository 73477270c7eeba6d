"""Visual prompt tuning: learned tokens beside the patches (Jia et al. 2022, arXiv 2203.12119).

Shallow: n prompts stand after the class token, before the patches, at the input of the first block; they carry no
position. Deep: the same rows are overwritten with prompts of their own before every later block, so that what the
previous block computed there is dropped.
"""

import math

import jax
import jax.numpy as jnp

from jaxmodels import ports
from jaxmodels.tuning.dropout import check_rate, drop
from jaxmodels.tuning.tuner import Tuner


def vpt(prompts: int = 10, *, deep: bool = True, dropout: float = 0.0) -> Tuner:
    """Prompts at the input of the first block (shallow) or of every block (deep).

    Args:
        prompts: n; chosen per task from {1, 5, 10, 50, 100, 200} in the paper.
        deep: prompts of their own for every block: L n D parameters instead of n D.
        dropout: rate on the prompts.

    Returns:
        An activation tuner; its parameters are the prompts (n, D) by the port at which they enter: 'tokens' for the
        first block, 'block{i}/out' for block i + 1. All are uniform in +-sqrt(6 / (3 P^2 + D)), P the patch side.

    Raises:
        ValueError: n below 1, a dropout outside [0, 1), or (at init) a backbone without tokens to stand beside.
    """
    if prompts < 1:
        raise ValueError(f"prompts: found {prompts}, expected at least 1")
    check_rate(dropout)

    def init(key, backbone):
        shapes = backbone.shapes()
        places = ["tokens"] + ([f"{block}/out" for block in backbone.blocks[:-1]] if deep else [])
        ports.check_known(places, shapes.ports, f"vpt on {backbone.name}")
        patch = math.prod(shapes.params["embed"]["kernel"].shape[:-1])
        params = {}
        for i, path in enumerate(places):
            width = shapes.ports[path][1].shape[-1]
            bound = (6.0 / (patch + width)) ** 0.5
            params[path] = jax.random.uniform(jax.random.fold_in(key, i), (prompts, width), minval=-bound, maxval=bound)
        return params

    def writes(params, context):
        def writer(path, site):
            first = 1 if path == "tokens" else 1 + prompts  # the first row that is kept

            def write(call, x, **seen):
                x = call(x, **seen)
                rows = jnp.broadcast_to(params[path].astype(x.dtype)[None], (x.shape[0], prompts, x.shape[-1]))
                rows = drop(rows, dropout, context.key, site)
                return jnp.concatenate([x[:, :1], rows, x[:, first:]], axis=1)

            return write

        return {path: writer(path, site) for site, path in enumerate(sorted(params))}

    return Tuner({"method": "vpt", "prompts": prompts, "deep": deep, "dropout": dropout}, init, writes)
