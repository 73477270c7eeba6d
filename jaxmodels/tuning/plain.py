"""The reference points every tuner is compared with: linear probe, full and partial fine-tuning, biases only.

None of them adds a parameter: they name what of the backbone trains, in the group 'backbone'.
"""

import re
from typing import Any

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.rules import Rules
from jaxmodels.tuning.tuner import Tuner


def linear() -> Tuner:
    """Nothing but the head trains, on the pooled feature. Reads only 'pooled', so features can be cached."""
    return Tuner(
        {"method": "linear"},
        reads=lambda backbone: ("pooled",),
        bypass=lambda params, reads, tail: reads["pooled"],
        merge=_same,
    )


def full() -> Tuner:
    """Everything trains: the upper bound in parameters (85.80 M of a ViT-B/16), not always in accuracy."""
    return Tuner({"method": "full"}, groups=lambda backbone: ((".*", "backbone"),), merge=_same)


def partial(blocks: int = 1) -> Tuner:
    """The last blocks and the final norm train (Partial-k of Jia et al. 2022, arXiv 2203.12119).

    Args:
        blocks: k, how many of the backbone's blocks, counted from its end; one of a ViT-B/16 holds 7.09 M parameters.

    Raises:
        ValueError: k below 1, or more than the backbone has (once the backbone is known).
    """
    if blocks < 1:
        raise ValueError(f"blocks: found {blocks}, expected at least 1")

    def groups(backbone: Backbone) -> Rules:
        if blocks > len(backbone.blocks):
            raise ValueError(f"blocks: found {blocks}, expected at most {len(backbone.blocks)}, all of {backbone.name}")
        last = "|".join(map(re.escape, backbone.blocks[-blocks:]))
        return ((f"({last})/.*", "backbone"), ("norm/.*", "backbone"))

    return Tuner({"method": "partial", "blocks": blocks}, groups=groups, merge=_same)


def bitfit() -> Tuner:
    """Every bias trains: patch embedding, linear layers, norms (Ben Zaken et al. 2022, arXiv 2106.10199)."""
    return Tuner({"method": "bitfit"}, groups=lambda backbone: ((".*/bias", "backbone"),), merge=_same)


def _same(params: Any, backbone_params: Any, state: Any) -> Any:
    return backbone_params
