"""SSF: scale and shift every feature of a frozen backbone (Lian et al. 2022, arXiv 2210.08823).

After each operation, y <- gamma y + beta (equation 3), one pair per channel. The operations are the patch embedding,
in each block norm1, q, k, v (together the 3D channels of a fused qkv), the attention's projection, norm2, fc1 before
its GELU and fc2, and the final norm: 74 sites of a ViT-B/16, with q, k and v counted as one. All fold into the weights.
"""

import jax

from jaxmodels.tuning.sites import ports_like
from jaxmodels.tuning.tree import get, replace
from jaxmodels.tuning.tuner import Tuner

SITES = r"embed|(.*/)?norm[12]?|(.*/)?attn/(q_proj|k_proj|v_proj|proj)|(.*/)?mlp/(fc1|fc2)"


def ssf(*, deviation: float = 0.02) -> Tuner:
    """Scale and shift after every operation.

    Args:
        deviation: of the initial gamma ~ N(1, deviation) and beta ~ N(0, deviation): near the frozen model, not at it.

    Returns:
        A weight tuner, {'scale', 'shift'} (C,) per port path; 0.205 M parameters on a ViT-B/16.

    Raises:
        ValueError: a negative deviation, or (at init) a backbone without such layers.
    """
    if deviation < 0:
        raise ValueError(f"deviation: found {deviation}, expected at least 0")

    def init(key, backbone):
        known = backbone.shapes().ports
        params = {}
        for i, path in enumerate(ports_like(backbone, SITES)):
            noise = deviation * jax.random.normal(jax.random.fold_in(key, i), (2, known[path][1].shape[-1]))
            params[path] = {"scale": 1.0 + noise[0], "shift": noise[1]}
        return params

    def writes(params, context):
        def writer(path):
            def write(call, x):
                y = call(x)
                shape = (1,) * (y.ndim - 1) + (-1,)
                scale, shift = (params[path][name].astype(y.dtype).reshape(shape) for name in ("scale", "shift"))
                return y * scale + shift

            return write

        return {path: writer(path) for path in params}

    def merge(params, backbone_params, state):
        leaves = {}
        for path, site in params.items():
            layer = get(backbone_params, path)
            weight = "kernel" if "kernel" in layer else "scale"
            scale = site["scale"].reshape((1,) * (layer[weight].ndim - 1) + (-1,))  # the last axis is the output
            leaves[f"{path}/{weight}"] = layer[weight] * scale
            leaves[f"{path}/bias"] = layer["bias"] * site["scale"] + site["shift"]
        return replace(backbone_params, leaves)

    return Tuner({"method": "ssf", "deviation": deviation}, init, writes, merge=merge)
