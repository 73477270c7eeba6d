"""Hinge losses over sampled negatives, from all of them to the few that are nearest (arXiv 2209.15292, 2409.01012).

Only the first two are published; 'topk', 'cvar' and 'soft' are a reconstruction of the journal version's idea, whose
formulas could not be obtained: hard sampling maximises a one-way partial AUC, the part of the ROC curve up to a false
positive rate beta, which so far was tied to the number of candidates.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FORMS = ("mean", "nearest", "topk", "cvar", "soft")


def preference(
    positive: Float[Array, " b"],
    negative: Float[Array, "b s"],
    *,
    margin: float,
    form: str = "nearest",
    beta: float = 1.0,
    temperature: float = 1.0,
    threshold: Float[Array, " b"] | float = 0.0,
) -> Float[Array, " b"]:
    """A row's loss, of h_j = relu(margin + positive - negative_j).

    Args:
        positive: squared distance to the positive item.
        negative: to S candidates.
        margin: lambda.
        form: 'mean' of h; 'nearest' takes the nearest candidate; 'topk' the mean of the k = ceil(beta S) largest h;
            'cvar' t + sum relu(h - t) / k, whose minimum over t is 'topk', with t given; 'soft' weighs h by
            softmax(-negative / temperature).
        beta: share of the candidates, for 'topk' and 'cvar'.
        temperature: of 'soft'.
        threshold: t of 'cvar'.
    """
    hinge = jax.nn.relu(margin + positive[:, None] - negative)
    k = hardest(negative.shape[1], beta)
    if form == "mean":
        return hinge.mean(1)
    if form == "nearest":
        return jax.nn.relu(margin + positive - negative.min(1))
    if form == "topk":
        return jax.lax.top_k(hinge, k)[0].mean(1)
    if form == "cvar":
        level = jnp.broadcast_to(jnp.asarray(threshold), positive.shape)
        return level + jax.nn.relu(hinge - level[:, None]).sum(1) / k
    return (jax.nn.softmax(-negative / temperature, axis=1) * hinge).sum(1)


def hardest(candidates: int, beta: float) -> int:
    """How many of the candidates count.

    >>> hardest(10, 0.25), hardest(10, 0.01)
    (3, 1)
    """
    return max(1, math.ceil(round(beta * candidates, 9)))


def check_form(form: str, beta: float, temperature: float) -> None:
    """Raises ValueError for an unknown form or a number out of range."""
    if form not in FORMS:
        raise ValueError(f"form: found '{form}', expected one of {', '.join(FORMS)}")
    if not 0 < beta <= 1:
        raise ValueError(f"beta: found {beta}, expected more than 0 and at most 1")
    if temperature <= 0:
        raise ValueError(f"temperature: found {temperature}, expected more than 0")
