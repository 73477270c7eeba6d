"""The part that SNELL and SNELLA share: kernelised, sparsified updates of linear layers.

Per tuned layer: y = x W0 + b + DropPath(Dropout(x) D^s), where D (inputs, outputs) is merged from thin factors by a
kernel and D^s is D after competition. Neither D nor D^s outlives its layer: both are recomputed in the backward pass,
for which only the threshold of each layer is kept.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.ports import Operation, Writers
from jaxmodels.rules import Rules, nearest
from jaxmodels.tuning.dropout import drop_path, dropout, seed_of
from jaxmodels.tuning.kernels import Kernel
from jaxmodels.tuning.row_shards import pulled
from jaxmodels.tuning.sites import LINEARS, Linear, linears
from jaxmodels.tuning.sparsify import MODES, SELECTIONS, limits, prune
from jaxmodels.tuning.tree import get, map_kernels

Levels = Mapping[str, Any]  # port path -> traced sparsity; a layer that is not in it does not compete


class Layers(NamedTuple):
    """How the tuned layers compute; everything static.

    Attributes:
        kernel: merges the factors.
        rank: r, the width of all pieces of a factor together.
        sparsify: mode of `sparsify.sparsify`.
        selection: how thresholds are found.
        dropout: rate on the branch's input; q, k and v share one dropped copy, proj has none.
        drop_path: rate of dropping a whole example's branch.
        recompute: merge again in the backward pass instead of keeping D.
        fuse: one product x (W0 + D^s) instead of two.
    """

    kernel: Kernel
    rank: int
    sparsify: str = "code"
    selection: str = "count"
    dropout: float = 0.1
    drop_path: float = 0.1
    recompute: bool = True
    fuse: bool = False


def check(layers: Layers) -> None:
    """Raises a ValueError that names the first option out of range."""
    if layers.rank < 1 or layers.rank % layers.kernel.pieces:
        raise ValueError(f"rank: found {layers.rank}, expected a positive multiple of pieces={layers.kernel.pieces}")
    for name, known in (("sparsify", MODES), ("selection", SELECTIONS)):
        if getattr(layers, name) not in known:
            raise ValueError(f"{name}: found '{getattr(layers, name)}', expected one of {', '.join(known)}")
    for name in ("dropout", "drop_path"):
        rate = getattr(layers, name)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"{name}: found {rate}, expected 0 <= {name} < 1")
        if layers.fuse and rate:
            raise ValueError(f"fuse: needs dropout=0 and drop_path=0, found {name}={rate}")


def targeted(backbone: Backbone, targets: Iterable[str] | None) -> dict[str, Linear]:
    """Port path -> linear layer; all that the backbone has when `targets` is None."""
    if targets is not None:
        return linears(backbone, targets)
    paths = backbone.shapes().ports
    return linears(backbone, [t for t, end in LINEARS.items() if any(path.endswith(f"/{end}") for path in paths)])


def init(layers: Layers, key: jax.Array, sites: Mapping[str, Linear]) -> dict[str, dict[str, jax.Array]]:
    """Factors in_q (H, inputs, r/H) and out_q (H, outputs, r/H), uniform in +-1/sqrt(width r/H), and the scalars."""
    piece = layers.rank // layers.kernel.pieces

    def factor(key, width):
        bound = (width * piece) ** -0.5  # PyTorch's kaiming_uniform(a=sqrt 5) counts the last two axes as fan-in
        return jax.random.uniform(key, (layers.kernel.pieces, width, piece), minval=-bound, maxval=bound)

    params = {}
    for i, (path, site) in enumerate(sites.items()):
        inward, outward = jax.random.split(jax.random.fold_in(key, i))
        scalars = {name: jnp.full((1,), value) for name, value in layers.kernel.scalars.items()}
        params[path] = {"in_q": factor(inward, site.inputs), "out_q": factor(outward, site.outputs), **scalars}
    return params


def update(layers: Layers, params: Mapping[str, jax.Array], level: Any | None) -> jax.Array:
    """D^s (inputs, outputs) of one layer; D itself when the layer does not compete (level None)."""
    return _competed(layers, params, level)[0]


def _competed(layers, params, level):
    """D^s, and the limits that `_pruned` needs to find it again."""
    merged = layers.kernel.merge(params)
    if level is None:
        return merged, None
    merged = jax.lax.optimization_barrier(merged)  # else a TPU's compiler merges anew in each of a dozen passes over D
    found = limits(merged, level, mode=layers.sparsify, selection=layers.selection)
    return prune(merged, found, mode=layers.sparsify), found


def _pruned(layers, params, found):
    merged = layers.kernel.merge(params)
    return merged if found is None else prune(merged, found, mode=layers.sparsify)


def writes(layers: Layers, params: Any, levels: Levels, backbone: Any, key: jax.Array | None) -> Writers:
    """One writer per tuned layer; they are numbered in sorted order, in which jit hands dicts on."""
    group = _input_groups(params)
    product = _recomputed_product(layers) if layers.recompute else functools.partial(_product, layers)

    def seeds(path, i):
        if key is None:
            return None, None
        # Even numbers for inputs, odd ones for outputs, so that no two masks share a key.
        shared = seed_of(jax.random.fold_in(key, 2 * group[path]))
        return (None if path.endswith(LINEARS["proj"]) else shared), seed_of(jax.random.fold_in(key, 2 * i + 1))

    def writer(path, i):
        drop_seed, path_seed = seeds(path, i)

        def write(call, x):
            if layers.fuse and isinstance(call, Operation):
                dense = get(backbone, path)
                y = product(x, params[path], levels.get(path), None, dense["kernel"])
                return y + jnp.broadcast_to(dense["bias"].astype(y.dtype), y.shape)
            y = call(x)
            delta = product(x, params[path], levels.get(path), drop_seed, None)
            return y + drop_path(path_seed, delta, layers.drop_path).astype(y.dtype)

        return write

    return {path: writer(path, i) for i, path in enumerate(sorted(params))}


def _product(layers, x, params, level, seed, kernel):
    """Dropout(x) (kernel + D^s), by plain differentiation."""
    return _apply(layers, x, update(layers, params, level), seed, kernel)


def _apply(layers, x, pruned, seed, kernel):
    weights = pruned if kernel is None else kernel + pruned
    return dropout(seed, x, layers.dropout) @ weights.astype(x.dtype)


def _recomputed_product(layers: Layers) -> Callable:
    """`_product` that keeps x and the thin factors for the backward pass and merges again there.

    jax.checkpoint would also hold x back behind its barrier: an x that is cheap to derive from something else that is
    kept (GELU's output in fc2) could then not be. Here the barrier is around the factors alone.
    """

    @jax.custom_vjp
    def product(x, params, level, seed, kernel):
        return _product(layers, x, params, level, seed, kernel)

    def forward(x, params, level, seed, kernel):
        pruned, found = _competed(layers, params, level)
        return _apply(layers, x, pruned, seed, kernel), (x, params, found, level, seed, kernel)

    def backward(residuals, g):
        x, params, found, level, seed, kernel = residuals
        params, seed = _not_before(g, (params, seed))
        pruned, pull = jax.vjp(lambda params: _pruned(layers, params, found), params)
        weights = pruned if kernel is None else kernel + pruned
        dropped = dropout(seed, x, layers.dropout)
        grad_x = dropout(seed, g @ weights.T.astype(g.dtype), layers.dropout)

        def pulled_both(grad):
            return pull(grad)[0], None if kernel is None else grad.astype(kernel.dtype)

        grad_params, grad_kernel = pulled(pulled_both, dropped, g, dtype=pruned.dtype)
        # The factors' gradients first: else XLA may leave them for the end, and every layer's g would wait with them.
        grad_x = _not_before(grad_params["in_q"], grad_x)
        return grad_x, grad_params, jax.tree.map(jnp.zeros_like, level), None, grad_kernel

    product.defvjp(forward, backward)
    return product


def _not_before(g: jax.Array, tree: Any) -> Any:
    """The tree, but as a result of g: what is computed from it cannot be shared with the forward pass."""

    def cpu(g, tree):  # XLA drops barriers there before it looks for common subexpressions
        zero = 0.0 * g.reshape(-1)[0]
        return jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), tree)

    def barrier(g, tree):
        return jax.lax.optimization_barrier((g, tree))[1]

    return jax.lax.platform_dependent(g, tree, cpu=cpu, default=barrier)


def merge(layers: Layers, params: Any, levels: Levels, backbone_params: Any) -> Any:
    """Backbone parameters with W0 + D^s in place of each tuned W0."""
    updates = {path: update(layers, params[path], levels.get(path)) for path in params}
    return map_kernels(backbone_params, updates, lambda kernel, extra: kernel + extra)


def groups(backbone: Backbone) -> Rules:
    """What the official code trains besides: the class token, and a final norm that belongs to the head (ConvNeXt)."""
    names = backbone.shapes().params
    extras = (("cls_token", "cls_token"), ("head_norm", "head_norm/.*"))
    return tuple((pattern, "tuner") for name, pattern in extras if name in names)


def level_of(sparsity: float | Mapping[str, float], path: str) -> float:
    """The constructor's sparsity of one layer; mappings are keyed by port path or by short name ('q', 'fc1').

    Raises:
        ValueError: the mapping says nothing about the layer.
    """
    if not isinstance(sparsity, Mapping):
        return float(sparsity)
    if path in sparsity:
        return float(sparsity[path])
    for name, end in LINEARS.items():
        if path.endswith(end) and name in sparsity:
            return float(sparsity[name])
    raise ValueError(f"sparsity: says nothing about the layer '{path}'{nearest(path, sparsity)}")


def check_level(name: str, level: float) -> None:
    """Raises a ValueError unless `level` is in [0, 1]."""
    if not 0.0 <= level <= 1.0:
        raise ValueError(f"{name}: found {level}, expected 0 <= {name} <= 1")


def _input_groups(params: Iterable[str]) -> dict[str, int]:
    """Port path -> number of its input; q, k and v of one attention have the same."""
    qkv = tuple(LINEARS[name] for name in "qkv")
    params = sorted(params)
    inputs = [path[: path.rindex("/")] + "/qkv" if path.endswith(qkv) else path for path in params]
    number = {name: i for i, name in enumerate(dict.fromkeys(inputs))}
    return {path: number[name] for path, name in zip(params, inputs, strict=True)}
