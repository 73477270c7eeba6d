"""Path rules: ordered (pattern, value) pairs over '/'-joined parameter paths; the first full match decides.

One small idea serves freezing, optimizer groups, weight decay and sharding. Freezing is *splitting*: two trees of one
shape with None in the gaps, of which one is differentiated and the other is a plain argument. A zeroed update would
cost the gradient, its memory and its all-reduce, and would make a global-norm clip divide by gradients that nobody
uses.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

import jax

Rules = tuple[tuple[str, str], ...]
Shardings = tuple[tuple[str, tuple[str | None, ...]], ...]  # (path pattern, mesh axis of each dimension)
FROZEN = "frozen"


def path_name(path: tuple[Any, ...]) -> str:
    """A jax key path as one '/'-joined name.

    >>> [path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path({'head': {'bias': 0}})]
    ['head/bias']
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaf_names(tree: Any) -> list[str]:
    """The names of all leaves, in leaf order; None is a gap, not a leaf."""
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def match(name: str, rules: Rules) -> str:
    """The value of the first rule whose pattern matches the whole of `name`.

    Raises:
        ValueError: no rule matches; the message lists the patterns.

    >>> match('backbone/norm/bias', (('.*/bias', 'bias'), ('.*', 'rest')))
    'bias'
    """
    for pattern, value in rules:
        if re.fullmatch(pattern, name):
            return value
    raise ValueError(f"parameter '{name}' is in no group; rules: {', '.join(pattern for pattern, _ in rules)}")


def label(tree: Any, rules: Rules) -> Any:
    """The tree with every leaf replaced by its group's name."""
    return jax.tree_util.tree_map_with_path(lambda path, _: match(path_name(path), rules), tree)


def select(tree: Any, keep: Callable[[str], bool]) -> Any:
    """The tree with None in place of every leaf whose name `keep` refuses."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf if keep(path_name(path)) else None, tree)


def split(params: Any, groups: Rules) -> tuple[Any, Any]:
    """Parameters -> (trained, frozen): the same tree twice, None where the other half holds the leaf.

    >>> split({'a': 1, 'b': 2}, (('a', 'frozen'), ('.*', 'tuner')))
    ({'a': None, 'b': 2}, {'a': 1, 'b': None})
    """
    groups_of = label(params, groups)
    trained = jax.tree.map(lambda group, leaf: None if group == FROZEN else leaf, groups_of, params)
    frozen = jax.tree.map(lambda group, leaf: leaf if group == FROZEN else None, groups_of, params)
    return trained, frozen


def merge(trained: Any, frozen: Any) -> Any:
    """The inverse of `split`.

    >>> merge({'a': None, 'b': 2}, {'a': 1, 'b': None})
    {'a': 1, 'b': 2}
    """
    return jax.tree.map(lambda a, b: b if a is None else a, trained, frozen, is_leaf=lambda leaf: leaf is None)


def count(tree: Any) -> int:
    """The number of scalars in a tree of arrays or abstract arrays.

    >>> count({'kernel': jax.numpy.ones((3, 4)), 'bias': None})
    12
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an error message: "; did you mean 'x'?" or nothing.

    >>> nearest('norm/weigth', ['norm/weight', 'head/bias'])
    "; did you mean 'norm/weight'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
