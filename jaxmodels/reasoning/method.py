"""Query embedding as a Method: batches grouped by structure, negatives drawn on the device, one loss over all of them.

A batch is {structure: {'query' (n, L), 'positive' (n,), 'weight' (n,)}} with integers except for the weight; 'negative'
(n, K) is drawn where absent. The training rule of KGReasoning alternates batches of paths (1p 2p 3p) and of the other
structures; `alternation` and `batch_rows` say which and how many rows, and `adam` has the optimizer's part.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxmodels.data.query_structures import structure_of
from jaxmodels.method import Aux, Mean, Method
from jaxmodels.reasoning.query_model import Asked, QueryModel, scores_of_all, scores_together, supported
from jaxmodels.reasoning.robust_loss import PLAIN, Losses, PerQuery, Robust, check_robust, per_query
from jaxmodels.reasoning.structures import kinds, width
from jaxmodels.rules import Rules

GROUPS: Rules = (
    ("entity/.*", "embeddings"),
    ("relation/.*", "embeddings"),
    ("projection/.*", "projection"),
    ("intersection/.*", "intersection"),
    ("offset_intersection/.*", "offset_intersection"),
)


class Scored(NamedTuple):
    """Scores of one structure's queries."""

    positive: Float[Array, "n 1"]
    negative: Float[Array, "n k"]


Score = Callable[[Any, Sequence[str]], dict[str, Scored]]  # (parameters, structures) -> scores
Weights = dict[str, jax.Array]


class Objective(NamedTuple):
    """What a method minimises over scores.

    Attributes:
        init: names of the structures -> state.
        value: (parameters, score, weights, state) -> (scalar, state, metrics).
    """

    init: Callable[[Sequence[str]], Any]
    value: Callable[[Any, Score, Weights, Any], tuple[jax.Array, Any, dict[str, Mean]]]


def plain(robust: Robust = PLAIN) -> Objective:
    """The weighted loss over all structures of a batch, with one normaliser.

    Args:
        robust: options of the pointwise loss; `warm` needs a state and belongs to `lod`.

    Raises:
        ValueError: an option without meaning.
    """
    check_robust(robust)
    if robust.warm:
        raise ValueError(f"warm: found {robust.warm}, expected 0 for the plain objective")

    def value(params, score, weights, state):
        scored = score(params, tuple(weights))
        each = {name: per_query(*scored[name], robust) for name in weights}
        losses = pooled(each, weights)
        return losses.total, state, loss_metrics(losses, weights)

    return Objective(lambda names: {}, value)


def pooled(each: Mapping[str, PerQuery], weights: Weights) -> Losses:
    """Weighted means over the queries of several structures together."""
    weight = _total(weights[name] for name in each)
    positive, negative = (_total(weights[name] * each[name][i] for name in each) / weight for i in (0, 1))
    return Losses((positive + negative) / 2, positive, negative)


def _total(arrays: Iterable[jax.Array]) -> jax.Array:
    return jnp.stack([each.sum() for each in arrays]).sum()


def loss_metrics(losses: Losses, weights: Weights) -> dict[str, Mean]:
    """The three losses as means that merge by weight."""
    weight = _total(weights.values())
    names = ("loss", "positive_loss", "negative_loss")
    return {name: Mean(loss * weight, weight) for name, loss in zip(names, losses, strict=True)}


