"""A trained query model in one folder: model.safetensors (published names), model.json, and the known facts.

model.safetensors    parameters by the names of KGReasoning checkpoints
model.json           format, the options that made the model, names of entities and relations
graph.safetensors    'edges' (E, 3), both directions; absent where the reasoner has no graph
"""

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.atomic import write_text
from jaxmodels.reasoning.ask import Reasoner, check
from jaxmodels.reasoning.betae import betae
from jaxmodels.reasoning.gqe import gqe
from jaxmodels.reasoning.graph import Graph, build_graph
from jaxmodels.reasoning.query2box import query2box
from jaxmodels.reasoning.query_model import QueryModel, from_published, to_published
from jaxmodels.rules import nearest
from jaxmodels.weights.files import read_arrays, write_safetensors
from jaxmodels.weights.model_json import FILE, check_keys, read_header

MODELS: dict[str, Callable[..., QueryModel]] = {"gqe": gqe, "query2box": query2box, "betae": betae}
FORMAT = 1
KEYS = ("format", "config", "entities", "relations")


def save_reasoner(folder: str | os.PathLike[str], model: Reasoner) -> None:
    """Writes a folder; each file takes the place of an older one once it is complete, model.json last.

    Args:
        folder: made where it does not exist.
        model: what to keep.

    Raises:
        ValueError: names, parameters and facts that are not of one graph.
        OSError: a file cannot be written.
    """
    check(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    params = jax.tree.map(np.asarray, model.params)
    write_safetensors(folder / "model.safetensors", to_published(model.base, params))
    if model.graph is not None:
        write_safetensors(folder / "graph.safetensors", {"edges": model.graph.edges})
    else:
        (folder / "graph.safetensors").unlink(missing_ok=True)
    header = dict(zip(KEYS, (FORMAT, model.base.config, model.entities, model.relations), strict=True))
    write_text(folder / FILE, json.dumps(header, ensure_ascii=False, allow_nan=False))


def load_reasoner(folder: str | os.PathLike[str], *, row_multiple: int = 1) -> Reasoner:
    """Reads what `save_reasoner` wrote.

    Args:
        folder: with model.json and model.safetensors.
        row_multiple: the entity table is padded to a multiple of it, so that devices can share it.

    Raises:
        ValueError: a file is missing or damaged, or has a key too few, too many or of another shape (all are named).
    """
    folder = Path(folder)
    file, header = folder / FILE, read_header(folder, keys=KEYS, form=FORMAT, writer="save_reasoner")
    entities, relations = (_names(file, header, key) for key in ("entities", "relations"))
    base = _model(file, header["config"], row_multiple)
    try:
        params = from_published(base, read_arrays(folder / "model.safetensors"))
    except ValueError as error:
        where = folder / "model.safetensors"
        raise ValueError(str(error) if str(where) in str(error) else f"{where}: {error}") from None
    model = Reasoner(base, jax.tree.map(jnp.asarray, params), entities, relations)
    if (folder / "graph.safetensors").exists():
        model = model._replace(graph=_graph(folder / "graph.safetensors", base))
    try:
        check(model)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return model


def _names(file: Path, header: dict[str, Any], key: str) -> tuple[str, ...]:
    names = header[key]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file}: '{key}' is no list of names")
    return tuple(names)


def _model(file: Path, config: Any, row_multiple: int) -> QueryModel:
    if not isinstance(config, dict) or config.get("model") not in MODELS:
        found = config.get("model") if isinstance(config, dict) else config
        hint = nearest(str(found), MODELS)
        raise ValueError(f"{file}: found model '{found}', expected one of {', '.join(MODELS)}{hint}")
    build = MODELS[config["model"]]
    options = set(inspect.signature(build).parameters) - {"row_multiple"}
    known = options | {"model", "negation"}
    check_keys(f"{file}, config", config, needed=sorted(known), known=known)
    try:
        base = build(**{key: config[key] for key in options}, row_multiple=row_multiple)
        jax.eval_shape(base.init, jax.random.key(0))
        return base
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}, config: {' '.join(str(error).split())}") from None


def _graph(file: Path, base: QueryModel) -> Graph:
    stored = read_arrays(file)
    check_keys(str(file), stored, needed=("edges",), known=("edges",))
    entities, relations = base.config["entities"], base.config["relations"]
    try:
        return build_graph(stored["edges"], entities=entities, relations=relations, inverses=False)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
