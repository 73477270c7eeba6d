"""`--plan`: what training and ranking need on a TPU slice, without the slice; the data may be sizes alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments import recommendation_data, recommendation_methods, recommendation_runs
from experiments.plan_report import compiling, report
from jaxmodels.method import Method
from jaxmodels.planning.chips import parse as parse_chips
from jaxmodels.planning.plan import on_mesh
from jaxmodels.planning.training import placed_on, plan_train
from jaxmodels.recommendation.known import Known
from jaxmodels.recommendation.spare_rows import with_spare_rows
from jaxmodels.training.mesh import parse_mesh, rows
from jaxmodels.training.state import variables_of

TOP = 100  # best items of a user, of the plan of ranking


def run(config: Any, console: Console) -> None:
    """Prints the plan of `config.method` on `config.plan`, and writes it where asked.

    Raises:
        DoesNotFit: a step needs more memory than a chip has.
        ValueError: an unknown slice, a mesh of another size, or libtpu is missing.
    """
    chip, shape = parse_chips(config.plan)
    devices = int(np.prod(shape)) * chip.devices
    spread = config.mesh or "model:-1"
    users, items, pairs = _sizes(config)
    settings = recommendation_runs.settings_of(config, config.method)
    choice = recommendation_methods.METHODS[config.method]
    history = np.full(users, max(1, pairs // users))
    method = choice.build(users, items, settings.dim, settings.options, history)
    method = _shaped(method, users, items, pairs, parse_mesh(spread, devices)["model"])
    optimizer = choice.optimizer(settings.learning_rate, settings.weight_decay)
    with compiling(config):
        plans = {"train": plan_train(method, optimizer, chips=config.plan, batch_size=config.batch_size, mesh=spread)}
        if config.plan_steps == "both":
            steps = placed_on(method, optimizer, config.plan, config.batch_size, mesh=spread)
            mesh = steps.placement.mesh
            asked = on_mesh({"user": jax.ShapeDtypeStruct((config.chunk,), jnp.int32)}, mesh, rows(mesh).spec)
            best = jax.jit(lambda v, b: jax.lax.top_k(method.predict(v, b), min(TOP, items)))
            plans["rank"] = steps.plan(best, variables_of(steps.ts, steps.frozen), asked)
    sizes = f"{users:,} users, {items:,} items, {pairs:,} interactions, dim {settings.dim}"
    titles = {"train": f"train step of {config.batch_size:,} rows", "rank": f"best {TOP} items of {config.chunk} users"}
    report(config, console, f"{config.method} on {sizes}", plans, titles=titles)


def _sizes(config: Any) -> tuple[int, int, int]:
    """Users, items and training interactions."""
    if config.plan_users or config.plan_items:
        users = config.plan_users or config.plan_items
        items = config.plan_items or max(1, users // 10)
        return users, items, users * config.plan_interactions
    loaded = recommendation_data.load(config)
    return loaded.num_users, loaded.num_items, len(loaded.parts.train.items)


def _shaped(method: Method, users: int, items: int, pairs: int, shards: int) -> Method:
    """The method with known positives of these sizes, of which only the shapes will be looked at."""

    def init(key: jax.Array, batch: Any) -> Any:
        known = Known(jnp.zeros(users + 1, jnp.int32), jnp.zeros(pairs, jnp.int32))
        known_items = Known(jnp.zeros(items + 1, jnp.int32), jnp.zeros(pairs, jnp.int32))
        return method.init(key, {"known": known, "known_items": known_items})

    shaped = method._replace(init=init)
    shapes = jax.eval_shape(lambda key: init(key, None)["params"], jax.random.key(0))
    return with_spare_rows(shaped, shapes, shards)