def query_method(
    base: QueryModel,
    structures: Sequence[str] | Mapping[str, tuple],
    *,
    negatives: int = 128,
    union: str = "dnf",
    filter_negatives: bool = False,
    chunk: int = 1024,
    objective: Objective | None = None,
) -> Method:
    """Training and ranking with a query model.

    Args:
        base: `gqe`, `query2box` or `betae`.
        structures: names, or name -> structure for shapes of one's own; a batch holds some of them.
        negatives: K, drawn per query where a batch brings none.
        union: 'dnf' or 'dm', see `query_model.embed`.
        filter_negatives: draw negatives among entities that are no answers; a batch then needs 'answers' (n, A), sorted
            and padded with the number of entities. Off, as the published code is in effect.
        chunk: entities scored at once in `predict`.
        objective: what to minimise; the plain loss unless given.

    Returns:
        A Method; `predict` gives structure -> scores of all entities (n, N).

    Raises:
        ValueError: a structure that does not exist or that the model cannot embed; in a batch, a structure that was
            not named, a missing column or rows of a wrong length.
    """
    known = dict(structures) if isinstance(structures, Mapping) else {name: structure_of(name) for name in structures}
    for name, structure in known.items():
        if not supported(base, structure, union):
            raise ValueError(f"{base.name} has no negation, which query {name} needs (union={union})")
    if negatives < 1:
        raise ValueError(f"negatives: found {negatives}, expected at least 1")
    target = objective or plain()
    entities = base.config["entities"]

    def init(key, batch):
        return {"params": base.init(key), "state": target.init(tuple(known))}

    def loss(variables, batch, key):
        batch = {name: columns(batch, name, known, TRAINED) for name in batch}
        wrong = _negatives(batch, key)

        def score(params, names):
            asked = [
                Asked(known[n], batch[n]["query"], jnp.concatenate([batch[n]["positive"][:, None], wrong[n]], axis=1))
                for n in names
            ]
            found = scores_together(base, params, asked, union=union)
            return {name: Scored(both[:, :1], both[:, 1:]) for name, both in zip(names, found, strict=True)}

        weights = {name: rows["weight"] for name, rows in batch.items()}
        value, state, metrics = target.value(variables["params"], score, weights, variables["state"])
        return value, Aux(state, metrics)

    def _negatives(batch, key):
        """Those that the batch brings; the others come from one draw, as each draw costs compile time."""
        wrong = {name: rows["negative"] for name, rows in batch.items() if "negative" in rows}
        missing = [name for name in known if name in batch and name not in wrong]
        if filter_negatives:
            for i, name in enumerate(missing):
                if "answers" not in batch[name]:
                    raise ValueError(f"batch, query {name}: has no 'answers', which filter_negatives needs")
                answers = batch[name]["answers"]
                wrong[name] = sample_others(jax.random.fold_in(key, i), answers, negatives, entities)
        elif missing:
            ends = np.cumsum([len(batch[name]["query"]) for name in missing])
            drawn = jax.random.randint(key, (int(ends[-1]), negatives), 0, entities)
            wrong |= dict(zip(missing, jnp.split(drawn, ends[:-1]), strict=True))
        return wrong

    def predict(variables, batch):
        rows = {name: columns(batch, name, known, ("query",)) for name in batch}
        return {
            name: scores_of_all(base, variables["params"], known[name], each["query"], union=union, chunk=chunk)
            for name, each in rows.items()
        }

    def abstract(rows):
        return {
            name: {
                "query": jax.ShapeDtypeStruct((count, width(known[name])), jnp.int32),
                "positive": jax.ShapeDtypeStruct((count,), jnp.int32),
                "negative": jax.ShapeDtypeStruct((count, negatives), jnp.int32),
                "weight": jax.ShapeDtypeStruct((count,), jnp.float32),
            }
            for name, count in batch_rows(rows, tuple(known)).items()
            if count
        }

    return Method(init, loss, predict, GROUPS, shardings=base.shardings, batch=abstract)


TRAINED = ("query", "positive", "weight")


def columns(
    batch: Mapping[str, Any], name: str, known: Mapping[str, tuple], needed: Sequence[str]
) -> Mapping[str, Any]:
    """The rows of one structure of a batch, checked.

    Raises:
        ValueError: a structure that the method was not built for, or a missing column.
    """
    if name not in known:
        raise ValueError(f"batch: holds query structure '{name}', expected some of {', '.join(known)}")
    for column in needed:
        if column not in batch[name]:
            found = ", ".join(sorted(batch[name]))
            raise ValueError(f"batch, query {name}: has no '{column}', found {found}")
    return jax.tree.map(jnp.asarray, dict(batch[name]))


def sample_others(key: Key[Array, ""], answers: Int[Array, "n a"], count: int, entities: int) -> Int[Array, "n k"]:
    """Entities drawn uniformly among those that are no answers, without rejection.

    Args:
        key: of the draw.
        answers: per query, ascending and distinct, padded with `entities`.
        count: K, draws per query.
        entities: N. Where all of them are answers the last one is returned.
    """
    places = jnp.arange(answers.shape[1])
    real = answers < entities
    free = jnp.maximum(entities - real.sum(1), 1)
    draws = jax.random.randint(key, (len(answers), count), 0, free[:, None])
    # The u-th free entity is u plus the answers before it; an answer a_j has a_j - j free entities before it.
    before = jnp.where(real, answers - places[None], entities + 1)
    skipped = (before[:, None, :] <= draws[:, :, None]).sum(-1)
    return jnp.minimum(draws + skipped, entities - 1)


def batch_rows(rows: int, structures: Sequence[str]) -> dict[str, int]:
    """Equal shares of a batch, the remainder to the first structures: fixed counts keep shapes static.

    >>> batch_rows(8, ('1p', '2p', '3p'))
    {'1p': 3, '2p': 3, '3p': 2}
    """
    share, rest = divmod(rows, len(structures))
    return {name: share + (i < rest) for i, name in enumerate(structures)}


def alternation(structures: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The batches of one published "step", by their structures: path, other, path; path alone without others.

    >>> alternation(('1p', '2p', '2i'))
    (('1p', '2p'), ('2i',), ('1p', '2p'))
    """
    path, other = kinds(structures)
    if not path or not other:
        return (path or other,)
    return path, other, path
