"""`--plan` of the reasoning experiment: what a step (up to three updates) needs on a TPU slice."""

import jax
import numpy as np
from rich.console import Console

from experiments.plan_report import plans_of, report
from experiments.reasoning_runs import Setup, build, build_base, for_method, names_of
from jaxmodels.planning.chips import parse as parse_chips
from jaxmodels.reasoning.batches import Trained, query_batches
from jaxmodels.reasoning.graph import Answers
from jaxmodels.training.mesh import ROWS, parse_mesh


def run(setup: Setup, console: Console) -> None:
    """Prints the plan of the chosen method on `config.plan`, and writes it where asked.

    The pool's rows are planned as if every target had queries.

    Raises:
        DoesNotFit: the step needs more memory than a chip has.
        ValueError: an unknown slice, a mesh of another size, or libtpu is missing.
    """
    config = for_method(setup.config, setup.config.method)
    _, shape = parse_chips(config.plan)
    sizes = parse_mesh(config.mesh or "data:-1", int(np.prod(shape)))
    base = build_base(setup, row_multiple=sizes["model"])
    names = names_of(setup, base)
    data = setup.loaded.data.train
    seen = {name: Trained(data[name].tokens, _one_each(len(data[name].tokens))) for name in names.seen}
    width = {name: data[name].tokens.shape[1] for name in names.seen}
    targets = names.targets if config.method == "lod" and config.pool_fraction else ()
    split = getattr(setup.loaded.data, config.split)
    width |= {name: split[name].tokens.shape[1] for name in targets if name in split}
    pool = {name: Trained(np.zeros((1, width[name]), np.int32), _one_each(1)) for name in targets}
    loader = query_batches(
        seen,
        config.batch_size,
        seed=0,
        pool=pool,
        pool_fraction=config.pool_fraction or 0.0,
        alternate=config.alternate,
        with_answers=setup.loaded.entities if config.filter_negatives else None,
        multiple=int(np.prod([sizes[axis] for axis in ROWS])),
    )
    method, optimizer = build(setup, config, base, names, tuple(pool), loader)
    step = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), loader[0])
    method = method._replace(batch=lambda rows: step)
    plans = plans_of(config, method, optimizer, batch_size=config.batch_size, both=False)
    updates = f"{len(step)} update{'s' if len(step) > 1 else ''} of {config.batch_size} queries a step"
    report(config, console, f"{config.method} on {config.base}", plans, detail=f"{setup.loaded.name}, {updates}")


def _one_each(queries: int) -> Answers:
    return Answers(np.arange(queries + 1), np.zeros(queries, np.int64))
