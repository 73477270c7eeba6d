"""FacT: factor-tuning, all weight updates of a ViT as one decomposed tensor (Jie & Deng 2023, arXiv 2212.03145).

dW = s U Sigma V with U (D, r) and V (r, D) shared by all blocks and matrices. Wider sides are cut into contiguous
chunks of D, each through the shared factor: fc1 has Sigma (r, 4r), its output 4 chunks; fc2 has Sigma (4r, r).

- Tensor-train ('tt'): a Sigma of its own for every matrix.
- Tucker ('tk'): Sigma is assembled from one core C (r, r, r) and one column p (r,) per chunk, Sigma_c = C x_3 p_c; a
  ViT has 12 columns per block (q, k, v, proj, four of fc1, four of fc2). Chunk c of fc1 and of fc2 uses Sigma_c as
  input (r) -> output (r), in the order of the chunks.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels.tuning.dropout import check_rate, drop
from jaxmodels.tuning.sites import LINEARS, linears
from jaxmodels.tuning.tree import map_kernels
from jaxmodels.tuning.tuner import Tuner

KINDS = ("tt", "tk")


class Chunks(NamedTuple):
    """How many chunks of D the input and the output of a linear layer hold."""

    inputs: int
    outputs: int


def fact(rank: int = 8, *, kind: str = "tt", scale: float = 1.0, dropout: float = 0.1) -> Tuner:
    """Factor-tuning of the six linear layers of every block.

    Args:
        rank: r.
        kind: 'tt' (tensor-train) or 'tk' (Tucker).
        scale: s, chosen per task from 0.01 ... 100 in the paper.
        dropout: rate on Sigma's output.

    Returns:
        A weight tuner: 'u', 'v', for 'tk' 'core', and per port path Sigma (in, out) or the columns (r, chunks). V is
        zero, so the tuned model starts equal to the frozen one; the others are uniform in +-1/sqrt(fan in) ('tt'), the
        core and columns Xavier uniform ('tk').

    Raises:
        ValueError: an option outside these values, or (at init) a backbone whose blocks differ in width.
    """
    if rank < 1:
        raise ValueError(f"rank: found {rank}, expected at least 1")
    if kind not in KINDS:
        raise ValueError(f"kind: found '{kind}', expected one of {', '.join(KINDS)}")
    check_rate(dropout)

    def init(key, backbone):
        sites = _sites(backbone)
        keys = jax.random.split(key, 3)
        params = {"u": _uniform(keys[0], (backbone.width, rank), backbone.width**-0.5)}
        params["v"] = jnp.zeros((rank, backbone.width))
        if kind == "tk":
            return {**params, **_tucker_init(keys[1], keys[2], sites, rank)}
        for i, (path, site) in enumerate(sites.items()):
            shape = (site.inputs * rank, site.outputs * rank)
            params[path] = _uniform(jax.random.fold_in(keys[1], i), shape, shape[0] ** -0.5)
        return params

    def sigma_of(params, path, chunks):
        if kind == "tt":
            return params[path]
        blocks = jnp.einsum("iok,kc->cio", params["core"], params[path])  # (C, r, r)
        if chunks.inputs > 1:
            return blocks.reshape(-1, rank)
        return blocks.transpose(1, 0, 2).reshape(rank, -1)

    def writes(params, context):
        def writer(path, index):
            def write(call, x):
                y = call(x)
                width = params["u"].shape[0]
                chunks = Chunks(x.shape[-1] // width, y.shape[-1] // width)
                u, sigma, v = (p.astype(x.dtype) for p in (params["u"], sigma_of(params, path, chunks), params["v"]))
                h = x.reshape(*x.shape[:-1], chunks.inputs, width) @ u
                h = drop(h.reshape(*x.shape[:-1], -1) @ sigma, dropout, context.key, index)
                delta = (h.reshape(*x.shape[:-1], chunks.outputs, rank) @ v).reshape(y.shape)
                return y + (scale * delta).astype(y.dtype)

            return write

        return {path: writer(path, i) for i, path in enumerate(_paths(params))}

    def merge(params, backbone_params, state):
        def add(kernel, sigma):
            u, v = params["u"], params["v"]
            chunks = Chunks(kernel.shape[0] // u.shape[0], kernel.shape[1] // u.shape[0])
            cut = sigma_cut(sigma(chunks), chunks)
            delta = jnp.einsum("dr,arbs,se->adbe", u, cut, v).reshape(kernel.shape)
            return kernel + scale * delta

        def sigma_cut(sigma, chunks):
            return sigma.reshape(chunks.inputs, rank, chunks.outputs, rank)

        sigmas = {path: lambda chunks, path=path: sigma_of(params, path, chunks) for path in _paths(params)}
        return map_kernels(backbone_params, sigmas, add)

    config = {"method": "fact", "rank": rank, "kind": kind, "scale": scale, "dropout": dropout}
    return Tuner(config, init, writes, merge=merge)


def _sites(backbone) -> dict[str, Chunks]:
    width = backbone.width
    sites = {}
    for path, site in linears(backbone, LINEARS).items():
        if site.inputs % width or site.outputs % width or min(site.inputs, site.outputs) != width:
            raise ValueError(
                f"fact on {backbone.name}: '{path}' is {site.inputs} -> {site.outputs}, expected multiples of {width};"
                " the shared factors need blocks of one width"
            )
        sites[path] = Chunks(site.inputs // width, site.outputs // width)
    return sites


def _paths(params: Any) -> list[str]:
    return sorted(path for path in params if path not in ("u", "v", "core"))


def _uniform(key: jax.Array, shape: tuple[int, ...], bound: float) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _tucker_init(core_key: jax.Array, key: jax.Array, sites: dict[str, Chunks], rank: int) -> dict[str, jax.Array]:
    """Xavier uniform over the whole core and over all columns together, which are then dealt out to their sites."""
    counts = [max(site) for site in sites.values()]
    columns = _uniform(key, (rank, sum(counts)), (6.0 / (rank + sum(counts))) ** 0.5)
    starts = [sum(counts[:i]) for i in range(len(counts))]
    dealt = {p: columns[:, s : s + n] for p, s, n in zip(sites, starts, counts, strict=True)}
    return {"core": _uniform(core_key, (rank, rank, rank), (6.0 / (2 * rank**2)) ** 0.5), **dealt}
