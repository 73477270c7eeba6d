"""Weight tuners folded into plain backbone weights, checked on a probe batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.method import Variables
from jaxmodels.tuning.classifier import features
from jaxmodels.tuning.tuner import Tuner

PROBE_IMAGES = 4


def merge_tuner(
    tuner: Tuner,
    backbone: Backbone,
    variables: Variables,
    *,
    probe: jax.Array | None = None,
    report: Callable[[str], Any] = print,
) -> Any:
    """Backbone parameters that compute alone what backbone and weight tuner compute together.

    Merged and compared in float32, whatever the parameters are stored in; reports the largest deviation of a feature
    on the probe batch, next to the largest feature.

    Args:
        tuner: a weight tuner (lora, snell, snella, ssf, fact), or several as a chain.
        backbone: what it was trained on.
        variables: {'params': {'backbone', 'tuner', ...}, 'state'}, as `classifier` has them.
        probe: images (B, H, W, 3) for the check; four of standard normal pixels unless given.
        report: takes the one line of the report.

    Returns:
        The backbone's parameters, in the dtypes they came in.

    Raises:
        ValueError: the tuner changes activations in a way that no weight can express.
    """
    name = tuner.config["method"]
    if tuner.merge is None:
        raise ValueError(f"merge_tuner: '{name}' changes activations, not weights; it cannot be merged")
    if probe is None:
        side = backbone.image_size
        probe = jax.random.normal(jax.random.key(0), (PROBE_IMAGES, side, side, 3))
    exact = backbone._replace(module=backbone.module.clone(dtype=jnp.float32))
    stored = variables["params"]["backbone"]
    params = {"backbone": jax.tree.map(_widened, stored), "tuner": jax.tree.map(_widened, variables["params"]["tuner"])}
    merged = tuner.merge(params["tuner"], params["backbone"], variables["state"])
    before = features(exact, tuner, params, variables["state"], {"image": probe}, None)
    after = exact.apply(merged, probe)
    deviation, largest = float(jnp.abs(after - before).max()), float(jnp.abs(before).max())
    report(
        f"merged {name} into {backbone.name}: features deviate by at most {deviation:.1e} (largest feature "
        f"{largest:.1e}) on {len(probe)} probe images"
    )
    return jax.tree.map(lambda new, old: new.astype(old.dtype), merged, stored)


def _widened(leaf: jax.Array) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
