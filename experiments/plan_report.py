"""`--plan`, as far as the commands share it: plans of a method's steps, printed, written where asked, and judged."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import optax
from rich.console import Console

from experiments.command import DoesNotFit
from jaxmodels.atomic import write_text
from jaxmodels.method import Method
from jaxmodels.planning.plan import Plan, show
from jaxmodels.planning.training import plan_method, plan_train

STEPS = {"train": "train step", "evaluate": "evaluation step"}  # their titles


@contextlib.contextmanager
def compiling(config: Any) -> Iterator[None]:
    """Raises ValueError, which names the flag, where libtpu is missing."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"--plan={config.plan}: {error}") from None


def plans_of(
    config: Any, method: Method, optimizer: optax.GradientTransformation, *, batch_size: int, both: bool, **options: Any
) -> dict[str, Plan]:
    """The train step's plan on `config.plan`, and the evaluation step's.

    Args:
        config: the flags.
        method: what is planned.
        optimizer: over the trained leaves.
        batch_size: rows of the global batch.
        both: the evaluation step as well.
        **options: of `plan_method`.

    Raises:
        ValueError: an unknown slice, a mesh of another size, or libtpu is missing.
    """
    options |= {"chips": config.plan, "batch_size": batch_size, "mesh": config.mesh or "data:-1"}
    with compiling(config):
        if both:
            return plan_method(method, optimizer, **options)._asdict()
        return {"train": plan_train(method, optimizer, **options)}


def report(
    config: Any,
    console: Console,
    subject: str,
    plans: Mapping[str, Plan],
    *,
    detail: str = "",
    titles: Mapping[str, str] | None = None,
) -> None:
    """Prints the plans, and writes them to `config.plan_out`.

    Args:
        config: the flags.
        console: where to print.
        subject: what is planned, such as 'lora on vit_b16'.
        plans: by step; one alone is printed without a title, unless `titles` are given.
        detail: for the first line.
        titles: of the steps; `STEPS` unless given.

    Raises:
        DoesNotFit: a step needs more memory than a chip has.
    """
    console.print(", ".join(filter(None, (subject, detail, config.plan))), highlight=False)
    titled = len(plans) > 1 or titles is not None
    for name, plan in plans.items():
        if titled:
            console.print((titles or STEPS)[name], highlight=False)
        for line in show(plan):
            console.print("  " * titled + line, highlight=False, soft_wrap=True)
    if config.plan_out:
        found = {name: plan.to_json() for name, plan in plans.items()}
        write_text(config.plan_out, json.dumps(found, indent=1) + "\n")
    if not all(plan.fits for plan in plans.values()):
        raise DoesNotFit(f"--plan={config.plan}: {subject} does not fit")
