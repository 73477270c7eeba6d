"""Logic Diffusion as an objective that any query model can be trained with (Xie et al. 2023, arXiv 2306.03515).

A reconstruction: the paper's body could not be obtained, so that nothing here reproduces its tables. Its four
ingredients have one file each: `diffusion` (relation diffusion and walks), `pool` (the diffused queries), `adaption`
and `robust_loss`; each has an exact off switch. This file joins the last two.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.method import Mean
from jaxmodels.reasoning.adaption import (
    OFF,
    Adaption,
    check_adaption,
    lambdas,
    mean_of,
    new_track,
    norm,
    projected,
    shares,
    tracked,
    with_gradient,
)
from jaxmodels.reasoning.method import Objective, Scored, loss_metrics, pooled
from jaxmodels.reasoning.robust_loss import PLAIN, Robust, check_robust, per_query, weighted


def lod(*, diffused: Sequence[str] = (), adaption: Adaption = OFF, robust: Robust = PLAIN) -> Objective:
    """Gradient adaption over a noise-robust loss; with both off, the plain objective.

    Args:
        diffused: structures that only the pool of diffused queries brings; needed by the mode 'project' and by groups
            of 'origin'.
        adaption: how groups are balanced.
        robust: pointwise loss.

    Returns:
        An objective for `query_method`. Its metric 'loss' is the plain one, comparable between runs; 'lambda/1p' and
        so on (or 'lambda/seen', 'lambda/diffused') are the groups' weights.

    Raises:
        ValueError: an option without meaning.
    """
    check_adaption(adaption)
    check_robust(robust)
    apart = adaption.mode == "project" or adaption.groups == "origin"
    if apart and not diffused:
        needed = "mode project" if adaption.mode == "project" else "groups of origin"
        raise ValueError(f"diffused: found no structure, expected at least one with {needed}")
    if diffused and not apart:
        raise ValueError(f"diffused: found {', '.join(diffused)}, which mode {adaption.mode} does not tell apart")
    balanced = adaption.mode in ("logit", "param", "loss")

    def init(names):
        for name in diffused:
            if name not in names:
                raise ValueError(f"diffused: '{name}' is no structure of the method, found {', '.join(names)}")
        state: dict[str, Any] = {"groups": {name: new_track() for name in members(names)}} if balanced else {}
        return state | ({"step": jnp.zeros((), jnp.int32)} if robust.warm else {})

    def members(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The structures of each group that is present."""
        if adaption.groups == "structure":
            return {name: (name,) for name in names}
        found = {
            "seen": tuple(name for name in names if name not in diffused),
            "diffused": tuple(name for name in names if name in diffused),
        }
        return {group: each for group, each in found.items() if each}

    def value(params, score, weights, state):
        q = robust.q
        if robust.warm:
            q = robust.q * jnp.minimum(1.0, state["step"] / robust.warm)
            state = state | {"step": state["step"] + 1}
        found = score(params, tuple(weights))
        plain_losses = pooled({name: per_query(*found[name]) for name in weights}, weights)
        metrics = loss_metrics(plain_losses, weights)
        inside = members(tuple(weights))
        names = tuple(inside)
        weights = {group: jnp.concatenate([weights[name] for name in each]) for group, each in inside.items()}
        scored = {group: _joined(found, each) for group, each in inside.items()}

        def group_loss(found: Scored, name: str, q=q, robust=robust):
            return weighted(per_query(*found, robust, q), weights[name]).total

        losses = jnp.stack([group_loss(scored[name], name) for name in names])
        part = shares(weights, adaption.reduce)

        def gradients(robust=robust, q=q):
            one = jax.grad(lambda p, name: group_loss(_joined(score(p, inside[name]), inside[name]), name, q, robust))
            return [one(params, name) for name in names]

        if adaption.mode == "off":
            total = (part * losses).sum()
        elif adaption.mode == "project":
            total = with_gradient((part * losses).sum(), params, _projected(names, gradients(), diffused))
        else:
            measured = (PLAIN, 0.0) if adaption.measure == "log" else (robust, q)
            sizes, each = _sizes(adaption, names, scored, group_loss, gradients, measured)
            tracks = {
                name: tracked(state["groups"][name], size, loss, keep=adaption.keep)
                for name, size, loss in zip(names, sizes, jax.lax.stop_gradient(losses), strict=True)
            }
            state = state | {"groups": state["groups"] | tracks}
            weight = lambdas([tracks[name] for name in names], adaption)
            metrics |= {f"lambda/{name}": Mean(w, jnp.ones_like(w)) for name, w in zip(names, weight, strict=True)}
            total = (part * weight * losses).sum()
            if each is not None:  # the gradients are there: no second backward pass
                factors = part * weight
                combined = jax.tree.map(lambda *leaves: sum(f * x for f, x in zip(factors, leaves, strict=True)), *each)
                total = with_gradient(total, params, combined)
        return total, jax.lax.stop_gradient(state), metrics | {"objective": Mean(total, jnp.ones_like(total))}

    return Objective(init, value)


def _joined(scored: Mapping[str, Scored], names: Sequence[str]) -> Scored:
    """The scores of several structures as those of one."""
    if len(names) == 1:
        return scored[names[0]]
    return Scored(*(jnp.concatenate(parts) for parts in zip(*(scored[name] for name in names), strict=True)))


def _sizes(adaption, names, scored, group_loss, gradients, measured):
    """Sizes of the groups and, where they are at hand, the gradients of the loss that trains."""
    robust, q = measured
    if adaption.mode == "loss":
        return [jax.lax.stop_gradient(group_loss(scored[name], name, q, robust)) for name in names], None
    if adaption.mode == "logit":
        return [
            logit_size(jax.lax.stop_gradient(scored[n]), lambda f, n=n: group_loss(f, n, q, robust)) for n in names
        ], None
    each = gradients(robust, q)
    return [norm(gradient) for gradient in each], each if adaption.measure == "loss" else None


def logit_size(found: Scored, loss) -> jax.Array:
    """Norm of a group loss's gradient over its scores, times sqrt(n): a mean over n queries shrinks by that.

    Args:
        found: scores of n queries.
        loss: scores -> the group's loss.
    """
    return norm(jax.grad(loss)(found)) * len(found.positive) ** 0.5


def _projected(names, each, diffused):
    seen = [g for name, g in zip(names, each, strict=True) if name not in diffused]
    unseen = [g for name, g in zip(names, each, strict=True) if name in diffused]
    if not seen or not unseen:
        return mean_of(seen or unseen)
    return projected(mean_of(seen), mean_of(unseen))
