"""classifier: a frozen backbone, a tuner and a new head as one `Method`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.method import Aux, Mean, Method
from jaxmodels.tuning.heads import Head, linear_head
from jaxmodels.tuning.tuner import Context, Tuner


def classifier(
    backbone: Backbone,
    tuner: Tuner,
    *,
    num_classes: int,
    head: Head | None = None,
    label_smoothing: float = 0.0,
) -> Method:
    """Image classification by a tuned backbone.

    Parameters are {'backbone', 'tuner', 'head'}; the head always trains, the tuner trains, and of the backbone whatever
    the tuner's groups name. A batch holds 'image' (B, H, W, 3), normalised, and 'label' (B,); 'mask' (B,) marks padding
    with 0. A bypass tuner on a frozen backbone also takes 'features' ({port path: activation}, see `cached_reads`)
    instead of images, and then costs no backbone forward at all.

    Args:
        backbone: such as `vit('b16')`.
        tuner: such as `res_tuning(rank=10)`.
        num_classes: C.
        head: `linear_head()` unless given.
        label_smoothing: of the cross entropy.

    Returns:
        A `Method` whose predict gives logits (B, C) in float32.
    """
    head = head or linear_head()
    trained_backbone = tuple((f"backbone/{pattern}", group) for pattern, group in tuner.groups(backbone))
    groups = (("head/.*", "head"), ("tuner/.*", "tuner"), *trained_backbone, ("backbone/.*", "frozen"))

    def init(key, batch=None):
        keys = jax.random.split(key, 3)
        params = {
            "backbone": backbone.init(keys[0]),
            "tuner": tuner.init(keys[1], backbone),
            "head": head.init(keys[2], backbone.width, num_classes),
        }
        return {"params": params, "state": tuner.init_state(backbone)}

    def loss(variables, batch, key):
        logits = _logits(backbone, tuner, head, variables, batch, key)
        targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], num_classes), label_smoothing)
        losses = optax.softmax_cross_entropy(logits, targets)
        mask = batch.get("mask")
        correct = (logits.argmax(-1) == batch["label"]).astype(jnp.float32)
        mean = Mean.of(losses, mask)
        aux = Aux(variables["state"], {"loss": mean, "accuracy": Mean.of(correct, mask)})
        return mean.total / jnp.maximum(mean.weight, 1.0), aux

    def predict(variables, batch):
        return _logits(backbone, tuner, head, variables, batch, None)

    def batch(count):
        pixels = (count, backbone.image_size, backbone.image_size, 3)
        image, label = jax.ShapeDtypeStruct(pixels, jnp.float32), jax.ShapeDtypeStruct((count,), jnp.int32)
        return {"image": image, "label": label}

    def after_step(params, grads, state):
        return tuner.after_step(params["tuner"], grads["tuner"], state)

    shardings = tuple((f"backbone/{pattern}", axes) for pattern, axes in backbone.shardings)
    return Method(init, loss, predict, groups, after_step, tuner.before_step, shardings, batch)


def features(backbone: Backbone, tuner: Tuner, params: Any, state: Any, batch: Any, key: jax.Array | None):
    """Pooled features (B, D) of a tuned backbone; `params` holds 'backbone' and 'tuner'."""
    tuner_key, drop_key = (None, None) if key is None else jax.random.split(key)
    if tuner.bypass is None:
        writers = tuner.writes(params["tuner"], Context(params["backbone"], state, tuner_key))
        return backbone.apply(params["backbone"], batch["image"], writers=writers, key=drop_key)
    if "features" in batch:
        reads = batch["features"]
    else:
        reads = bypass_reads(backbone, tuner, params, state, batch["image"], tuner_key)
    return tuner.bypass(params["tuner"], needed(backbone, tuner, reads), lambda x: backbone.tail(params["backbone"], x))


def bypass_reads(backbone: Backbone, tuner: Tuner, params: Any, state: Any, images: ArrayLike, key: jax.Array | None):
    """What a bypass reads. Where nothing upstream trains it is detached: the backbone then keeps no residuals.

    The backbone runs without stochastic depth, so that cached features equal computed ones.
    """
    writers = tuner.writes(params["tuner"], Context(params["backbone"], state, key))
    reads = backbone.read(params["backbone"], images, tuner.reads(backbone), writers=writers)
    return reads if writers or tuner.groups(backbone) else jax.lax.stop_gradient(reads)


def needed(backbone: Backbone, tuner: Tuner, reads: dict[str, Any]) -> dict[str, Any]:
    """The part of the reads (B, N, D) that the features depend on.

    Where the features are taken from leading tokens (a class token) and the bypass treats each token alone, the others
    never matter: on ViT-B/16 a 197th of the work, and of a cache, remains.
    """
    if not tuner.tokenwise or backbone.pooled_tokens is None:
        return reads
    return {path: x[:, : backbone.pooled_tokens] for path, x in reads.items()}


def _logits(backbone: Backbone, tuner: Tuner, head: Head, variables: Any, batch: Any, key: jax.Array | None):
    params = variables["params"]
    return head.apply(params["head"], features(backbone, tuner, params, variables["state"], batch, key))
