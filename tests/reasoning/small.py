"""What tests of query models share: a small random graph, small models, brute-force answers."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.data.query_structures import NEGATION, UNION, letters, structure_of
from jaxmodels.reasoning.betae import betae
from jaxmodels.reasoning.gqe import gqe
from jaxmodels.reasoning.graph import build_graph
from jaxmodels.reasoning.query2box import query2box
from jaxmodels.reasoning.structures import is_chain, is_union

ENTITIES, RELATIONS = 12, 6
POSITIVE = ("1p", "2p", "3p", "2i", "3i", "ip", "pi", "2u-DNF", "up-DNF")
MODELS = {
    "gqe": lambda **more: gqe(ENTITIES, RELATIONS, dim=4, gamma=6.0, **more),
    "query2box": lambda **more: query2box(ENTITIES, RELATIONS, dim=4, gamma=6.0, **more),
    "betae": lambda **more: betae(ENTITIES, RELATIONS, dim=4, gamma=6.0, hidden=5, layers=1, **more),
}


def random_graph(seed=0, edges=25):
    rng = np.random.default_rng(seed)
    triples = np.stack([rng.integers(n, size=edges) for n in (ENTITIES, RELATIONS // 2, ENTITIES)], axis=1)
    triples[:, 1] *= 2
    return build_graph(triples, entities=ENTITIES, relations=RELATIONS)


def random_queries(name, count, seed=0):
    rng = np.random.default_rng(seed)
    sizes = {"e": ENTITIES, "r": RELATIONS}
    marks = {"n": NEGATION, "u": UNION}
    columns = [
        np.full(count, marks[letter]) if letter in marks else rng.integers(sizes[letter], size=count)
        for letter in letters(structure_of(name))
    ]
    return np.stack(columns, axis=1)


def random_params(model, seed=0):
    """Random values in place of every leaf, drawn by NumPy: nothing to compile."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape), jnp.float32), shapes)


def brute_force(graph, name, query):
    """The answers of one query by the definition, over Python sets."""
    edges = {tuple(map(int, edge)) for edge in graph.edges}
    tokens = [int(token) for token in query]
    everything = set(range(graph.entities))

    def visit(node):
        if is_chain(node):
            reached = {tokens.pop(0)} if node[0] == "e" else visit(node[0])
            for letter in node[1]:
                relation = tokens.pop(0)
                if letter == "n":
                    reached = everything - reached
                else:
                    reached = {t for h, r, t in edges if r == relation and h in reached}
            return reached
        children = [visit(child) for child in (node[:-1] if is_union(node) else node)]
        if is_union(node):
            tokens.pop(0)
            return set.union(*children)
        return set.intersection(*children)

    return visit(structure_of(name))
