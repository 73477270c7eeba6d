"""Precision policy: trained parameters in float32, frozen ones optionally in bfloat16, computation by device."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmodels.rules import Rules, merge, split

NAMES = ("auto", "float32", "bfloat16")


class Precision(NamedTuple):
    """compute: dtype of the backbone's matrix products; frozen: dtype in which frozen parameters are stored.

    Losses, norms' statistics, softmax and heads stay in float32 whatever the policy.
    """

    compute: Any
    frozen: Any


def precision(name: str = "auto", *, platform: str | None = None) -> Precision:
    """'float32', 'bfloat16', or 'auto': bfloat16 on TPU and GPU, float32 on a CPU.

    Raises:
        ValueError: another name.
    """
    if name not in NAMES:
        raise ValueError(f"--precision: found '{name}', expected one of {', '.join(NAMES)}")
    if name == "auto":
        name = "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"
    dtype = jnp.float32 if name == "float32" else jnp.bfloat16
    return Precision(dtype, dtype)


def store_frozen(params: Any, groups: Rules, policy: Precision) -> Any:
    """The parameters with frozen floating leaves in the policy's storage dtype; trained ones are untouched."""
    trained, frozen = split(params, groups)

    def store(leaf):
        return leaf.astype(policy.frozen) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return merge(trained, jax.tree.map(store, frozen))
