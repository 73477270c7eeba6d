"""`--plan`: what a step of RCPMOD and its scores need on a TPU slice, without the slice."""

import json
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from experiments.command import DoesNotFit
from experiments.outlier_data import Problem
from experiments.outlier_methods import recipe_of
from jaxmodels.outliers.pairs import built, pairs_of
from jaxmodels.planning.plan import show
from jaxmodels.planning.training import Plans, placed_on, plan_train
from jaxmodels.training.metrics import write_text
from jaxmodels.training.state import variables_of


def run(config: Any, problem: Problem, console: Console) -> None:
    """Prints the plan of the widest pair of views over `config.plan`, and writes it where asked.

    Raises:
        DoesNotFit: the step needs more memory than a chip has.
        ValueError: another method, an unknown slice, or libtpu is missing.
    """
    if config.method != "rcpmod":
        raise ValueError(f"--plan: --method={config.method} runs on the host alone, expected rcpmod")
    recipe = recipe_of(config, problem.name)
    all_widths = [x.shape[1] for x in problem.data.views]
    pair = max(pairs_of(len(all_widths)), key=lambda pair: sum(all_widths[v] for v in pair))
    objects, widths = len(problem.data.mask), (all_widths[pair[0]], all_widths[pair[1]])
    made = built(recipe, widths)

    def shapes_alone(key, _):
        views = tuple(jnp.zeros((objects, width)) for width in widths)
        return made.method.init(
            key, {"views": views, "has": jnp.ones((objects, 2), bool), "batch_size": recipe.batch_size}
        )

    method = made.method._replace(init=shapes_alone)
    where = {"chips": config.plan, "batch_size": recipe.batch_size, "mesh": config.mesh or "data:-1"}
    try:
        plans: Any = plan_train(method, made.optimizer, **where)
        if config.plan_steps == "both":
            steps = placed_on(method, made.optimizer, **where)
            scored = jax.jit(lambda variables, rows: method.predict(variables, {"rows": rows}))
            variables = variables_of(steps.ts, steps.frozen)
            plans = Plans(plans, steps.plan(scored, variables, steps.batch["rows"]))
    except ImportError as error:
        raise ValueError(f"--plan={config.plan}: {error}") from None
    sizes = f"{objects:,} objects, views of {widths[0]} and {widths[1]} features"
    console.print(f"rcpmod on {sizes}, {recipe.batch_size} rows a step, {config.plan}", highlight=False)
    for line in plans.lines() if isinstance(plans, Plans) else show(plans):
        console.print(line, highlight=False, soft_wrap=True)
    if config.plan_out:
        found = plans.to_json()
        write_text(config.plan_out, json.dumps(found if "train" in found else {"train": found}, indent=1) + "\n")
    if not plans.fits:
        raise DoesNotFit(f"--plan={config.plan}: rcpmod on {sizes} does not fit")
