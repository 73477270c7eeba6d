"""The released code's parameter names of N2, and ours."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmodels.weights import names
from jaxmodels.weights.names import Row

_UPDATER = {
    "collection1": "diffuse1", "inspection": "inspect", "collection2": "diffuse2", "dispatch": "dispatch",
    "pnode_agg1.pnode_agg": "refine1/weights", "pnode_agg2.pnode_agg": "refine2/weights",
}  # fmt: skip
_LAYERS = {
    "pnode_agg1.glob2disp": "refine1/displacement", "pnode_agg1.glob2value": "refine1/value",
    "pnode_agg2.glob2disp": "refine2/displacement", "pnode_agg2.glob2value": "refine2/value",
    "hstate_interface": "state_update", "feat_ff": "message_update",
}  # fmt: skip
_NORMS = {
    "phidden_norm": "norm_pseudo1", "hidden_norm": "norm_state1", "pout_norm": "norm_pseudo2",
    "out_norm": "norm_state2", "feat_norm": "norm_message",
}  # fmt: skip
DEAD = (r"(node_state_updater\.)?edge_wise_ff\..*", r"(node_state_updater\.)?time_embedding\..*")


def step_rows(theirs: str = "node_state_updater.", ours: str = "step/") -> list[Row]:
    """The weight map of one recurrent step."""
    return [
        *(Row(f"{theirs}{a}.lambda_copies", (f"{ours}{b}/lam",), "k 1 1 -> k") for a, b in _UPDATER.items()),
        *(row for a, b in _LAYERS.items() for row in _linear(f"{theirs}{a}.0", f"{ours}{b}/linear")),
        *(row for a, b in _NORMS.items() for row in _norm(f"{theirs}{a}", f"{ours}{b}")),
    ]


def communicator_rows() -> list[Row]:
    """The weight map of one pseudo-node communicator alone."""
    return [
        Row("pnode_agg.lambda_copies", ("weights/lam",), "k 1 1 -> k"),
        *_linear("glob2disp.0", "displacement/linear"),
        *_linear("glob2value.0", "value/linear"),
    ]


def rows(level: str) -> list[Row]:
    """The weight map of the whole model, `level` 'node' or 'graph'."""
    graph = [*_linear("pnode_agg.0", "pool/linear"), *_norm("out_norm", "pool_norm")]
    return [
        Row("pnode_state", ("pseudo",), "1 p q -> p q"),
        Row("class_neuron", ("scores/class_nodes",)),
        Row("out_ff.lambda_copies", ("scores/weights/lam",), "k 1 1 -> k"),
        *_linear("node_state_interface.0", "state_in/linear"),
        *_linear("feat_ff.0", "message_in/linear"),
        *step_rows(),
        *(graph if level == "graph" else []),
    ]


def from_official(arrays: Mapping[str, np.ndarray], template: Any, *, level: str, source: str = "checkpoint") -> Any:
    """A released state dict as parameters of `N2` (shared steps, head 'classes', no ablation).

    Args:
        arrays: name -> array, PyTorch layout; the two modules that the released code never uses are skipped.
        template: our parameters, abstract or not.
        level: 'node' or 'graph'.
        source: the file, for errors.

    Raises:
        ValueError: a name that is missing or that nothing reads, or a shape that does not fit.
    """
    return names.read(arrays, _of(template, level), template, drop=DEAD, source=source)


def to_official(params: Any, *, level: str) -> dict[str, np.ndarray]:
    """The inverse of `from_official`, without the modules that nothing uses.

    Raises:
        ValueError: parameters that the released code has no name for.
    """
    return names.write(params, _of(params, level))


def _of(params: Any, level: str) -> list[Row]:
    normed = "norm_state1" in params["step"]
    return [row for row in rows(level) if normed or "/norm_" not in row.ours[0]]


def _linear(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}.weight", (f"{ours}/kernel",), "o i -> i o"), Row(f"{theirs}.bias", (f"{ours}/bias",))]


def _norm(theirs: str, ours: str) -> list[Row]:
    return [Row(f"{theirs}.weight", (f"{ours}/scale",)), Row(f"{theirs}.bias", (f"{ours}/bias",))]
