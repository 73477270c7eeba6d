"""SNELLA's outer competition: layers compete for a shrinking budget of surviving weights (arXiv 2510.24037).

Importances are running averages kept on the device; the allocation itself runs once per epoch on the host in float64,
because its loop need not end in float32 with many millions of weights.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

METRICS = ("ipt", "mag")
ROUNDS = 1000  # of handing out what full layers left over; three or four are usual


class Schedule(NamedTuple):
    """How the budget falls from `initial` to `target` weights.

    Attributes:
        epochs: T.
        warmup: w0, epochs at the start without change.
        final: w1, epochs at the end with the target budget.
        interval: epochs between re-allocations in between.
    """

    epochs: int
    warmup: int = 0
    final: int = 0
    interval: int = 1


def budget(epoch: int, initial: int | float, target: int | float, schedule: Schedule) -> tuple[int | float, bool]:
    """Budget at the start of an epoch (from 0), and whether layers are re-allocated then.

    B_e = target + (initial - target) (1 - (e - w0) / (T - w1 - w0))^3, truncated; after epoch T nothing changes.

    >>> [budget(epoch, 1000, 100, Schedule(10)) for epoch in (0, 1, 10, 11)]
    [(1000, False), (756.0, True), (100.0, True), (100.0, False)]
    """
    epochs, warmup, final, interval = schedule
    if epoch <= warmup:
        return initial, False
    if epoch > epochs - final:
        return float(int(target)), epoch <= epochs
    left = 1.0 - (epoch - warmup) / (epochs - final - warmup)
    return float(int(target + (initial - target) * left**3)), epoch % interval == 0


def allocate(scores: np.ndarray, capacities: np.ndarray, volume: int | float) -> np.ndarray:
    """Distributes `volume` weights over layers in proportion to their scores, no layer above its capacity.

    What full layers leave over goes to those with room, again in proportion, until nothing is left or nobody with a
    score has room. Truncated to integers at the end, so that a few weights may remain.

    Args:
        scores: importance of each layer (L,).
        capacities: weights of each layer (L,).
        volume: B.

    Returns:
        Surviving weights of each layer (L,), int64.

    >>> allocate(np.array([0.7, 0.3]), np.array([50, 100]), 100).tolist()
    [50, 50]
    """
    scores, capacities = np.asarray(scores, np.float64), np.asarray(capacities, np.float64)
    volumes = np.minimum(capacities, np.trunc(volume * scores))
    for _ in range(ROUNDS):
        rest, room = volume - volumes.sum(), capacities - volumes
        open_scores = np.where(room > 0, scores, 0.0)
        if rest <= 0 or open_scores.sum() <= 0:
            break
        volumes = volumes + np.minimum(rest * open_scores / open_scores.sum(), room)
    return np.trunc(volumes).astype(np.int64)


def start(params: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Running averages of zero: {port path: {'in_q', 'out_q': {'mean', 'spread'}}}, shaped as the factors."""
    return {
        path: {name: {part: np.zeros(p[name].shape, np.float32) for part in ("mean", "spread")} for name in _FACTORS}
        for path, p in params.items()
    }


def accumulate(averages: Any, params: Any, grads: Any, *, beta1: float, beta2: float, metric: str) -> Any:
    """One step of the running averages of importance I = |theta grad| ('ipt') or |theta| ('mag').

    mean <- b1 mean + (1 - b1) I;  spread <- b2 spread + (1 - b2) |I - mean|, with the new mean. Here theta is the
    factor AFTER the optimizer step and grad the gradient of that step; neither average is bias-corrected.
    """

    def one(average, theta, grad):
        importance = jnp.abs(theta) if metric == "mag" else jnp.abs(theta * grad)
        importance = jnp.where(jnp.isnan(importance), 0.0, importance)
        mean = beta1 * average["mean"] + (1.0 - beta1) * importance
        spread = beta2 * average["spread"] + (1.0 - beta2) * jnp.abs(importance - mean)
        return {"mean": mean, "spread": spread}

    return {
        path: {name: one(each[name], params[path][name], grads[path][name]) for name in _FACTORS}
        for path, each in averages.items()
    }


def scores(averages: Any) -> dict[str, float]:
    """Share of each layer: mean(mean * spread) of its two factors, normalised to 1; uniform while all are 0."""
    averages = jax.tree.map(lambda x: np.asarray(x, np.float64), averages)
    raw = {
        path: sum(float((each[name]["mean"] * each[name]["spread"]).mean()) for name in _FACTORS)
        for path, each in averages.items()
    }
    total = sum(raw.values())
    return {path: score / total if total > 0 else 1.0 / len(raw) for path, score in raw.items()}


def capacities(averages: Any) -> dict[str, int]:
    """Weights of each layer, inputs x outputs."""
    return {path: each["in_q"]["mean"].shape[1] * each["out_q"]["mean"].shape[1] for path, each in averages.items()}


def levels(averages: Any, volume: float) -> dict[str, np.float32]:
    """Sparsity of each layer after allocating `volume` surviving weights."""
    share, size = scores(averages), capacities(averages)
    kept = allocate(np.array([share[path] for path in size]), np.array(list(size.values())), volume)
    return {path: np.float32(np.clip(1.0 - v / size[path], 0.0, 1.0)) for path, v in zip(size, kept, strict=True)}


_FACTORS = ("in_q", "out_q")
