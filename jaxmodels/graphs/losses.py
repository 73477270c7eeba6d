"""Losses of graph tasks: the loss of every entry and how much it counts; the loss is sum(loss weight) / sum(weight)."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

Entries = tuple[Array, Array]  # (losses, weights), same shape


def class_weights(label: Int[Array, "r"], rows: Bool[Array, "r"], classes: int) -> Float[Array, "c"]:
    """(V - V_c) / V over the V rows that count, V_c of them in class c; 0 for a class without rows.

    >>> class_weights(jnp.array([0, 0, 0, 1]), jnp.ones(4, bool), 3).tolist()
    [0.25, 0.75, 0.0]
    """
    sizes = jax.ops.segment_sum(rows.astype(jnp.result_type(float)), label, classes)
    total = jnp.maximum(sizes.sum(), 1.0)
    return jnp.where(sizes > 0, (total - sizes) / total, 0.0)


def nll(
    log_probs: Float[Array, "r c"], label: Int[Array, "r"], rows: Bool[Array, "r"], *, kind: str = "plain"
) -> Entries:
    """Negative log-likelihood of class labels.

    Args:
        log_probs: log-probabilities.
        label: class indices; anything where `rows` is False.
        rows: which rows count.
        kind: 'plain'; 'weighted' by `class_weights`; 'focal', times (1 - p)^2 (Lin et al. 2017, arXiv 1708.02002).
    """
    label = jnp.where(rows, label, 0).astype(jnp.int32)
    losses = -jnp.take_along_axis(log_probs, label[:, None], axis=1)[:, 0]
    weights = rows.astype(losses.dtype)
    if kind == "weighted":
        weights = weights * class_weights(label, rows, log_probs.shape[-1])[label].astype(losses.dtype)
    if kind == "focal":
        losses = (1.0 - jnp.exp(-losses)) ** 2 * losses
    return losses, weights


def bce(
    logits: Float[Array, "*shape"], label: Float[Array, "*shape"], labelled: Bool[Array, "*shape"],
    *, kind: str = "plain",
) -> Entries:  # fmt: skip
    """Binary cross entropy of labels 0 and 1.

    Args:
        logits: one per entry.
        label: numbers; anything where `labelled` is False.
        labelled: which entries count.
        kind: 'plain'; 'weighted', where the loss, not the mean's weight, is multiplied by `class_weights`.
    """
    losses = optax.sigmoid_binary_cross_entropy(logits, label)
    if kind == "weighted":
        classes = label.astype(jnp.int32).reshape(-1)
        weights = class_weights(classes, labelled.reshape(-1), 2)[classes].reshape(label.shape)
        losses = losses * weights.astype(losses.dtype)
    return losses, labelled.astype(losses.dtype)
