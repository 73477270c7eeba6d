"""QueryModel: what embeds a query and scores entities; GQE, Query2Box and BetaE are three of them.

A model is a few pure functions over a parameter tree. All queries of one structure are embedded at once: the structure
is static and drives the walk, rows are queries. A score is gamma minus a distance, so larger is better.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmodels.reasoning.structures import Algebra, check_width, de_morgan, disjuncts, has, rewrite, walk
from jaxmodels.rules import Shardings
from jaxmodels.weights import names
from jaxmodels.weights.names import Row

Params = Mapping[str, Any]
TABLES: Shardings = (("entity/embedding", ("model", None)),)


class QueryModel(NamedTuple):
    """Pure functions of one model, built by `gqe`, `query2box` or `betae`.

    Attributes:
        name: for errors and reports.
        config: the options that made it; 'entities' and 'relations' count ids, inverse relations included.
        init: key -> parameters.
        algebra: parameters -> what each node of a structure does with (n,) columns of ids; `negate` is None where the
            model has no negation, `union` is never called.
        points: rows of the entity table (..., W) -> what `score` and `score_all` take.
        score: (embedding of n queries, points (n, K, W)) -> (n, K).
        score_all: (embedding of n queries, points (C, W)) -> (n, C), the same for a shared set of entities.
        rows: how parameters are called in published checkpoints.
        shared: scoring all entities beats scoring K chosen ones up to so many times K; 0 where it never does.
        shardings: of the parameters; the entity table may lie over the mesh axis `model`.
    """

    name: str
    config: dict[str, Any]
    init: Callable[[jax.Array], Any]
    algebra: Callable[[Any], Algebra]
    points: Callable[[jax.Array], Any]
    score: Callable[[Any, Any], jax.Array]
    score_all: Callable[[Any, Any], jax.Array]
    rows: tuple[Row, ...]
    shared: int = 0
    shardings: Shardings = TABLES

    @property
    def supports_negation(self) -> bool:
        """Whether structures with `n` can be embedded."""
        return bool(self.config["negation"])


def supported(model: QueryModel, structure: str | tuple, union: str = "dnf") -> bool:
    """Whether the model can embed the structure."""
    return model.supports_negation or not (has(structure, "n") or (union == "dm" and has(structure, "u")))


def embed(
    model: QueryModel, params: Params, structure: str | tuple, tokens: Int[Array, "n l"], *, union: str = "dnf"
) -> list[Any]:
    """Embeddings of all rows of one structure, one entry per disjunct.

    Args:
        model: what embeds.
        params: its parameters.
        structure: a name or a structure.
        tokens: rows as `structures` describes them.
        union: 'dnf' (several embeddings, of which the best score counts) or 'dm' (De Morgan, needs negation).

    Raises:
        ValueError: a union mode that does not exist, negation in a model without, or rows of a wrong length.
    """
    if union not in ("dnf", "dm"):
        raise ValueError(f"union: found '{union}', expected dnf or dm")
    if not supported(model, structure, union):
        shown = structure if isinstance(structure, str) else repr(structure)
        raise ValueError(f"{model.name} has no negation, which query {shown} needs (union={union})")
    if not has(structure, "u"):
        return [walk(structure, tokens, model.algebra(params))]
    check_width(structure, tokens)
    parts = disjuncts(structure) if union == "dnf" else (de_morgan(structure),)
    return [walk(part.structure, rewrite(tokens, part, jnp), model.algebra(params)) for part in parts]


class Asked(NamedTuple):
    """Queries of one structure and the entities to score for each: tokens (n, L), entities (n, K)."""

    structure: str | tuple
    tokens: Int[Array, "n l"]
    entities: Int[Array, "n k"]


def scores(
    model: QueryModel,
    params: Params,
    structure: str | tuple,
    tokens: Int[Array, "n l"],
    entities: Int[Array, "n k"],
    *,
    union: str = "dnf",
) -> Float[Array, "n k"]:
    """Scores of given entities, K per query; over disjuncts the best counts.

    Args:
        model: what scores.
        params: its parameters.
        structure: of all rows.
        tokens: the queries.
        entities: ids.
        union: see `embed`.
    """
    (found,) = scores_together(model, params, [Asked(structure, tokens, entities)], union=union)
    return found


def scores_together(
    model: QueryModel, params: Params, asked: Sequence[Asked], *, union: str = "dnf"
) -> list[Float[Array, "n k"]]:
    """Scores of several structures; all of their queries are compared with entities in one operation.

    The embeddings are kept from being fused into that operation, which would compute them anew for each entity.

    Args:
        model: what scores.
        params: its parameters.
        asked: per structure; K is the same for all.
        union: see `embed`.
    """
    parts = [embed(model, params, each.structure, each.tokens, union=union) for each in asked]
    rows = [part for each in parts for part in each]
    ids = [each.entities for each, found in zip(asked, parts, strict=True) for _ in found]
    queries = jax.tree.map(lambda *x: jnp.concatenate(x), *rows)
    found = _scores(model, params["entity"]["embedding"], jax.lax.optimization_barrier(queries), jnp.concatenate(ids))
    pieces = iter(jnp.split(found, np.cumsum([len(each) for each in ids])[:-1]))
    return [best([next(pieces) for _ in each]) for each in parts]


def _scores(model: QueryModel, table: jax.Array, queries: Any, ids: Int[Array, "n k"]) -> Float[Array, "n k"]:
    """One score per id; what depends on an entity alone is computed once where the batch names more ids than rows."""
    if model.shared and len(table) <= model.shared * ids.shape[1]:
        return jnp.take_along_axis(model.score_all(queries, model.points(table)), ids, axis=1)
    if len(table) <= ids.size:
        points = jax.tree.map(lambda x: x[ids], model.points(table))
    else:
        points = model.points(table[ids])
    return model.score(queries, points)


def scores_of_all(
    model: QueryModel,
    params: Params,
    structure: str | tuple,
    tokens: Int[Array, "n l"],
    *,
    union: str = "dnf",
    chunk: int = 1024,
) -> Float[Array, "n entities"]:
    """Scores of every entity, `chunk` of them at a time.

    A chunk takes every C-th row of the table, so that a table whose rows lie over several devices is never gathered:
    each device scores its part of every chunk.

    Args:
        model: what scores.
        params: its parameters.
        structure: of all rows.
        tokens: the queries.
        union: see `embed`.
        chunk: largest number of entities scored at once; memory is n x chunk x D for distances.
    """
    table = params["entity"]["embedding"]
    parts = embed(model, params, structure, tokens, union=union)
    count = -(-len(table) // chunk)
    size = -(-len(table) // count)
    if size * count > len(table):
        table = jnp.pad(table, ((0, size * count - len(table)), (0, 0)))
    chunks = jnp.moveaxis(table.reshape(size, count, -1), 1, 0)

    def one(rows):
        points = model.points(rows)
        return best([model.score_all(part, points) for part in parts])

    each = jax.lax.map(one, chunks)  # (count, n, size)
    return jnp.moveaxis(each, 0, 2).reshape(len(tokens), -1)[:, : model.config["entities"]]


def best(each: list[jax.Array]) -> jax.Array:
    """The larger score of the disjuncts."""
    return each[0] if len(each) == 1 else jnp.stack(each).max(0)


def from_published(model: QueryModel, state: Mapping[str, np.ndarray]) -> Any:
    """Parameters from the names of a KGReasoning checkpoint.

    Args:
        model: whose parameters.
        state: name -> array; `gamma` and `embedding_range` are options here and are checked against the model's.

    Raises:
        ValueError: missing or unread names, wrong shapes, or another gamma.
    """
    gamma = float(np.asarray(state.get("gamma", model.config["gamma"])).reshape(-1)[0])
    if not np.isclose(gamma, model.config["gamma"], rtol=1e-6):
        raise ValueError(f"checkpoint: found gamma {gamma}, expected the model's {model.config['gamma']}")
    template = jax.eval_shape(model.init, jax.random.key(0))
    table = np.asarray(state["entity_embedding"]) if "entity_embedding" in state else np.zeros((0, 0))
    missing = template["entity"]["embedding"].shape[0] - model.config["entities"]
    padded = {**state, "entity_embedding": np.pad(table, ((0, missing), (0, 0)))} if table.size else state
    dtype = table.dtype if table.size else np.float32
    template = jax.tree.map(lambda leaf: np.empty(leaf.shape, dtype), template)
    return names.read(padded, model.rows, template, drop=("gamma", "embedding_range"), source="checkpoint")


def to_published(model: QueryModel, params: Params) -> dict[str, np.ndarray]:
    """The inverse of `from_published`, with `gamma` and `embedding_range`."""
    written = names.write(params, model.rows)
    written["entity_embedding"] = written["entity_embedding"][: model.config["entities"]]
    dtype = written["entity_embedding"].dtype
    return written | {
        "gamma": np.array([model.config["gamma"]], dtype),
        "embedding_range": np.array([table_range(model.config["gamma"], model.config["dim"])], dtype),
    }


# Parts of several models ----------------------------------------------------------------------------------------------


def table_range(gamma: float, dim: int) -> float:
    """Half width of the uniform distribution that tables start from."""
    return (gamma + 2.0) / dim


def padded_rows(entities: int, multiple: int) -> int:
    """Rows of the entity table: `entities`, rounded up so that devices can share it.

    Raises:
        ValueError: a multiple below 1.
    """
    if multiple < 1:
        raise ValueError(f"row_multiple: found {multiple}, expected at least 1")
    return -(-entities // multiple) * multiple


def uniform_table(key: jax.Array, rows: int, dim: int, low: float, high: float) -> Float[Array, "rows dim"]:
    """A table with entries uniform between `low` and `high`."""
    return jax.random.uniform(key, (rows, dim), minval=low, maxval=high)


def dense_init(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    """Kernel (in, out) by Xavier's rule and PyTorch's default bias."""
    one, two = jax.random.split(key)
    bound = (6.0 / (inputs + outputs)) ** 0.5
    return {
        "kernel": jax.random.uniform(one, (inputs, outputs), minval=-bound, maxval=bound),
        "bias": jax.random.uniform(two, (outputs,), minval=-(inputs**-0.5), maxval=inputs**-0.5),
    }


def dense(layer: Params, x: jax.Array) -> jax.Array:
    """X kernel + bias over the last axis."""
    return x @ layer["kernel"] + layer["bias"].reshape((1,) * (x.ndim - 1) + (-1,))


def mlp_init(key: jax.Array, inputs: int, hidden: int, outputs: int) -> dict[str, Any]:
    """Parameters of the two layers that `attention` and the gates of offsets use."""
    one, two = jax.random.split(key)
    return {"fc1": dense_init(one, inputs, hidden), "fc2": dense_init(two, hidden, outputs)}


def attention(net: Params, x: Float[Array, "k n i"]) -> Float[Array, "k n o"]:
    """Weights of k branches, a softmax over branches for each dimension."""
    return jax.nn.softmax(dense(net["fc2"], jax.nn.relu(dense(net["fc1"], x))), axis=0)


@jax.custom_vjp
def manhattan(center: Float[Array, "n 1 d"], points: Float[Array, "m k d"]) -> Float[Array, "n k"]:
    """The L1 distance; the gradient of |x| is 0 at 0, as PyTorch has it, where `jnp.abs` has 1."""
    return jnp.abs(points - center).sum(-1)


def _forward(center, points):
    return manhattan(center, points), (center, points)


def _backward(kept, g):
    g, (center, points) = jax.lax.optimization_barrier((g, kept))
    return pulled(g, jnp.sign(points - center), points)


manhattan.defvjp(_forward, _backward)


def pulled(
    g: Float[Array, "n k"], slope: Float[Array, "n k d"], points: Float[Array, "m k d"]
) -> tuple[Float[Array, "n 1 d"], Float[Array, "m k d"]]:
    """Cotangents of centres and points of a distance whose derivative by a point is `slope`.

    The sum over k is written as a product of matrices: XLA's CPU compiler sums over a middle axis many times slower.

    Args:
        g: cotangent of the distances.
        slope: (n, k, d).
        points: one set for each query (m = n) or one for all (m = 1).
    """
    by_center = -jnp.einsum("nk,nkd->nd", g, slope)[:, None]
    return by_center, jnp.einsum("nk,nkd->kd", g, slope)[None] if len(points) < len(g) else g[:, :, None] * slope


def table_row(theirs: str, ours: str) -> Row:
    """A table, equal in both layouts."""
    return Row(theirs, (ours,))


def dense_rows(theirs: str, ours: str) -> tuple[Row, Row]:
    """A linear layer: PyTorch's weight is the transpose of ours."""
    return Row(f"{theirs}.weight", (f"{ours}/kernel",), "o i -> i o"), Row(f"{theirs}.bias", (f"{ours}/bias",))
