"""Ports: tuners and readers stay outside the backbone.

Every interesting activation of a backbone is the output of a named submodule; its path ('block3/attn/q_proj') is a
port. Writing at a port is `nn.intercept_methods`, reading is `capture_intermediates`; the backbone's code never
changes and the tuner's parameters are a tree of their own. A writer wraps the port's call, as a decorator would, and
must be a pure function of its arguments and of arrays it closes over: creating Flax modules inside an interceptor
leaks tracers as soon as a block is rematerialised.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.rules import nearest

Writer = Callable[..., Any]  # (call, *args, **seen) -> output; `call` is the wrapped operation itself
Writers = Mapping[str, Writer]  # port path -> writer


class Port(nn.Module):
    """The identity, named: a place to read or write. `seen` are other arrays a writer may look at (never changed)."""

    @nn.compact
    def __call__(self, x: Any, **seen: Any) -> Any:
        """Returns x."""
        return x


class Operation:
    """A port's own call, with no other writer in between.

    A writer that recognises it may compute the same thing in a cheaper way, as SNELL does when it adds its update to
    the frozen kernel and multiplies once; called through another writer's wrapper it must not.
    """

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *args: Any, **seen: Any) -> Any:
        """Runs the operation."""
        return self._call(*args, **seen)


class Shapes(NamedTuple):
    """What a tuner may know when it is initialised: no array, only shapes.

    Attributes:
        ports: port path -> (positional inputs, output), trees of `jax.ShapeDtypeStruct`.
        params: the backbone's parameters as `jax.ShapeDtypeStruct`s.
    """

    ports: dict[str, tuple[tuple[Any, ...], Any]]
    params: Any


def write(writers: Writers):
    """Context in which every Flax call at a port of `writers` goes through its writer."""

    def interceptor(call, args, kwargs, context):
        path = "/".join(context.module.path)
        if context.method_name == "__call__" and path in writers:
            return writers[path](Operation(call), *args, **kwargs)
        return call(*args, **kwargs)

    return nn.intercept_methods(interceptor)


def compose(*layers: Writers) -> Writers:
    """One set of writers from several; at a shared port the later one wraps the earlier.

    >>> both = compose({'mlp': lambda call, x: call(x) + 1}, {'mlp': lambda call, x: 10 * call(x)})
    >>> both['mlp'](lambda x: x, 2)
    30
    """
    composed: dict[str, Writer] = {}
    for writers in layers:
        for path, writer in writers.items():
            composed[path] = _wrap(composed[path], writer) if path in composed else writer
    return composed


def _wrap(inner: Writer, outer: Writer) -> Writer:
    def writer(call, *args, **seen):
        return outer(lambda *a, **s: inner(call, *a, **s), *args, **seen)

    return writer


def shapes(apply: Callable[..., Any], params: Any, *inputs: Any) -> Shapes:
    """Shapes at every port of `apply(params, *inputs)`, from one abstract evaluation (nothing is computed)."""
    recorded: dict[str, tuple[tuple[Any, ...], Any]] = {}

    def abstract(tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)

    def record(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.method_name == "__call__":
            recorded["/".join(context.module.path)] = (abstract(args), abstract(out))
        return out

    with nn.intercept_methods(record):
        jax.eval_shape(apply, params, *inputs)
    return Shapes(recorded, abstract(params))


def check_known(paths: Any, known: Mapping[str, Any], what: str) -> None:
    """Raises a ValueError that names the first path that is no port, with the nearest one that is."""
    for path in paths:
        if path not in known:
            raise ValueError(f"{what}: the backbone has no port '{path}'{nearest(path, known)}")


def captured(intermediates: Mapping[str, Any], path: str) -> Any:
    """The activation at `path` in the collection that `capture_intermediates` fills."""
    node: Any = intermediates
    for part in path.split("/"):
        node = node[part]
    return node["__call__"][0]
