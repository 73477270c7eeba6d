"""`jax.jit` for programs that run once or twice on tiny arrays, where compiling well would be most of a test's time."""

import functools

import jax

OPTIONS: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (
    0,
    11,
):  # the older way of emitting fusions compiles in a third of the time; later ones lack it
    OPTIONS["xla_cpu_use_fusion_emitters"] = False
quick = functools.partial(jax.jit, compiler_options=OPTIONS)
