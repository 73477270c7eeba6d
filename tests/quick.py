"""Programs that run once or twice on tiny arrays: compiling them well would be most of a test's time."""

import functools

import jax

OPTIONS: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # the older way of emitting fusions compiles in a third of the time; gone later
    OPTIONS["xla_cpu_use_fusion_emitters"] = False
FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in OPTIONS.items())  # of every test, by XLA_FLAGS
quick = functools.partial(jax.jit, compiler_options=OPTIONS)
