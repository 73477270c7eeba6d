"""The part that SNELL and SNELLA share: kernelised, sparsified updates of linear layers.

Per tuned layer: y = x W0 + b + DropPath(Dropout(x) D^s), where D (inputs, outputs) is merged from thin factors by a
kernel and D^s is D after competition. Neither D nor D^s outlives its layer: both are recomputed in the backward pass,
for which one scalar per layer, the threshold, is kept.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.ports import Writers
from jaxmodels.rules import Rules, nearest
from jaxmodels.tuning.dropout import drop_path, dropout
from jaxmodels.tuning.kernels import Kernel
from jaxmodels.tuning.sites import LINEARS, Linear, linears
from jaxmodels.tuning.sparsify import THRESHOLD, sparsify
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
    merged = layers.kernel.merge(params)
    if level is None:
        return merged
    return sparsify(merged, level, mode=layers.sparsify, selection=layers.selection)


def writes(layers: Layers, params: Any, levels: Levels, backbone: Any, key: jax.Array | None) -> Writers:
    """One writer per tuned layer."""
    group = _input_groups(params)

    def keys(path, i):
        if key is None:
            return None, None
        # Even numbers for inputs, odd ones for outputs, so that no two masks share a key.
        shared = jax.random.fold_in(key, 2 * group[path])
        return (None if path.endswith(LINEARS["proj"]) else shared), jax.random.fold_in(key, 2 * i + 1)

    def writer(path, i):
        level = levels.get(path)
        if layers.fuse:
            return _fused(layers, params[path], level, get(backbone, path))
        return _beside(layers, params[path], level, *keys(path, i))

    return {path: writer(path, i) for i, path in enumerate(params)}


def _recomputed(layers: Layers, function: Callable) -> Callable:
    if not layers.recompute:
        return function
    policy = jax.checkpoint_policies.save_only_these_names(THRESHOLD)
    return jax.checkpoint(function, policy=policy)


def _beside(layers, params, level, drop_key, path_key):
    def branch(x, params, level, drop_key):
        return dropout(drop_key, x, layers.dropout) @ update(layers, params, level).astype(x.dtype)

    branch = _recomputed(layers, branch)

    def write(call, x):
        y = call(x)
        delta = branch(x, params, level, drop_key)
        return y + drop_path(path_key, delta, layers.drop_path).astype(y.dtype)

    return write


def _fused(layers, params, level, dense):
    def product(x, params, level, kernel):
        return x @ (kernel + update(layers, params, level)).astype(x.dtype)

    product = _recomputed(layers, product)

    def write(call, x):
        y = product(x, params, level, dense["kernel"])
        return y + jnp.broadcast_to(dense["bias"].astype(y.dtype), y.shape)

    return write


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
    inputs = [path[: path.rindex("/")] + "/qkv" if path.endswith(qkv) else path for path in params]
    number = {name: i for i, name in enumerate(dict.fromkeys(inputs))}
    return {path: number[name] for path, name in zip(params, inputs, strict=True)}
