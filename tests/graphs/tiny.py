"""Small random graphs and models, and one compiled forward pass per model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.graphs.graph import batch_graphs, make_graph
from jaxmodels.graphs.n2 import N2
from tests.quick import quick  # noqa: F401  # handed on

SMALL = dict(outputs=3, steps=2, width=6, state_width=4, pieces=2, pseudo_nodes=3, block=4)


def small(**options):
    return N2(**{**SMALL, **options})


def random_graph(seed, nodes=5, edges=8, width=3, attributes=None):
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, nodes, (2, edges)) if nodes else np.zeros((2, 0), int)
    values = None if attributes is None else rng.normal(size=(ends.shape[1], attributes)).astype(np.float32)
    return make_graph(rng.normal(size=(nodes, width)).astype(np.float32), *ends, edges=values)


def batch_of(*graphs, nodes=24, edges=40, count=5):
    return batch_graphs(graphs, nodes=nodes, edges=edges, count=count)


@functools.cache
def started(module, width=3, attributes=None):
    """Random parameters of a module, none of them 0 or 1; drawn here, because `init` would compile the whole model."""
    graph = batch_of(random_graph(0, width=width, attributes=attributes))
    shapes = jax.eval_shape(module.init, jax.random.key(0), graph)["params"]
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/").rsplit("/", 1)[-1]
        values = rng.normal(size=leaf.shape).astype(np.float32)
        # As at the start: kernels in proportion to their fan-in, scales near 1, states of unit size.
        if name == "kernel":
            return jnp.asarray(values * leaf.shape[-2] ** -0.5)
        return jnp.asarray(1 + 0.1 * values if name == "scale" else 0.3 * values if name == "bias" else values)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def forward(module):
    return quick(lambda params, graph: module.apply({"params": params}, graph))
