"""`--plan`: what an experiment's steps need on a TPU slice, without the slice, the data or the weights."""

import json
from typing import Any

from rich.console import Console

import jaxmodels as jm
from experiments import methods
from experiments.command import DoesNotFit
from experiments.runs import tuner_flags
from jaxmodels.planning.plan import show
from jaxmodels.planning.training import Plans, plan_method, plan_train
from jaxmodels.training.metrics import write_text
from jaxmodels.training.precision import precision

CLASSES, TUNER_EPOCHS = 100, 100  # of a planned task, which no data set defines


def run(config: Any, console: Console) -> None:
    """Prints the plan of `config.method` on `config.plan`, and writes it where asked.

    Raises:
        DoesNotFit: the step needs more memory than a chip has.
        ValueError: an unknown slice, a mesh of another size, or libtpu is missing.
    """
    policy = precision(config.precision, platform="tpu")
    backbone = jm.vit(config.backbone, image_size=config.image_size, remat=config.remat, dtype=policy.compute)
    choice = methods.METHODS[config.method]
    tuner = methods.build(config.method, tuner_flags(config), {}, epochs=TUNER_EPOCHS, per_epoch=1)
    method = jm.classifier(backbone, tuner, num_classes=CLASSES, head=choice.head())
    rate = config.learning_rate[0] if config.learning_rate else choice.learning_rate
    compiled = plan_method if config.plan_steps == "both" else plan_train
    try:
        plans = compiled(
            method,
            jm.adamw(method.groups, rate, weight_decay=config.weight_decay[0], clip=config.clip),
            chips=config.plan,
            batch_size=config.batch_size,
            mesh=config.mesh or "data:-1",
            precision=policy,
            accumulate=config.accumulate,
            ema=config.ema,
        )
    except ImportError as error:
        raise ValueError(f"--plan={config.plan}: {error}") from None
    headline = f"{config.method} on {backbone.name}, global batch {config.batch_size}, {config.plan}"
    console.print(headline, highlight=False)
    for line in plans.lines() if isinstance(plans, Plans) else show(plans):
        console.print(line, highlight=False, soft_wrap=True)
    if config.plan_out:
        found = plans.to_json()
        write_text(config.plan_out, json.dumps(found if "train" in found else {"train": found}, indent=1) + "\n")
    if not plans.fits:
        raise DoesNotFit(f"--plan={config.plan}: {config.method} on {backbone.name} does not fit")
