"""The tuners that `experiments.vtab` offers by name: a table of functions, with the settings each starts from."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jaxmodels as jm
from jaxmodels.tuning.heads import Head
from jaxmodels.tuning.tuner import Tuner


class Choice(NamedTuple):
    """A tuner by name.

    Attributes:
        build: the experiment's configuration and its steps per epoch -> tuner.
        learning_rate: of the default optimizer, AdamW at batch 64 unless the recipe says otherwise.
        about: one line for --help and the README's table.
        head: the classification head.
    """

    build: Callable[[Any, int], Tuner]
    learning_rate: float
    about: str
    head: Callable[[], Head] = jm.linear_head


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


SIX = ("q", "k", "v", "proj", "fc1", "fc2")

METHODS: dict[str, Choice] = {
    "res_tuning": Choice(
        lambda c, n: jm.res_tuning(rank=_or(c.rank, 10), length=_or(c.length, 10)),
        1e-2,
        "Res-Tuning: one unbound prefix, adapter and prompt per block",
    ),
    "res_tuning_bypass": Choice(
        lambda c, n: jm.res_tuning_bypass(hidden=_or(c.rank, 10), merge=c.merge),
        1e-2,
        "Res-Tuning-Bypass: tuners beside the backbone, trained on cached features",
    ),
    "snell": Choice(
        lambda c, n: jm.snell(rank=_or(c.rank, 8), sparsity=_or(c.sparsity, 0.5)),
        1e-3,
        "SNELL: sparse tuning by kernelised low-rank matrices",
    ),
    "snella": Choice(
        lambda c, n: jm.snella(
            rank=_or(c.rank, 8), target_ratio=_or(c.sparsity, 0.5), steps_per_epoch=n, epochs=c.epochs
        ),
        1e-3,
        "SNELLA: SNELL with Mix-K kernels and an adaptive budget per layer",
    ),
    "lora": Choice(lambda c, n: jm.lora(rank=_or(c.rank, 8), targets=c.targets or ("q", "k", "v")), 5e-3, "LoRA"),
    "adapter": Choice(lambda c, n: jm.adapter(hidden=_or(c.rank, 8), kind="pfeiffer"), 5e-3, "Adapter after the MLP"),
    "houlsby": Choice(lambda c, n: jm.adapter(hidden=_or(c.rank, 8), kind="houlsby"), 5e-3, "two adapters per block"),
    "adaptformer": Choice(lambda c, n: jm.adaptformer(hidden=_or(c.rank, 8)), 5e-3, "AdaptFormer, beside the MLP"),
    "vpt_shallow": Choice(
        lambda c, n: jm.vpt(prompts=_or(c.length, 10), deep=False), 1e-2, "visual prompts before block 0"
    ),
    "vpt_deep": Choice(lambda c, n: jm.vpt(prompts=_or(c.length, 10), deep=True), 1e-2, "prompts before every block"),
    "ssf": Choice(lambda c, n: jm.ssf(), 5e-3, "SSF: scale and shift after every operation"),
    "fact_tt": Choice(lambda c, n: jm.fact(rank=_or(c.rank, 8), kind="tt"), 5e-3, "FacT, tensor train"),
    "fact_tk": Choice(lambda c, n: jm.fact(rank=_or(c.rank, 8), kind="tk"), 5e-3, "FacT, Tucker"),
    "bitfit": Choice(lambda c, n: jm.bitfit(), 5e-3, "biases only"),
    "partial": Choice(lambda c, n: jm.partial(blocks=_or(c.length, 1)), 1e-3, "the last block and the final norm"),
    "linear": Choice(lambda c, n: jm.linear(), 1e-2, "linear probe"),
    "mlp": Choice(lambda c, n: jm.linear(), 1e-3, "three-layer head on the frozen feature", jm.mlp_head),
    "full": Choice(lambda c, n: jm.full(), 1e-3, "every parameter"),
}
