"""The tuners that `experiments.vtab` offers by name: a table of functions, with the settings each starts from."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jaxmodels as jm
from jaxmodels.tuning.heads import Head
from jaxmodels.tuning.tuner import Tuner


class Choice(NamedTuple):
    """A tuner by name.

    Attributes:
        factory: the function that builds it.
        options: keyword arguments it starts from.
        flags: command-line flag -> keyword argument, for the flags that this tuner understands.
        learning_rate: of AdamW at batch 64, where neither a flag nor a recipe says otherwise.
        about: one line for tables.
        head: the classification head.
    """

    factory: Callable[..., Tuner]
    options: Mapping[str, Any]
    flags: Mapping[str, str]
    learning_rate: float
    about: str
    head: Callable[[], Head] = jm.linear_head


RANK, HIDDEN, LENGTH = {"rank": "rank"}, {"rank": "hidden"}, {"length": "prompts"}
RES_TUNING = {"rank": "rank", "length": "length", "mha": "mha", "ffn": "ffn", "block": "block"}

METHODS: dict[str, Choice] = {
    "res_tuning": Choice(jm.res_tuning, {}, RES_TUNING, 5e-3, "Res-Tuning: prefix, adapter and prompt per block"),
    "res_tuning_bypass": Choice(
        jm.res_tuning_bypass, {}, HIDDEN | {"merge": "merge"}, 5e-3, "Res-Tuning-Bypass, on cached features"
    ),
    "snell": Choice(
        jm.snell, {"rank": 8, "sparsity": 0.5}, RANK | {"sparsity": "sparsity"}, 1.5e-2, "SNELL: sparse, kernelised"
    ),
    "snella": Choice(
        jm.snella,
        {"rank": 8, "sparsity": 0.5},
        RANK | {"sparsity": "sparsity"},
        1.5e-2,
        "SNELLA: SNELL with Mix-K kernels and a budget that moves between layers",
    ),
    "lora": Choice(jm.lora, {"rank": 8}, RANK | {"targets": "targets"}, 5e-3, "LoRA on q, k, v"),
    "adapter": Choice(jm.adapter, {"hidden": 8, "kind": "pfeiffer"}, HIDDEN, 5e-3, "adapter after the MLP (Pfeiffer)"),
    "houlsby": Choice(jm.adapter, {"hidden": 8, "kind": "houlsby"}, HIDDEN, 5e-3, "two adapters per block (Houlsby)"),
    "adaptformer": Choice(jm.adaptformer, {"hidden": 8}, HIDDEN, 5e-3, "AdaptFormer: adapter beside the MLP"),
    "vpt_shallow": Choice(jm.vpt, {"prompts": 10, "deep": False}, LENGTH, 1e-2, "visual prompts before block 0"),
    "vpt_deep": Choice(jm.vpt, {"prompts": 10, "deep": True}, LENGTH, 1e-2, "visual prompts before every block"),
    "ssf": Choice(jm.ssf, {}, {}, 5e-3, "SSF: scale and shift after every operation"),
    "fact_tt": Choice(jm.fact, {"rank": 8, "kind": "tt"}, RANK, 5e-3, "FacT, tensor train"),
    "fact_tk": Choice(jm.fact, {"rank": 8, "kind": "tk"}, RANK, 5e-3, "FacT, Tucker"),
    "bitfit": Choice(jm.bitfit, {}, {}, 5e-3, "biases only"),
    "partial": Choice(jm.partial, {"blocks": 1}, {"length": "blocks"}, 1e-3, "the last blocks and the final norm"),
    "linear": Choice(jm.linear, {}, {}, 1e-2, "linear probe"),
    "mlp": Choice(jm.linear, {}, {}, 2e-2, "three-layer head on the frozen feature", jm.mlp_head),
    "full": Choice(jm.full, {}, {}, 1e-3, "every parameter"),
}


FLAGS = ("rank", "length", "mha", "ffn", "block", "targets", "sparsity", "merge")  # of any tuner, on the command line


def build(name: str, flags: Mapping[str, Any], recipe: Mapping[str, Any], *, epochs: int, per_epoch: int) -> Tuner:
    """The tuner of that name.

    Args:
        name: a key of `METHODS`.
        flags: the tuner flags that were given on the command line.
        recipe: keyword arguments that a paper's recipe sets; a flag wins over them.
        epochs: passes over the training images.
        per_epoch: steps of each.

    Raises:
        ValueError: a flag that this tuner does not have.
    """
    choice = METHODS[name]
    for flag in flags:
        if flag not in choice.flags:
            known = ", ".join(f"--{known}" for known in choice.flags) or "none"
            raise ValueError(f"--{flag}: --method={name} has no such option; of the tuner flags it takes {known}")
    given = {choice.flags[flag]: value for flag, value in flags.items()}
    if name == "snella" and recipe.get("kernel") == "mixture":
        return jm.snell(**{**recipe, **given})  # the released scripts train some tasks with Mix-K alone, no budget
    schedule = {"epochs": epochs, "steps_per_epoch": per_epoch} if name == "snella" else {}
    return choice.factory(**{**choice.options, **schedule, **recipe, **given})
