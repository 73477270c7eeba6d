"""A mixed batch equals each example under its own task, in one compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.tuning.multitask import stack_tasks
from jaxmodels.tuning.serving import serve
from jaxmodels.tuning.tuner import Tuner
from tests.tiny_vit import BACKBONE
from tests.tuning.test_multitask import CLASSES, TUNERS, alone, tasks_of
from tests.tuning.tiny import backbone_params, images


@pytest.fixture
def frozen():
    return backbone_params()


@pytest.mark.parametrize("tuner", TUNERS.values(), ids=TUNERS)
def test_each_example_is_answered_by_its_own_task(frozen, tuner):
    tasks = tasks_of(tuner)
    stacked, answer = stack_tasks(tasks), serve(BACKBONE, tuner)
    expected = [alone(frozen, tuner, task, images(3)) for task in tasks]
    for ids in ([2, 0, 1], [1, 1, 0]):
        logits = answer(frozen, stacked, images(3), np.array(ids))
        for i, task in enumerate(ids):
            np.testing.assert_allclose(logits[i, : CLASSES[task]], expected[task][i], atol=1e-5)
            assert bool(jnp.isneginf(logits[i, CLASSES[task] :]).all())


def test_other_task_ids_compile_nothing(frozen):
    traces = []

    def bypass(params, reads, tail):
        traces.append(1)
        return TUNERS["bypass"].bypass(params, reads, tail)

    tuner = TUNERS["bypass"]._replace(bypass=bypass)
    stacked, answer = stack_tasks(tasks_of(tuner)), serve(BACKBONE, tuner)
    answer(frozen, stacked, images(3), np.array([0, 1, 2]))
    first = len(traces)
    for ids in ([2, 2, 2], [1, 0, 2]):
        answer(frozen, stacked, images(3), np.array(ids))
    assert len(traces) == first > 0
    answer(frozen, stacked, images(3)[:2], np.array([0, 1]))  # another batch size does
    assert len(traces) > first


def test_unknown_tasks_are_errors_and_nan_where_they_cannot_be(frozen):
    stacked, answer = stack_tasks(tasks_of(TUNERS["bypass"])), serve(BACKBONE, TUNERS["bypass"])
    for ids in ([0, 3, 1], [0, -1, 1]):
        with pytest.raises(ValueError, match=f"task_ids: found {ids[1]}, expected 0 to 2"):
            answer(frozen, stacked, images(3), np.array(ids))
        logits = jax.jit(answer)(frozen, stacked, images(3), jnp.array(ids))
        assert bool(jnp.isnan(logits[1]).all()) and not bool(jnp.isnan(logits[jnp.array([0, 2])]).any())
    with pytest.raises(ValueError, match=r"found the shape \(2,\), expected \(3,\)"):
        answer(frozen, stacked, images(3), np.array([0, 1]))
    with pytest.raises(ValueError, match="expected integers"):
        answer(frozen, stacked, images(3), np.ones(3, np.float32))


def test_a_tuner_that_trains_the_backbone_is_refused():
    with pytest.raises(ValueError, match="'full' trains parameters of the backbone"):
        serve(BACKBONE, Tuner({"method": "full"}, groups=lambda backbone: ((".*", "tuner"),)))
