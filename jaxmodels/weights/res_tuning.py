"""Weight map of Res-Tuning-Bypass adapters as ms-swift saves them (`restuning_<adapter>.bypass_blocks.{l}...`).

Their `ln1` and `ln2` are linear layers (down and up), not norms; weights are (out, in), maps channels first.
"""

import re
from typing import Any

from jaxmodels.rules import leaf_names
from jaxmodels.weights.names import Row

_SIDES = {"lateral": "lateral_tuner", "vertical": "vertical_tuner"}
_LEAVES = {
    "down/kernel": ("ln1.weight", "o i -> i o"),
    "down/bias": ("ln1.bias", ""),
    "up/kernel": ("ln2.weight", "o i -> i o"),
    "up/bias": ("ln2.bias", ""),
    "scaling": ("scaling", ""),
    "scaling/kernel": ("scaling.weight", "o i -> i o"),
    "scaling/bias": ("scaling.bias", ""),
}
_CONV = {"kernel": ("conv.weight", "o i h w -> h w i o"), "bias": ("conv.bias", "")}


def bypass_rows(params: Any, *, adapter: str | None = "default") -> list[Row]:
    """The map for the blocks of a bypass: of `res_tuning_bypass`, or {'0': ..., '1': ...} of a U-Net's chain.

    Args:
        params: {block: {'lateral', 'vertical', 'aux'}}, arrays or abstract, blocks in any order.
        adapter: name of the adapter in the file; None for a bypass saved alone, without the prefix.

    Returns:
        Rows for `jaxmodels.weights.names.read` and `write`.

    Raises:
        ValueError: a parameter the released code has no name for, such as the paper's lam.
    """
    prefix = "" if adapter is None else f"restuning_{adapter}."
    rows = []
    for i, block in enumerate(sorted(params, key=_depth)):
        for leaf in leaf_names(params[block]):
            side, _, name = leaf.partition("/")
            stem = f"{prefix}bypass_blocks.{i}"
            if side in _SIDES and name in _LEAVES:
                theirs, layout = _LEAVES[name]
                stem = f"{stem}.{_SIDES[side]}.tuner"
            elif side == "aux" and name.removeprefix("conv/") in _CONV:
                theirs, layout = _CONV[name.removeprefix("conv/")]
                stem = f"{stem}.aux_tuner.tuner"
            else:
                raise ValueError(f"ms-swift's bypass has no counterpart of '{block}/{leaf}'; use merge='sum'")
            rows.append(Row(f"{stem}.{theirs}", (f"{block}/{leaf}",), layout))
    return rows


def _depth(block: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", block)]
