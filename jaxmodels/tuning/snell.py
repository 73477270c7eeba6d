"""SNELL: sparse tuning with kernelised LoRA (Shen et al. 2024, arXiv 2411.01800); KLoRA and Mix-K besides."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxmodels.tuning import kernelized
from jaxmodels.tuning.kernelized import Layers
from jaxmodels.tuning.kernels import kernel as kernel_of
from jaxmodels.tuning.tuner import Tuner


def snell(
    rank: int = 8,
    *,
    sparsity: float | Mapping[str, float] = 0.5,
    kernel: str = "piecewise_linear",
    norm: float = 2.0,
    pieces: int = 2,
    sparsify: str = "code",
    selection: str = "count",
    targets: Sequence[str] | None = None,
    dropout: float = 0.1,
    drop_path: float = 0.1,
    recompute: bool = True,
    fuse: bool = False,
    train_extras: bool = True,
) -> Tuner:
    """Sparse tuning by competition inside kernelised low-rank updates (SNELL-`rank`).

    D = kernel(In, Out) per layer (`kernels`), of which the largest entries survive (`sparsify.sparsify`). The update is
    not zero at the start, but tiny: about 1e-6 behind the signed square, so keep AdamW's eps at 1e-8 and do not clip.

    A layer whose `sparsity` is exactly 0 when the tuner is built is KLoRA, as in the official code: D is added
    directly, without square or competition, a thousand times larger. This is decided once and for all; such layers have
    no state. The other layers keep s as traced state ({port path: scalar}): it may change between steps without
    recompilation, and a traced 0 still goes through the sparsifier.

    Args:
        rank: r, a multiple of `pieces`; (inputs + outputs) r parameters per layer.
        sparsity: s, the fraction of each update that is pruned, or {port path or short name: s}; searched per task.
        kernel: 'piecewise_linear', 'linear', 'sigmoid', 'rbf' or 'mixture'.
        norm: p of the piecewise kernels' distance.
        pieces: H of the piecewise kernels.
        sparsify: 'code' (the published numbers), 'eq5', 'eq5_detach' or 'hard'.
        selection: thresholds by 'count' (fast) or 'sort'; equal results.
        targets: layers among q, k, v, proj, fc1, fc2; None takes all that the backbone has.
        dropout: rate on the branch's input; one dropped copy for q, k and v, none for proj.
        drop_path: rate of dropping the branch of a whole example (of a whole window in Swin, as published).
        recompute: recompute D in the backward pass; False keeps it (faster, 4 bytes per tuned weight).
        fuse: one product with W0 + D^s instead of two where no other tuner has written at the layer before; needs both
            rates 0 and weights precise enough for the sum (float32).
        train_extras: also train the class token and ConvNeXt's head norm, as the official code does.

    Returns:
        A weight tuner.

    Raises:
        ValueError: an option out of range or unknown (targets and layers of `sparsity` at init).
    """
    layers = Layers(
        kernel_of(kernel, norm=norm, pieces=pieces), rank, sparsify, selection, dropout, drop_path, recompute, fuse
    )
    kernelized.check(layers)
    for level in sparsity.values() if isinstance(sparsity, Mapping) else (sparsity,):
        kernelized.check_level("sparsity", level)

    def init_state(backbone):
        levels = {path: kernelized.level_of(sparsity, path) for path in kernelized.targeted(backbone, targets)}
        return {path: np.float32(level) for path, level in levels.items() if level}

    config = {
        "method": "snell",
        "rank": rank,
        "sparsity": dict(sparsity) if isinstance(sparsity, Mapping) else sparsity,
        "kernel": kernel,
        "norm": norm,
        "pieces": pieces,
        "sparsify": sparsify,
        "selection": selection,
        "targets": None if targets is None else list(targets),
        "dropout": dropout,
        "drop_path": drop_path,
        "recompute": recompute,
        "fuse": fuse,
        "train_extras": train_extras,
    }
    return Tuner(
        config,
        init=lambda key, backbone: kernelized.init(layers, key, kernelized.targeted(backbone, targets)),
        writes=lambda params, context: kernelized.writes(layers, params, context.state, context.backbone, context.key),
        groups=lambda backbone: kernelized.groups(backbone) if train_extras else (),
        merge=lambda params, backbone_params, state: kernelized.merge(layers, params, state, backbone_params),
        init_state=init_state,
    )


def klora(rank: int = 8, **options) -> Tuner:
    """Kernelised LoRA without competition: `snell` with sparsity 0 in every layer."""
    return snell(rank, sparsity=0.0, **options)


def mixk(rank: int = 8, **options) -> Tuner:
    """Mix-K (SNELLA, arXiv 2510.24037) without competition: `klora` with the mixture kernel."""
    return klora(rank, kernel="mixture", **options)
