"""Published hyper-parameters as plain numbers: which learning rate, batch, decay and tuner option on which task.

A recipe gives the *candidates* of a task: one where its authors published a setting per task, several where they
searched a grid on the validation split. `candidates('snell', 'dtd')` is what an experiment asks for.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxmodels.rules import nearest


class Recipe(NamedTuple):
    """Everything a training run needs beside the method and the data.

    The learning rate warms up linearly from `warmup_lr` to `lr` over `warmup_epochs`, then follows a cosine down to
    `min_lr` at the last epoch. With schedule 'epochs' it changes once per epoch and the warm-up is cut out of the
    cosine (`training.schedule.epoch_cosine`).

    Attributes:
        lr: peak learning rate, after any scaling with the batch size.
        weight_decay: decoupled for AdamW, added to the gradient for SGD.
        batch_size: images per step, over all devices.
        epochs: passes over the training images.
        warmup_epochs: of those.
        warmup_lr: at the first step.
        min_lr: at the last.
        drop_path: stochastic depth of the backbone's last block (rising linearly from 0).
        optimizer: 'adamw' or 'sgd' (momentum 0.9).
        schedule: 'steps' or 'epochs'.
        drop_last: whether an epoch's images that fill no batch are left out.
        options: keyword arguments of the tuner.
    """

    lr: float
    weight_decay: float
    batch_size: int
    epochs: int = 100
    warmup_epochs: int = 10
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    drop_path: float = 0.0
    optimizer: str = "adamw"
    schedule: str = "steps"
    drop_last: bool = False
    options: Mapping[str, Any] = {}


def _snell(sparsity: float, batch_size: int, weight_decay: float, epochs: int = 100, lr: float = 1e-3) -> Recipe:
    options = {"rank": 32, "sparsity": sparsity}
    return Recipe(lr, weight_decay, batch_size, epochs, drop_path=0.1, schedule="epochs", options=options)


# SNELL-32 on ViT-B/16 (in21k): the released scripts of arXiv 2411.01800, which differ from the paper's text.
SNELL = {
    "cifar100": _snell(0.9, 16, 0.01, 200),
    "caltech101": _snell(0.4, 16, 0.01, 200),
    "dtd": _snell(0.995, 64, 0.01, 200),
    "oxford_flowers102": _snell(0.9, 32, 0.01, 200),
    "oxford_iiit_pet": _snell(0.5, 32, 0.01, 200),
    "svhn": _snell(0.0, 32, 0.01, 200),
    "sun397": _snell(0.99, 32, 0.001, 200),
    "patch_camelyon": _snell(0.15, 16, 0.05, lr=7e-4),
    "eurosat": _snell(0.5, 16, 4e-4),
    "resisc45": _snell(0.0, 32, 0.01),
    "diabetic_retinopathy": _snell(0.5, 32, 0.05),
    "clevr_count": _snell(0.1, 16, 0.01),
    "clevr_dist": _snell(0.74, 16, 0.001),
    "dmlab": _snell(0.0, 8, 1e-4),
    "kitti": _snell(0.37, 8, 0.01),
    "dsprites_loc": _snell(0.0, 16, 0.01),
    "dsprites_ori": _snell(0.88, 8, 0.01),
    "smallnorb_azi": _snell(0.0, 16, 0.01),
    "smallnorb_ele": _snell(0.08, 16, 0.001, 200),
    "cub": _snell(0.3, 32, 0.01),
    "nabirds": _snell(0.1, 32, 0.01, lr=5e-4),
    "flowers": _snell(0.8, 32, 0.01),  # 0.6 for rank 8 and 16
    "dogs": _snell(0.1, 32, 0.005, lr=3e-4),  # decay 0.001 for rank 8 and 16
    "cars": _snell(0.0, 32, 0.01),
}


def _snella(sparsity: float, batch_size: int, weight_decay: float, lr: float = 1e-3, start: float = 0.01) -> Recipe:
    options = {"rank": 32, "sparsity": sparsity, "init_sparsity": start}
    return Recipe(lr, weight_decay, batch_size, drop_path=0.1, schedule="epochs", options=options)


def _mixk(batch_size: int, weight_decay: float) -> Recipe:
    options = {"rank": 32, "kernel": "mixture", "sparsity": 0.0}
    return Recipe(1e-3, weight_decay, batch_size, drop_path=0.1, schedule="epochs", options=options)


# SNELLA-32: the released scripts of arXiv 2510.24037 (100 epochs); the other tasks have none.
SNELLA = {
    "patch_camelyon": _snella(0.76, 8, 5e-4),
    "cifar100": _snella(0.8, 8, 0.05),
    "dtd": _snella(0.93, 8, 0.005),
    "oxford_flowers102": _snella(0.4, 8, 0.001),
    "oxford_iiit_pet": _snella(0.55, 16, 0.05),
    "diabetic_retinopathy": _snella(0.2, 32, 0.05),
    "smallnorb_ele": _snella(0.63, 32, 0.001),
    "caltech101": _mixk(16, 1e-4),
    "svhn": _mixk(16, 1e-4),
    "cub": _snella(0.3, 16, 0.05, start=0.0),
    "dogs": _snella(0.24, 32, 0.005, lr=1e-4, start=0.0),
    "flowers": _snella(0.61, 16, 0.001, start=0.0),
    "nabirds": _snella(0.16, 32, 5e-4, start=0.0),
    "cars": _mixk(16, 0.05),
}


def _ssf(lr: float, weight_decay: float, drop_path: float) -> Recipe:
    return Recipe(lr, weight_decay, 64, warmup_lr=1e-7, min_lr=1e-8, drop_path=drop_path)


# SSF (Lian et al. 2022, arXiv 2210.08823), its VTAB scripts: two GPUs with 32 images each.
SSF = {
    "cifar100": _ssf(5e-3, 5e-5, 0.0),
    "caltech101": _ssf(1e-3, 5e-2, 0.1),
    "dtd": _ssf(5e-3, 5e-5, 0.0),
    "oxford_flowers102": _ssf(5e-3, 5e-5, 0.0),
    "oxford_iiit_pet": _ssf(5e-3, 5e-5, 0.0),
    "svhn": _ssf(1e-2, 5e-5, 0.0),
    "sun397": _ssf(5e-3, 5e-5, 0.0),
    "patch_camelyon": _ssf(5e-3, 5e-5, 0.0),
    "eurosat": _ssf(3e-3, 5e-2, 0.2),
    "resisc45": _ssf(2e-3, 5e-5, 0.1),
    "diabetic_retinopathy": _ssf(5e-3, 5e-5, 0.2),
    "clevr_count": _ssf(2e-3, 5e-2, 0.1),
    "clevr_dist": _ssf(5e-2, 5e-2, 0.1),
    "dmlab": _ssf(5e-3, 5e-5, 0.1),
    "kitti": _ssf(1e-2, 5e-5, 0.0),
    "dsprites_loc": _ssf(1e-2, 5e-5, 0.0),
    "dsprites_ori": _ssf(5e-3, 5e-5, 0.2),
    "smallnorb_azi": _ssf(2e-2, 5e-5, 0.1),
    "smallnorb_ele": _ssf(5e-3, 5e-2, 0.2),
}


def _fact(rank: int, scale: float) -> Recipe:
    return Recipe(1e-3, 1e-4, 64, drop_path=0.1, drop_last=True, options={"rank": rank, "scale": scale})


# FacT-TT (Jie and Deng 2023, arXiv 2212.03145): one rank and scale per task.
FACT = {
    "cifar100": _fact(8, 1.0),
    "caltech101": _fact(16, 10.0),
    "dtd": _fact(8, 0.01),
    "oxford_flowers102": _fact(16, 1.0),
    "oxford_iiit_pet": _fact(8, 1.0),
    "svhn": _fact(16, 100.0),
    "sun397": _fact(8, 1.0),
    "patch_camelyon": _fact(8, 10.0),
    "eurosat": _fact(8, 100.0),
    "resisc45": _fact(8, 0.1),
    "diabetic_retinopathy": _fact(8, 1.0),
    "clevr_count": _fact(16, 1.0),
    "clevr_dist": _fact(4, 10.0),
    "dmlab": _fact(16, 10.0),
    "kitti": _fact(16, 10.0),
    "dsprites_loc": _fact(16, 100.0),
    "dsprites_ori": _fact(16, 1.0),
    "smallnorb_azi": _fact(16, 100.0),
    "smallnorb_ele": _fact(8, 10.0),
}


def _grid(lrs: tuple[float, ...], decays: tuple[float, ...], batch_size: int, **rest: Any) -> tuple[Recipe, ...]:
    """Every pair, learning rates ascending: a tie on the validation split goes to the first."""
    return tuple(Recipe(lr, decay, batch_size, **rest) for lr in sorted(lrs) for decay in decays)


# VPT (Jia et al. 2022, arXiv 2203.12119): rates are scaled by batch / 256; warm-up starts and cosine ends at 0.
_VPT_BASE_LRS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0)
VPT = _grid(
    tuple(base * 64 / 256 for base in _VPT_BASE_LRS),
    (0.01, 1e-3, 1e-4, 0.0),
    64,
    warmup_lr=0.0,
    min_lr=0.0,
    optimizer="sgd",
)
VPT_FULL = _grid((1e-4, 5e-4, 1e-3, 5e-3), (0.01, 1e-3, 1e-4, 0.0), 64, warmup_lr=0.0, min_lr=0.0)

# Res-Tuning's own table is not at hand: the protocol that the parameter-efficient tuning papers share.
RES_TUNING = _grid((1e-3, 5e-3, 1e-2), (1e-4,), 64)

ADAMW_DEFAULT = (Recipe(1e-3, 1e-4, 64),)

RECIPES: dict[str, Mapping[str, Recipe] | tuple[Recipe, ...]] = {
    "adamw_default": ADAMW_DEFAULT,
    "snell": SNELL,
    "snella": SNELLA,
    "ssf": SSF,
    "fact": FACT,
    "vpt": VPT,
    "vpt_full": VPT_FULL,
    "res_tuning": RES_TUNING,
}


def candidates(name: str, task: str) -> tuple[Recipe, ...]:
    """The settings of a recipe for one task; more than one means: choose on the validation split, first one on a tie.

    Args:
        name: one of `RECIPES`.
        task: a task's name; recipes without a table per task take any.

    Raises:
        ValueError: no such recipe, or it has nothing for the task; says what there is.

    >>> candidates('snell', 'dtd')[0].options['sparsity'], len(candidates('res_tuning', 'digits'))
    (0.995, 3)
    """
    if name not in RECIPES:
        raise ValueError(f"--recipe={name}: no such recipe{nearest(name, RECIPES)}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    if isinstance(recipe, tuple):
        return recipe
    if task not in recipe:
        general = ", ".join(other for other, value in RECIPES.items() if isinstance(value, tuple))
        raise ValueError(
            f"--recipe={name}: nothing is published for '{task}'{nearest(task, recipe)}; it has {', '.join(recipe)}; "
            f"recipes for any task: {general}"
        )
    return (recipe[task],)
