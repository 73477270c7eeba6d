"""Method: the suite's one protocol. A method is a few pure functions over pytrees, as an optimizer is in optax.

The trainer, the optimizer partition, the checkpoint and the report work on any `Method` and know none by name. Arrays
travel as arguments (never closed over), randomness comes from the key alone, and whatever changes without a gradient
(batch statistics, memory banks, sparsity levels) is the `state` that goes in with the variables and comes back in
`Aux`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmodels.rules import Rules, Shardings

Variables = dict[str, Any]  # {'params': ..., 'state': ...}: nested dicts of arrays
Batch = Mapping[str, Any]  # named arrays with one leading batch axis
StepBatch = Batch | tuple[Batch, ...]  # what one step trains on; several have an optimizer update each


class Mean(NamedTuple):
    """A metric that merges exactly: a weighted sum and its weight, so neither masks, hosts nor ragged ends bias it."""

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @classmethod
    def of(cls, values: Float[Array, "*shape"], mask: Float[Array, "*shape"] | None = None) -> "Mean":
        """Mean of `values`, each entry weighted by `mask` (1 = counts, 0 = padding)."""
        weights = jnp.ones_like(values) if mask is None else mask.astype(values.dtype)
        return cls((values * weights).sum(), weights.sum())

    def merge(self, other: "Mean") -> "Mean":
        """The mean over both sets of examples."""
        return Mean(self.total + other.total, self.weight + other.weight)

    def value(self) -> float:
        """The mean as a Python float; NaN when nothing was counted."""
        weight = float(self.weight)
        return float(self.total) / weight if weight else float("nan")


class Aux(NamedTuple):
    """What a loss returns beside its value: the new state and metrics (name -> `Mean`)."""

    state: Any
    metrics: dict[str, Mean]


def keep_state(params: Any, grads: Any, state: Any) -> Any:
    """The default of `Method.after_step`: an optimizer step changes no state."""
    return state


class Method(NamedTuple):
    """Pure functions that define a method; built by a plain function with keyword arguments.

    Attributes:
        init: (key, batch) -> variables, {'params': ..., 'state': ...}; a method that needs no shapes takes None.
        loss: (variables, batch, key) -> (scalar, Aux); differentiable in variables['params'].
        predict: (variables, batch) -> outputs, what the metric of the task family consumes; deterministic.
        groups: ordered rules (path pattern -> group) over the parameters; the group 'frozen' is never differentiated.
        after_step: (params, grads, state) -> state, traced right after the optimizer step. `params` are the updated
            ones, `grads` holds None where a leaf is frozen.
        before_step: None, or (state, step) -> state | None on the host before a step (NumPy; None = nothing changes);
            for what is cheaper or safer outside the compiled step, such as a new sparsity budget once per epoch.
        shardings: (path pattern, mesh axis per dimension) over the parameters; what none matches is replicated.
        batch: number of rows -> a training batch as `jax.ShapeDtypeStruct`s, for planning; None where only data tell.
        project: None, or (params before, params after, state) -> params, traced after each optimizer step: where
            parameters must stay in a set, such as rows of unit length. Frozen leaves are None.
    """

    init: Callable[[jax.Array, Batch | None], Variables]
    loss: Callable[[Variables, Batch, jax.Array], tuple[jax.Array, Aux]]
    predict: Callable[[Variables, Batch], Any]
    groups: Rules
    after_step: Callable[[Any, Any, Any], Any] = keep_state
    before_step: Callable[[Any, int], Any] | None = None
    shardings: Shardings = ()
    batch: Callable[[int], Batch] | None = None
    project: Callable[[Any, Any, Any], Any] | None = None
