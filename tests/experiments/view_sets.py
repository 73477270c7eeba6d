"""Small data sets with several views as files."""

import numpy as np
import scipy.io


def view_set(folder, views=2, objects=72, name="tiny"):
    """tiny.mat: views of a hidden vector that tells three classes."""
    random = np.random.default_rng(0)
    classes = np.arange(objects) % 3
    hidden = np.eye(3)[classes] + 0.2 * random.random((objects, 3))
    cell = np.empty((1, views), object)
    for v in range(views):
        cell[0, v] = hidden @ random.random((3, 4))
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / f"{name}.mat", {"X": cell, "Y": classes[:, None]})
    return folder
