"""Asking a trained model in words: the best entities, their scores, and which of them the known facts already give."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.data.query_structures import shown
from jaxmodels.reasoning.graph import Graph
from jaxmodels.reasoning.language import Question, parse
from jaxmodels.reasoning.query_model import QueryModel, scores_of_all
from jaxmodels.reasoning.sets import answer_lists, tails_of

SHOWN = 10  # known answers below a table; `Replies.facts` has all


class Reasoner(NamedTuple):
    """A trained model with the names of what it knows.

    Attributes:
        base: `gqe`, `query2box` or `betae`.
        params: its parameters.
        entities: names; an entity's id is its place.
        relations: names; the k-th has id 2k and its inverse 2k + 1.
        graph: known facts, to tell them from predictions; None where they are not kept.
    """

    base: QueryModel
    params: Any
    entities: tuple[str, ...]
    relations: tuple[str, ...]
    graph: Graph | None = None


class Found(NamedTuple):
    """One answer.

    Attributes:
        entity: its name.
        score: of the model, larger is better.
        known: whether the known facts give it; None without a graph.
    """

    entity: str
    score: float
    known: bool | None


class Replies(NamedTuple):
    """The best answers to one question; prints as a table.

    Attributes:
        question: what was asked.
        rows: best first.
        facts: names of all answers that the known facts give, among the best or not; None without a graph.
        model: name of the model.
    """

    question: Question
    rows: tuple[Found, ...]
    facts: tuple[str, ...] | None
    model: str

    def __str__(self) -> str:
        """A table: rank, score, whether the answer is known or predicted, name; then known answers that it lacks."""
        about = f"{self.question.text}    [{shown(self.question.structure)}, {self.model}"
        lines = [about + ("]" if self.facts is None else f", {len(self.facts)} known]")]
        size = max([len(str(len(self.rows))), 4])
        for rank, row in enumerate(self.rows, 1):
            kind = {None: "", True: "known      ", False: "predicted  "}[row.known]
            lines.append(f"{rank:{size}d}  {row.score:9.3f}  {kind}{row.entity}")
        listed = {row.entity for row in self.rows}
        left = [name for name in self.facts or () if name not in listed]
        if left:
            more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
            lines.append(f"also known: {', '.join(left[:SHOWN])}{more}")
        return "\n".join(lines)


class _Same:
    """A model as a key: itself, whatever its options."""

    def __init__(self, base: QueryModel):
        self.base = base

    def __hash__(self) -> int:
        return hash(self.base.algebra)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.base.algebra is self.base.algebra


@functools.lru_cache(maxsize=64)
def _scorer(model: _Same, structure: tuple, union: str, chunk: int) -> Callable[[Any, jax.Array], jax.Array]:
    """Compiled once for all questions of one structure."""
    return jax.jit(
        lambda params, tokens: scores_of_all(model.base, params, structure, tokens, union=union, chunk=chunk)
    )


def check(model: Reasoner) -> None:
    """Raises ValueError where names, parameters and facts are not of one graph."""
    config = model.base.config
    sizes = {"entities": (len(model.entities), config["entities"])}
    sizes["relations"] = 2 * len(model.relations), config["relations"]
    if model.graph is not None:
        sizes["entities of the graph"] = model.graph.entities, config["entities"]
        sizes["relations of the graph"] = model.graph.relations, config["relations"]
    for what, (found, expected) in sizes.items():
        if found != expected:
            inverse = ", inverses included" if "relations" in what else ""
            raise ValueError(f"reasoner: found {found} {what}{inverse}, expected {expected} as the model has")


def ask(
    model: Reasoner, text: str, *, top: int = 10, union: str = "dnf", only_new: bool = False, chunk: int = 1024
) -> Replies:
    """Answers a query written in the language of `jaxmodels.reasoning.language`.

    Args:
        model: what to ask.
        text: such as `people.born_in(france) & ~won(nobel)`.
        top: number of answers.
        union: how a model embeds 'or', see `query_model.embed`.
        only_new: leave out what the known facts give.
        chunk: entities scored at once.

    Raises:
        ValueError: a query that cannot be read (`language.QueryError`), negation asked of a model without, a `top`
            or `chunk` that is no integer of at least 1, or `only_new` without a graph.
    """
    check(model)
    for name, value in {"top": top, "chunk": chunk}.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}: found {value}, expected an integer of at least 1")
    if only_new and model.graph is None:
        raise ValueError("only_new: the model has no graph of known facts, expected one")
    question = parse(text, entities=model.entities, relations=model.relations)
    known = None
    if model.graph is not None:
        known = answer_lists(tails_of(model.graph), question.structure, question.tokens).values
    score = _scorer(_Same(model.base), question.structure, union, chunk)
    scores = score(model.params, jnp.asarray(question.tokens))[0]
    if only_new:
        scores = scores.at[known].set(-jnp.inf)
    best, ids = jax.lax.top_k(scores, min(top, len(model.entities)))
    given = None if known is None else np.isin(ids, known)
    rows = [
        Found(model.entities[int(entity)], float(score), None if given is None else bool(given[i]))
        for i, (score, entity) in enumerate(zip(np.asarray(best), np.asarray(ids), strict=True))
        if score > -np.inf
    ]
    facts = None if known is None else tuple(model.entities[int(entity)] for entity in known)
    return Replies(question, tuple(rows), facts, model.base.name)
