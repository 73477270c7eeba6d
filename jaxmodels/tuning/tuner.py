"""Tuner: one protocol for activation, weight and bypass tuners, composable like `optax.chain`.

- *Activation tuners* write at ports of the backbone (adapters, prompts, prefixes).
- *Weight tuners* change what a linear layer computes. In training they too write at the layer's port, because a side
  branch x A B is cheaper than the gradient of a merged matrix; `merge` folds them into plain backbone parameters.
- *Bypass tuners* read ports and compute the features beside the backbone, which then needs no backward pass at all.
- `groups` lets a tuner train parameters of the backbone itself (biases, the last block, everything).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxmodels import ports
from jaxmodels.backbones.backbone import Backbone
from jaxmodels.ports import Writers
from jaxmodels.rules import Rules


class Context(NamedTuple):
    """What a tuner sees beside its own parameters.

    Attributes:
        backbone: the backbone's parameters.
        state: the tuner's own state (traced values that no gradient changes), {} for most.
        key: randomness of this step (dropout); None in prediction.
    """

    backbone: Any
    state: Any
    key: jax.Array | None


class Tuner(NamedTuple):
    """A tuner as pure functions; the defaults do nothing.

    Attributes:
        config: {'method': name, **hyper-parameters}, plain JSON values; the header of saved tuners.
        init: (key, backbone) -> params; a dict keyed by port path wherever a site has its own parameters.
        writes: (params, context) -> {port path: writer} (see `ports.compose` for writers at a shared port).
        groups: backbone -> rules over the backbone's parameter paths, for those that train; what no rule matches is
            frozen.
        reads: backbone -> port paths a bypass reads.
        bypass: None, or (params, {port path: activation}, tail) -> features (B, D), where `tail` is the backbone's
            final norm and pooling, (B, N, D) -> (B, D).
        merge: None (cannot be merged), or (params, backbone params, state) -> backbone params that compute the same.
        init_state: backbone -> state.
        after_step: (params, grads, state) -> state, traced after each optimizer step.
        before_step: None, or (state, step) -> state | None on the host.
        tokenwise: whether the bypass computes every token from the same token of its reads alone.
    """

    config: dict[str, Any]
    init: Callable[[jax.Array, Backbone], Any] = lambda key, backbone: {}
    writes: Callable[[Any, Context], Writers] = lambda params, context: {}
    groups: Callable[[Backbone], Rules] = lambda backbone: ()
    reads: Callable[[Backbone], tuple[str, ...]] = lambda backbone: ()
    bypass: Callable[[Any, dict[str, jax.Array], Callable], jax.Array] | None = None
    merge: Callable[[Any, Any, Any], Any] | None = None
    init_state: Callable[[Backbone], Any] = lambda backbone: {}
    after_step: Callable[[Any, Any, Any], Any] = lambda params, grads, state: state
    before_step: Callable[[Any, int], Any] | None = None
    tokenwise: bool = False


def chain(*tuners: Tuner) -> Tuner:
    """Several tuners as one; at a shared port the later one wraps the earlier.

    Parameters and state are keyed by method name.

    Raises:
        ValueError: no tuner, or more than one bypass.
    """
    if not tuners:
        raise ValueError("chain(): expected at least one tuner, found none")
    bypasses = [tuner for tuner in tuners if tuner.bypass]
    if len(bypasses) > 1:
        names = ", ".join(tuner.config["method"] for tuner in bypasses)
        raise ValueError(f"chain(): expected at most one bypass tuner, found {names}")
    parts = dict(zip(_names(tuners), tuners, strict=True))

    def key_of(key: jax.Array | None, i: int) -> jax.Array | None:
        return None if key is None else jax.random.fold_in(key, i)

    def init(key, backbone):
        return {name: part.init(key_of(key, i), backbone) for i, (name, part) in enumerate(parts.items())}

    def writes(params, context):
        each = (
            part.writes(params[name], Context(context.backbone, context.state[name], key_of(context.key, i)))
            for i, (name, part) in enumerate(parts.items())
        )
        return ports.compose(*each)

    def merge(params, backbone_params, state):
        for name, part in parts.items():
            assert part.merge is not None
            backbone_params = part.merge(params[name], backbone_params, state[name])
        return backbone_params

    def bypass(params, reads, tail):
        name = next(name for name, part in parts.items() if part.bypass)
        return parts[name].bypass(params[name], reads, tail)

    def after_step(params, grads, state):
        return {name: part.after_step(params[name], grads[name], state[name]) for name, part in parts.items()}

    def before_step(state, step):
        changed = {n: p.before_step(state[n], step) for n, p in parts.items() if p.before_step}
        changed = {name: new for name, new in changed.items() if new is not None}
        return {**state, **changed} if changed else None

    return Tuner(
        config={"method": "chain", "parts": {name: part.config for name, part in parts.items()}},
        init=init,
        writes=writes,
        groups=lambda backbone: tuple(rule for part in tuners for rule in part.groups(backbone)),
        reads=lambda backbone: tuple(path for part in tuners for path in part.reads(backbone)),
        bypass=bypass if bypasses else None,
        merge=merge if all(part.merge for part in tuners) else None,
        init_state=lambda backbone: {name: part.init_state(backbone) for name, part in parts.items()},
        after_step=after_step,
        before_step=before_step if any(part.before_step for part in tuners) else None,
        tokenwise=any(tuner.tokenwise for tuner in bypasses),
    )


def _names(tuners: tuple[Tuner, ...]) -> list[str]:
    names: list[str] = []
    for tuner in tuners:
        name = tuner.config["method"]
        repeats = sum(other == name or other.startswith(f"{name}_") for other in names)
        names.append(f"{name}_{repeats + 1}" if repeats else name)
    return names
