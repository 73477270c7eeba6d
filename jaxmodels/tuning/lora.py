"""LoRA: low-rank updates of linear layers (Hu et al. 2021, arXiv 2106.09685).

W' = W + s A B with A (in, r), B (r, out) and s = alpha / r. In training the update is a side branch, so that no
gradient of a full matrix is ever formed; `merge` adds it into the weights.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxmodels.tuning.dropout import check_rate, drop
from jaxmodels.tuning.sites import linears
from jaxmodels.tuning.tree import map_kernels
from jaxmodels.tuning.tuner import Tuner


def lora(
    rank: int = 8,
    *,
    alpha: float | None = None,
    targets: Sequence[str] = ("q", "k", "v"),
    shared_qkv_a: bool = False,
    dropout: float = 0.0,
) -> Tuner:
    """Low-rank adaptation.

    Args:
        rank: r.
        alpha: s = alpha / r; None sets s = 1.
        targets: layers among q, k, v, proj, fc1, fc2. The "LoRA-8" of VTAB tables (NOAH) is q, k, v with a shared A.
        shared_qkv_a: one A for q, k and v of a block, which then equals LoRA on a fused qkv matrix.
        dropout: rate on the branch's input.

    Returns:
        A weight tuner. A is uniform in +-1/sqrt(in), B zero: the tuned model starts equal to the frozen one.

    Raises:
        ValueError: rank below 1, a dropout outside [0, 1), or unknown targets (at init).
    """
    if rank < 1:
        raise ValueError(f"rank: found {rank}, expected at least 1")
    check_rate(dropout)
    scale = 1.0 if alpha is None else alpha / rank

    def a_of(params, path):
        return params[path if "a" in params[path] else _qkv(path)]["a"]

    def init(key, backbone):
        params: dict = {}
        for i, (path, site) in enumerate(linears(backbone, targets).items()):
            bound = site.inputs**-0.5
            a = jax.random.uniform(jax.random.fold_in(key, i), (site.inputs, rank), minval=-bound, maxval=bound)
            b = jnp.zeros((rank, site.outputs))
            shared = shared_qkv_a and site.target in "qkv"
            if shared:
                params.setdefault(_qkv(path), {"a": a})
            params[path] = {"b": b} if shared else {"a": a, "b": b}
        return params

    def writes(params, context):
        def writer(path, i):
            def write(call, x):
                h = drop(x, dropout, context.key, i)
                y = call(x)
                delta = scale * ((h @ a_of(params, path).astype(x.dtype)) @ params[path]["b"].astype(x.dtype))
                return y + delta.astype(y.dtype)

            return write

        # Sorted, as jit hands dicts on; and sites that share an A share a mask, for a fused qkv has one input.
        index = {path: i for i, path in enumerate(sorted(params))}
        owner = {path: path if "a" in params[path] else _qkv(path) for path in params}
        return {path: writer(path, index[owner[path]]) for path in params if "b" in params[path]}

    def merge(params, backbone_params, state):
        deltas = {path: scale * (a_of(params, path) @ params[path]["b"]) for path in params if "b" in params[path]}
        return map_kernels(backbone_params, deltas, lambda kernel, delta: kernel + delta)

    config = {
        "method": "lora",
        "rank": rank,
        "alpha": float(rank) if alpha is None else float(alpha),
        "targets": list(targets),
        "shared_qkv_a": shared_qkv_a,
        "dropout": dropout,
    }
    return Tuner(config, init, writes, merge=merge)


def _qkv(path: str) -> str:
    return path.rsplit("/", 1)[0] + "/qkv"
