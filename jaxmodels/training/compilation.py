"""Compiled programs are kept between runs: a second start of the same run does not compile again."""

import os
from pathlib import Path

import jax
import platformdirs

NAMED = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")  # a person's own choice


def keep_compiled() -> Path | None:
    """Turns JAX's persistent cache on, in the user's cache folder; a choice in the environment stands.

    Returns:
        The folder, or None where the environment has chosen.
    """
    if any(name in os.environ for name in NAMED):
        return None
    folder = Path(platformdirs.user_cache_dir("jaxmodels")) / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder
