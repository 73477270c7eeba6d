"""DPCML: several vectors per user in one metric space (Bao et al. 2022, arXiv 2209.15292; journal: arXiv 2409.01012).

`s(u, v) = min_c |g_u^c - g_v|^2`, a hinge between positives and sampled negatives, and a regularisation that keeps a
user's vectors neither too close nor too far apart. With one vector and no regularisation it is collaborative metric
learning: UniS with `form='mean'` and one negative, HarS with `form='nearest'`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.method import Aux, Mean, Method
from jaxmodels.recommendation.distances import nearest, to_catalogue
from jaxmodels.recommendation.diversity import pair_regulariser, paper_regulariser, parts
from jaxmodels.recommendation.known import Known, popular_others, popularity_of, uniform_others
from jaxmodels.recommendation.norms import looked_up, to_ball, to_sphere
from jaxmodels.recommendation.preference import check_form, preference
from jaxmodels.recommendation.two_stage import two_stage_others
from jaxmodels.rules import Shardings

NORMS = ("dpcml", "sphere", "ball", "none")
STRATEGIES = ("uniform", "popular", "two_stage")
SHARDINGS: Shardings = (("user", ("model",)), ("item", ("model",)))


class Objective(NamedTuple):
    """What is minimised.

    Attributes:
        margin: lambda of the hinge.
        form: see `preference`: 'mean' is the published uniform sampling (DPCML1) with one negative, 'nearest' the hard
            sampling (DPCML2).
        negatives: S, candidates drawn per row.
        strategy: candidates are 'uniform' or 'popular' among the items that the user does not have, or 'two_stage':
            popular ones that are like the positive item.
        pool: popular items of which 'two_stage' draws, for the whole batch; no more than there are.
        beta: for the forms 'topk' and 'cvar'.
        temperature: for the form 'soft'.
        diversity: eta, weight of the regularisation; 0 leaves it out.
        low: delta 1, lower bound.
        high: delta 2, upper bound; one that is not above `low` leaves the regularisation out, as released.
        bounds: 'pair' bounds every pair as the released code does, 'paper' the mean of each user.
        reduction: 'sum' over the rows of a batch as released, to which eta is tuned, or 'mean'.
    """

    margin: float = 1.0
    form: str = "nearest"
    negatives: int = 10
    strategy: str = "uniform"
    pool: int = 300
    beta: float = 1.0
    temperature: float = 1.0
    diversity: float = 10.0
    low: float = 0.05
    high: float = 0.25
    bounds: str = "pair"
    reduction: str = "sum"


def check_objective(objective: Objective) -> None:
    """Raises ValueError for an option without meaning."""
    check_form(objective.form, objective.beta, objective.temperature)
    choices = {"strategy": STRATEGIES, "bounds": ("pair", "paper"), "reduction": ("sum", "mean")}
    for name, known in choices.items():
        if getattr(objective, name) not in known:
            raise ValueError(f"{name}: found '{getattr(objective, name)}', expected one of {', '.join(known)}")
    if objective.negatives < 1:
        raise ValueError(f"negatives: found {objective.negatives}, expected at least 1")
    if objective.strategy == "two_stage" and objective.pool < objective.negatives:
        raise ValueError(f"pool: found {objective.pool}, expected at least the {objective.negatives} negatives")


def dpcml(
    users: int,
    items: int,
    *,
    dim: int = 100,
    vectors: int = 5,
    counts: np.ndarray | None = None,
    norm: str = "dpcml",
    objective: Objective | None = None,
) -> Method:
    """Several vectors per user, the nearest of which decides.

    A batch holds 'user' (b,) and 'positive' (b,) ids, 'weight' (b,) 1 or 0 for padding where rows are padded, and
    'negative' (b, S); where that is absent candidates are drawn on the device among the items that the user does not
    have, for which `init` needs {'known': Known}.

    Args:
        users: M.
        items: N.
        dim: d.
        vectors: C per user.
        counts: (M,) vectors of each user, at most C, such as `adaptive_counts`; C for all unless given (BPA).
        norm: 'dpcml': users on the unit sphere after every step, items pulled into the unit ball when looked up, as
            released; 'sphere' and 'ball' hold both tables there after every step; 'none'.
        objective: the loss; hard sampling with the published regularisation unless given.

    Returns:
        A Method; its user table is (M, C d), see `diversity.parts`; `predict` gives scores of all items (b, N), higher
        is better, for {'user': (b,)}.

    Raises:
        ValueError: an option without meaning, or counts out of range.
    """
    goal = objective or Objective()
    check_objective(goal)
    if norm not in NORMS:
        raise ValueError(f"norm: found '{norm}', expected one of {', '.join(NORMS)}")
    if vectors < 1 or dim < 1:
        raise ValueError(f"found vectors={vectors} and dim={dim}, expected at least 1 of each")
    if counts is not None and (np.shape(counts) != (users,) or np.min(counts) < 1 or np.max(counts) > vectors):
        raise ValueError(f"counts: expected {users} numbers from 1 to vectors={vectors}, one per user")

    def init(key, batch):
        one, two = jax.random.split(key)
        params = {
            "user": 0.01 * jax.random.normal(one, (users, vectors * dim)),
            "item": dim**-0.5 * jax.random.normal(two, (items, dim)),
        }
        if goal.form == "cvar":
            params["threshold"] = jnp.zeros(users)
        state: dict[str, Any] = {"touched": jnp.zeros(items, bool)} if norm == "dpcml" else {}
        if counts is not None:
            state["has"] = jnp.arange(vectors)[None] < jnp.asarray(counts)[:, None]
        return {"params": params, "state": state | known_state(batch, items, goal.strategy)}

    def loss(variables, batch, key):
        params, state = variables["params"], variables["state"]
        user, positive = jnp.asarray(batch["user"]), jnp.asarray(batch["positive"])
        if goal.strategy == "two_stage" and "known" in state and "negative" not in batch:
            size, like = min(goal.pool, items), jax.lax.stop_gradient(params["item"])
            chances = state["known"], user, positive, min(goal.negatives, size), state["popularity"], like
            negative = two_stage_others(key, *chances, candidates=size)
        else:
            negative = negatives_of(batch, state, key, goal.negatives, items, goal.strategy)
        weight = jnp.asarray(batch["weight"]) if "weight" in batch else jnp.ones(len(user), params["item"].dtype)
        mine, has = vectors_of(variables, user)

        def distances(ids):
            rows = params["item"][ids]
            return nearest(mine, looked_up(rows) if norm == "dpcml" else rows, has)

        counted = negative
        if goal.form == "nearest":  # the others have no gradient: spare the scatter of their rows
            counted = jnp.take_along_axis(negative, distances(negative).argmin(1)[:, None], axis=1)
        far = distances(jnp.concatenate([positive[:, None], counted], axis=1))
        threshold = params["threshold"][user] if goal.form == "cvar" else 0.0
        each = preference(
            far[:, 0], far[:, 1:],
            margin=goal.margin, form=goal.form, beta=goal.beta, temperature=goal.temperature, threshold=threshold,
        )  # fmt: skip
        total, count = (each * weight).sum(), weight.sum()
        value = total if goal.reduction == "sum" else total / jnp.maximum(count, 1)
        metrics = {"preference": Mean(total, count)}
        if goal.diversity and goal.low < goal.high:
            regulariser = pair_regulariser if goal.bounds == "pair" else paper_regulariser
            apart = regulariser(params["user"], vectors, low=goal.low, high=goal.high, has=state.get("has"))
            value = value + goal.diversity * apart
            metrics["diversity"] = Mean(apart, jnp.ones_like(apart))
        metrics["loss"] = Mean(value, jnp.ones_like(value))
        if norm == "dpcml":
            touched = jnp.zeros(items, bool).at[positive].set(True).at[negative].set(True)
            state = state | {"touched": touched}
        return value, Aux(state, metrics)

    def project(before, after, state):
        if norm == "dpcml":
            # A lookup overwrites rows before the optimizer moves them: the move stays, the row under it changes.
            pulled = jnp.where(state["touched"][:, None], to_ball(before["item"]) - before["item"], 0.0)
            return after | {"user": each_vector(to_sphere, after["user"]), "item": after["item"] + pulled}
        hold = {"sphere": to_sphere, "ball": to_ball, "none": lambda x: x}[norm]
        return after | {"user": each_vector(hold, after["user"]), "item": hold(after["item"])}

    def each_vector(hold, table):
        return jnp.concatenate([hold(part) for part in parts(table, vectors)], axis=1)

    def predict(variables, batch):
        params, user = variables["params"], jnp.asarray(batch["user"])
        mine, has = vectors_of(variables, user)
        return -to_catalogue(mine, params["item"], has)

    tables = (*SHARDINGS, ("threshold", ("model",))) if goal.form == "cvar" else SHARDINGS
    return Method(init, loss, predict, ((".*", "embeddings"),), project=project, shardings=tables, batch=pair_batch)


def vectors_of(variables: Any, user: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The vectors (b, C, d) of some users, and which of them there are (None: all); d is that of the items."""
    rows = variables["params"]["user"][user]
    mine = rows.reshape(len(rows), -1, variables["params"]["item"].shape[1])
    return mine, variables["state"]["has"][user] if "has" in variables["state"] else None


def pair_batch(rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of pairs, for planning."""
    ids = jax.ShapeDtypeStruct((rows,), jnp.int32)
    return {"user": ids, "positive": ids, "weight": jax.ShapeDtypeStruct((rows,), jnp.float32)}


def known_state(batch: Any, items: int, strategy: str) -> dict[str, Any]:
    """What sampling on the device needs, from what `init` was given."""
    if batch is None or "known" not in batch:
        return {}
    known: Known = batch["known"]
    return {"known": known} | ({"popularity": popularity_of(known, items)} if strategy != "uniform" else {})


def negatives_of(batch: Any, state: Any, key: jax.Array, count: int, items: int, strategy: str) -> jax.Array:
    """The batch's negatives (b, S), or such drawn now.

    Raises:
        ValueError: there are none, and no known positives to draw them by.
    """
    if "negative" in batch:
        given = jnp.asarray(batch["negative"])
        return given[:, None] if given.ndim == 1 else given
    if "known" not in state:
        raise ValueError("batch: found no 'negative', expected it, or {'known': ...} given to the method's init")
    user = jnp.asarray(batch["user"])
    if strategy == "popular":
        return popular_others(key, state["known"], user, count, state["popularity"])
    return uniform_others(key, state["known"], user, count, items)
