"""Res-Tuning-Bypass: the tuners run beside the backbone, whose backward pass disappears.

Jiang et al. 2023 (arXiv 2310.19859): a chain of adapters reads the detached output of every block (lateral) and its own
previous result (vertical), and what it ends with replaces the input of the backbone's final norm. Memory is that of
L + 1 token arrays and of the adapters' hidden states. Features of un-augmented images can be computed once
(`cached_reads`), and one forward pass of the backbone serves any number of tasks (`multitask`).
"""

import re
from collections.abc import Sequence

import jax.numpy as jnp

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.ports import check_known
from jaxmodels.tuning.bypass_chain import ChainKinds, check_kinds, init_chain, run_chain
from jaxmodels.tuning.places import check_positive
from jaxmodels.tuning.res_adapter import per_block
from jaxmodels.tuning.tuner import Tuner

ROOT = "tokens"  # input of the first block


def res_tuning_bypass(
    hidden: int | Sequence[int] = 10,
    *,
    merge: str = "lambda",
    lateral: str = "adapter",
    vertical: str = "adapter",
    weight: str = "none",
    zero_init_last: bool = False,
) -> Tuner:
    """Res-Tuning-Bypass; 387,324 parameters on ViT-B/16 by default.

    Args:
        hidden: h of every adapter, or one per block. 10 is what the published counts imply; the released code's
            default is 32.
        merge: 'lambda' (paper: lam lateral + (1 - lam) vertical, a trained lam per block that starts at 0.5) or 'sum'
            (released code: no lam; the sums grow with depth and the final norm takes the scale away).
        lateral: kind on the backbone's features: 'adapter', 'group_adapter', 'identity' or 'zero'.
        vertical: kind on the bypass.
        weight: of the adapters, see `res_adapter`.
        zero_init_last: the last block's adapters start as the identity.

    Returns:
        A bypass tuner; parameters {'block0/out': {'lateral', 'vertical', 'lam'}, ...}. Each adapter contains its
        shortcut. It computes in float32 or wider, whatever the dtype of the features.

    Raises:
        ValueError: an unknown option; at init, widths that do not fit the blocks, or a backbone whose blocks do not
            all have the same width.
    """
    kinds = ChainKinds(lateral, vertical, merge, weight)
    check_kinds(kinds)
    for width in [hidden] if isinstance(hidden, int) else hidden:
        check_positive("hidden", width)

    def init(key, backbone):
        paths = reads(backbone)
        shapes = {path: backbone.shapes().ports[path][1].shape for path in paths}
        _check_equal(backbone, shapes)
        widths = [shapes[path][-1] for path in paths[1:]]
        blocks = init_chain(key, widths, kinds, hidden=per_block(hidden, backbone), zero_init_last=zero_init_last)
        return dict(zip(paths[1:], blocks, strict=True))

    def bypass(params, features, tail):
        wide = {path: x.astype(jnp.promote_types(x.dtype, jnp.float32)) for path, x in features.items()}
        stems = sorted((path for path in wide if path.endswith("/out")), key=_depth)
        blocks = [params.get(path, {}) for path in stems]
        return tail(run_chain(blocks, wide[ROOT], [wide[path] for path in stems], kinds))

    config = {
        "method": "res_tuning_bypass",
        "hidden": hidden if isinstance(hidden, int) else list(hidden),
        "merge": merge,
        "lateral": lateral,
        "vertical": vertical,
        "weight": weight,
        "zero_init_last": zero_init_last,
    }
    # A gate is a mean over all tokens; everything else in the chain treats each token alone.
    return Tuner(config, init, reads=reads, bypass=bypass, tokenwise=weight != "gate")


def reads(backbone: Backbone) -> tuple[str, ...]:
    """The ports a bypass reads: the first block's input and every block's output, in order.

    Raises:
        ValueError: a backbone without them.
    """
    paths = (ROOT, *(f"{block}/out" for block in backbone.blocks))
    check_known(paths, backbone.shapes().ports, f"{backbone.name}: cannot bypass")
    return paths


def _depth(path: str) -> list[int]:
    # jax sorts dictionaries as text, so after a jit 'block10' stands before 'block2'.
    return [int(number) for number in re.findall(r"\d+", path)]


def _check_equal(backbone: Backbone, shapes: dict[str, tuple[int, ...]]) -> None:
    root = shapes[ROOT]
    for path, shape in shapes.items():
        if shape != root:
            raise ValueError(
                f"{backbone.name}: a bypass adds '{path}', found {shape[1:]}, to '{ROOT}', {root[1:]}; "
                "expected blocks of one shape"
            )
