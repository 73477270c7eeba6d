"""Where tuners attach: the linear layers of transformer blocks, by the short names the literature uses."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from jaxmodels.backbones.backbone import Backbone

# short name -> the end of the port path of that linear layer, in a ViT as in Swin and ConvNeXt
LINEARS = {
    "q": "attn/q_proj",
    "k": "attn/k_proj",
    "v": "attn/v_proj",
    "proj": "attn/proj",
    "fc1": "mlp/fc1",
    "fc2": "mlp/fc2",
}


class Linear(NamedTuple):
    """One linear layer: its short name, input and output width."""

    target: str
    inputs: int
    outputs: int


def linears(backbone: Backbone, targets: Iterable[str]) -> dict[str, Linear]:
    """Port path -> `Linear` for the targeted layers, in the order in which data passes.

    Raises:
        ValueError: an unknown target, or one that the backbone has no layer for.
    """
    targets = tuple(targets)
    for target in targets:
        if target not in LINEARS:
            raise ValueError(f"targets: found '{target}', expected some of {', '.join(LINEARS)}")
    found: dict[str, Linear] = {}
    for path, (inputs, output) in backbone.shapes().ports.items():
        for target in targets:
            if path == LINEARS[target] or path.endswith("/" + LINEARS[target]):
                found[path] = Linear(target, inputs[0].shape[-1], output.shape[-1])
    for target in targets:
        if target not in {site.target for site in found.values()}:
            raise ValueError(f"targets: {backbone.name} has no layer '{LINEARS[target]}' for '{target}'")
    return found


def ports_like(backbone: Backbone, pattern: str) -> list[str]:
    """The port paths that match `pattern` as a whole, in the order in which data passes.

    Raises:
        ValueError: none does.
    """
    found = [path for path in backbone.shapes().ports if re.fullmatch(pattern, path)]
    if not found:
        raise ValueError(f"{backbone.name} has no port like '{pattern}'")
    return found
