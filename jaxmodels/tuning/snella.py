"""SNELLA: SNELL with the mixture kernel and an adaptive budget per layer (Shen et al. 2025, arXiv 2510.24037)."""

from collections.abc import Sequence

import jax
import numpy as np

from jaxmodels.tuning import allocation, kernelized
from jaxmodels.tuning.allocation import Schedule
from jaxmodels.tuning.kernelized import Layers
from jaxmodels.tuning.kernels import kernel
from jaxmodels.tuning.tuner import Tuner


def snella(
    rank: int = 8,
    *,
    steps_per_epoch: int,
    epochs: int = 100,
    sparsity: float = 0.5,
    init_sparsity: float = 0.01,
    warmup_epochs: int = 0,
    final_epochs: int = 0,
    interval: int = 1,
    metric: str = "ipt",
    beta1: float = 0.85,
    beta2: float = 0.85,
    sparsify: str = "code",
    selection: str = "count",
    targets: Sequence[str] | None = None,
    dropout: float = 0.1,
    drop_path: float = 0.1,
    recompute: bool = True,
    fuse: bool = False,
    train_extras: bool = True,
) -> Tuner:
    """Bi-level competition: entries compete inside a layer, layers compete for the budget (SNELLA-`rank`).

    W = E + alpha softmax_out(E / gamma) + beta on the piecewise-linear E, then the sparsifier (also at s = 0). Running
    importances of the factors are updated after each step; at the start of each epoch the budget of surviving weights
    falls from (1 - init_sparsity) to (1 - sparsity) of all weights and is allocated anew. A layer driven to s = 1 gets
    no gradient and no score, and cannot recover.

    State: {'sparsity': {port path: s}, 'importance': {port path: {factor: {'mean', 'spread'}}}}.

    Args:
        rank: r, even.
        steps_per_epoch: optimizer steps per epoch.
        epochs: T of the budget's schedule; nothing changes after epoch T.
        sparsity: the final share of pruned weights over all layers (the official target_ratio).
        init_sparsity: the share at the start, the same in every layer.
        warmup_epochs: w0, epochs without change at the start.
        final_epochs: w1, epochs at the final budget.
        interval: epochs between allocations in between.
        metric: importance, 'ipt' (|theta grad|) or 'mag' (|theta|).
        beta1: decay of the importance's running mean.
        beta2: decay of its running mean deviation.
        sparsify: see `snell`, as all that follow.
        selection: see `snell`.
        targets: see `snell`.
        dropout: see `snell`.
        drop_path: see `snell`.
        recompute: see `snell`.
        fuse: see `snell`.
        train_extras: see `snell`.

    Returns:
        A weight tuner with host and device hooks.

    Raises:
        ValueError: an option out of range or unknown.
    """
    layers = Layers(kernel("mixture"), rank, sparsify, selection, dropout, drop_path, recompute, fuse)
    kernelized.check(layers)
    kernelized.check_level("sparsity", sparsity)
    kernelized.check_level("init_sparsity", init_sparsity)
    _check(steps_per_epoch, epochs, warmup_epochs, final_epochs, interval, metric, beta1, beta2)
    schedule = Schedule(epochs, warmup_epochs, final_epochs, interval)

    def init(key, backbone):
        return kernelized.init(layers, key, kernelized.targeted(backbone, targets))

    def init_state(backbone):
        params = jax.eval_shape(lambda key: init(key, backbone), jax.random.key(0))
        return {
            "sparsity": {path: np.float32(init_sparsity) for path in params},
            "importance": allocation.start(params),
        }

    def writes(params, context):
        return kernelized.writes(layers, params, context.state["sparsity"], context.backbone, context.key)

    def after_step(params, grads, state):
        importance = allocation.accumulate(state["importance"], params, grads, beta1=beta1, beta2=beta2, metric=metric)
        return {**state, "importance": importance}

    def before_step(state, step):
        if step % steps_per_epoch:
            return None
        size = sum(allocation.capacities(state["importance"]).values())
        ends = (1.0 - init_sparsity) * size, (1.0 - sparsity) * size
        volume, anew = allocation.budget(step // steps_per_epoch, *ends, schedule)
        return {**state, "sparsity": allocation.levels(state["importance"], volume)} if anew else None

    config = {
        "method": "snella",
        "rank": rank,
        "steps_per_epoch": steps_per_epoch,
        "epochs": epochs,
        "sparsity": sparsity,
        "init_sparsity": init_sparsity,
        "warmup_epochs": warmup_epochs,
        "final_epochs": final_epochs,
        "interval": interval,
        "metric": metric,
        "beta1": beta1,
        "beta2": beta2,
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
        init,
        writes,
        groups=lambda backbone: kernelized.groups(backbone) if train_extras else (),
        merge=lambda params, backbone_params, state: kernelized.merge(
            layers, params, state["sparsity"], backbone_params
        ),
        init_state=init_state,
        after_step=after_step,
        before_step=before_step,
    )


def _check(steps_per_epoch, epochs, warmup_epochs, final_epochs, interval, metric, beta1, beta2) -> None:
    for name, value in (("steps_per_epoch", steps_per_epoch), ("interval", interval)):
        if value < 1:
            raise ValueError(f"{name}: found {value}, expected at least 1")
    if min(warmup_epochs, final_epochs) < 0 or warmup_epochs + final_epochs >= epochs:
        raise ValueError(f"epochs: found {epochs}, expected more than {warmup_epochs=} and {final_epochs=} together")
    if metric not in allocation.METRICS:
        raise ValueError(f"metric: found '{metric}', expected one of {', '.join(allocation.METRICS)}")
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not 0.0 <= value < 1.0:
            raise ValueError(f"{name}: found {value}, expected 0 <= {name} < 1")
