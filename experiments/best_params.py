"""The parameters of a run's best moment, in one file of its folder."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxmodels.training.mesh import fetch
from jaxmodels.training.processes import is_main
from jaxmodels.weights.files import read_arrays, write_safetensors

FILE = "best.safetensors"


def write_best(folder: Path, params: Any) -> None:
    """Writes them; all processes together, where each holds a part."""
    whole = fetch(params)
    if is_main():
        write_safetensors(folder / FILE, flatten_dict(jax.tree.map(np.asarray, whole), sep="/"))


def read_best(folder: Path) -> Any:
    """Reads them."""
    return unflatten_dict(read_arrays(folder / FILE), sep="/")
