"""Where a residual tuner stands in a block: beside the attention, beside the feed-forward part, or beside the block.

Res-Tuning writes all three as x' = OP(x) + tuner (Jiang et al. 2023, arXiv 2310.19859): a *place* names OP, a port is
where its output can be added to.
"""

from collections.abc import Sequence

import jax

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.rules import nearest

# place -> the port that carries OP's output; all of them also see OP's `inputs`
OUTPUTS = {"mha": "attn_out", "ffn": "mlp_out", "block": "out"}
CORE = "attn/core"  # the attention itself, on queries, keys and values in heads


def check_place(place: str) -> None:
    """Raises a ValueError for a place that is none of 'mha', 'ffn', 'block'."""
    check_choice("place", place, tuple(OUTPUTS))


def check_choice(option: str, value: object, choices: Sequence[str]) -> None:
    """Raises a ValueError that names the option, what was found and what may stand there."""
    if value not in choices:
        hint = nearest(value, choices) if isinstance(value, str) else ""
        raise ValueError(f"{option}: found {value!r}, expected one of {', '.join(choices)}{hint}")


def check_positive(option: str, value: int) -> None:
    """Raises a ValueError for a length or width below 1."""
    if value < 1:
        raise ValueError(f"{option}: found {value}, expected at least 1")


def block_ports(backbone: Backbone, port: str) -> list[str]:
    """The path of `port` in every block, in order.

    Raises:
        ValueError: a block does not have it, as a convolutional one has no attention.
    """
    known = backbone.shapes().ports
    paths = [f"{block}/{port}" for block in backbone.blocks]
    for path in paths:
        if path not in known:
            raise ValueError(f"{backbone.name} has no port '{path}', which this tuner needs{nearest(path, known)}")
    return paths


def core_shape(backbone: Backbone, path: str) -> tuple[int, int, int]:
    """(N, H, d): keys per query, heads and their width of the attention of the block that holds the port `path`."""
    block = next(block for block in backbone.blocks if path.startswith(f"{block}/"))
    core = f"{block}/{CORE}"
    if core not in backbone.shapes().ports:
        raise ValueError(f"{backbone.name} has no attention '{core}' whose heads a prefix or prompt could follow")
    keys: jax.ShapeDtypeStruct = backbone.shapes().ports[core][0][1]
    tokens, heads, width = keys.shape[-3:]
    return tokens, heads, width
