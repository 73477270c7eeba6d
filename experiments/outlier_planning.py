"""`--plan`: what a step of RCPMOD and its scores need on a TPU slice, without the slice."""

from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from experiments.outlier_data import Problem
from experiments.outlier_methods import recipe_of
from experiments.plan_report import plans_of, report
from jaxmodels.outliers.pairs import built, pairs_of
from jaxmodels.planning.training import placed_on
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
    rows = recipe.batch_size
    plans = plans_of(config, method, made.optimizer, batch_size=rows, both=False)
    if config.plan_steps == "both":
        steps = placed_on(method, made.optimizer, config.plan, rows, mesh=config.mesh or "data:-1")
        scored = jax.jit(lambda variables, rows: method.predict(variables, {"rows": rows}))
        plans["evaluate"] = steps.plan(scored, variables_of(steps.ts, steps.frozen), steps.batch["rows"])
    subject = f"rcpmod on {objects:,} objects, views of {widths[0]} and {widths[1]} features"
    report(config, console, subject, plans, detail=f"{rows} rows a step")
