"""`--plan`: what an experiment's steps need on a TPU slice, without the slice, the data or the weights."""

from typing import Any

from rich.console import Console

import jaxmodels as jm
from experiments import methods
from experiments.plan_report import plans_of, report
from experiments.runs import tuner_flags
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
    plans = plans_of(
        config,
        method,
        jm.adamw(method.groups, rate, weight_decay=config.weight_decay[0], clip=config.clip),
        batch_size=config.batch_size,
        both=config.plan_steps == "both",
        precision=policy,
        accumulate=config.accumulate,
        ema=config.ema,
    )
    detail = f"global batch {config.batch_size}"
    report(config, console, f"{config.method} on {backbone.name}", plans, detail=detail)
