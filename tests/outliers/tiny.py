"""Objects with three views of one hidden vector, some views missing; the last ten objects are noise."""

import numpy as np

from jaxmodels.outliers.pairs import Recipe
from jaxmodels.outliers.rcpmod import Options

RECIPE = Recipe(hidden=(8,), latent=4, epochs=2, batch_size=24, options=Options(negative=5, neighbours=3))
# Nothing is drawn by the ids of objects.
FIXED = RECIPE._replace(options=RECIPE.options._replace(compat=True, spread=("uniform",)))


def tiny(objects=64, widths=(6, 6, 6), seed=0):
    """Views in [0, 1] and a mask; of the first objects each lacks one view."""
    random = np.random.default_rng(seed)
    hidden = random.random((objects, 2))
    views = [hidden @ random.random((2, width)) / 2 for width in widths]
    for x in views:
        x[-10:] = random.random((10, x.shape[1]))
    mask = np.ones((objects, len(widths)), np.int32)
    mask[np.arange(12), np.arange(12) % len(widths)] = 0
    return [x * mask[:, v, None] for v, x in enumerate(views)], mask
