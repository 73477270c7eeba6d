"""Programs compile once: over steps, evaluations and a resumed run, and over processes."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxmodels.training import compilation
from jaxmodels.training.evaluate import evaluate
from jaxmodels.training.fit import fit
from tests.training.small import RandomBatches, small_run

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled():
    found = []

    def listen(event, seconds, **_):
        if event == COMPILED:
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_training_evaluation_and_a_resumed_run_compile_once(tmp_path, compiled):
    method, batches, optimizer = small_run()
    tested = [{**batches[i], "mask": np.ones(8, np.float32)} for i in range(3)]

    def run(steps, **options):
        result = fit(
            *(method, batches, optimizer),
            steps=steps,
            workdir=tmp_path,
            evaluate=lambda variables: evaluate(method, variables, tested),
            evaluate_every=2,
            save_every=2,
            log_every=1,
            **options,
        )
        number = len(compiled)
        compiled.clear()
        return result, number

    _, first = run(4)
    assert first > 0
    _, longer = run(9, resume=True)
    assert longer == 0
    _, again = run(14, resume=True)
    assert again == 0


def test_a_batch_of_another_size_is_refused_and_not_compiled(compiled):
    method, _, optimizer = small_run()

    class Growing:
        def __getitem__(self, step):
            return RandomBatches(8 if step < 2 else 6)[step]

    with pytest.raises(ValueError, match=r"batch 2: 'image' is float32\[6, 8, 8, 3\], expected"):
        fit(method, Growing(), optimizer, steps=4)
    with pytest.raises(ValueError, match=r"evaluate: batch 1: 'image' is float32\[6, 8, 8, 3\], expected"):
        evaluate(method, method.init(jax.random.key(0), None), [RandomBatches(8)[0], RandomBatches(6)[1]])


def test_a_second_process_finds_what_the_first_has_compiled(tmp_path):
    code = (
        "import jax; jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)\n"
        "from jaxmodels.training.compilation import keep_compiled; print(keep_compiled())\n"
        "hits = []; jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))\n"
        "print(jax.jit(lambda x: x * 2 + 1)(3.0)); print(hits.count('/jax/compilation_cache/cache_hits') > 0)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in compilation.NAMED}
    environment["XDG_CACHE_HOME"] = environment["HOME"] = str(tmp_path)
    printed = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    folder, result, hit = printed[1].split()
    assert folder.startswith(str(tmp_path)) and result == "7.0" and hit == "True"
    assert printed[0].split()[2] == "False"


def test_a_choice_in_the_environment_stands(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert compilation.keep_compiled() is None
    assert jax.config.jax_compilation_cache_dir == before
