"""Training under a judge, who measures the model now and then and may end the run."""

from pathlib import Path
from typing import Any

import jaxmodels as jm
from experiments import tables
from experiments.running import Setup, fit_options
from jaxmodels.training.fit import Fit


def fit_judged(
    setup: Setup[Any], made: Any, batches: Any, judge: Any, *, folder: Path, every: int, label: str, **options: Any
) -> Fit | None:
    """Trains until the judge has had enough; None where that is so already, of a run that is resumed.

    Args:
        setup: flags, console and mesh; the run's clock is added to its clocks.
        made: with 'method' and 'optimizer'.
        batches: by step.
        judge: variables -> metrics, with `exhausted`.
        folder: of the run.
        every: steps between evaluations, which are those between logged rows.
        label: of the progress line.
        **options: of `fit`: steps, variables, seed, resume, ...
    """
    if judge.exhausted():
        return None
    fitted = jm.fit(
        made.method,
        batches,
        made.optimizer,
        workdir=folder,
        log_every=every,
        evaluate=judge,
        evaluate_every=every,
        mesh=setup.mesh,
        until=judge.exhausted,
        on_log=tables.progress(setup.console, label, options["steps"]),
        **fit_options(setup.config),
        **options,
    )
    setup.clocks.append(fitted.clock)
    return fitted
