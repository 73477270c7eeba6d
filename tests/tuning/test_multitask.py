"""Several tasks at once equal each task alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.tuning.classifier import features
from jaxmodels.tuning.heads import linear_head, mlp_head
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.multitask import multitask, stack_tasks, unstack_task
from jaxmodels.tuning.res_bypass import res_tuning_bypass
from jaxmodels.tuning.res_tuning import res_tuning
from jaxmodels.tuning.tuner import Tuner, chain
from tests.tiny_vit import BACKBONE
from tests.tuning.tiny import KEY, backbone_params, images, noisy

CLASSES = (2, 4, 3)
TUNERS = {
    "activation": res_tuning(3, length=2),
    "weight": lora(2),
    "bypass": res_tuning_bypass(3),
    "bypass beside lora": chain(lora(2), res_tuning_bypass(3)),
}


@pytest.fixture
def frozen():
    return backbone_params()


def tasks_of(tuner, head=None):
    def make(t, classes):
        def init():
            return {
                "tuner": tuner.init(KEY, BACKBONE),
                "head": (head or linear_head()).init(KEY, BACKBONE.width, classes),
            }

        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(init))
        return noisy(zeros, seed=t)

    return [make(t, classes) for t, classes in enumerate(CLASSES)]


def alone(frozen, tuner, task, images, head=None):
    """Logits of one task, by the ordinary path."""

    @jax.jit
    def logits(frozen, task):
        params = {"backbone": frozen, "tuner": task["tuner"]}
        pooled = features(BACKBONE, tuner, params, tuner.init_state(BACKBONE), {"image": images}, None)
        return (head or linear_head()).apply(task["head"], pooled)

    return logits(frozen, task)


@pytest.mark.parametrize("tuner", TUNERS.values(), ids=TUNERS)
def test_together_equals_alone(frozen, tuner):
    tasks = tasks_of(tuner)
    together = jax.jit(multitask(BACKBONE, tuner))(frozen, stack_tasks(tasks), images(3))
    assert together.shape == (3, 3, 4)
    for logits, task, classes in zip(together, tasks, CLASSES, strict=True):
        np.testing.assert_allclose(logits[:, :classes], alone(frozen, tuner, task, images(3)), atol=1e-5)
        assert bool(jnp.isneginf(logits[:, classes:]).all())


def test_a_bypass_runs_the_backbone_once_whatever_the_tasks(frozen):
    def flops(count):
        stacked = stack_tasks([tasks_of(TUNERS["bypass"])[0]] * count)
        return jax.jit(multitask(BACKBONE, TUNERS["bypass"])).lower(frozen, stacked, images(3)).cost_analysis()["flops"]

    one, two, three = flops(1), flops(2), flops(3)
    backbone = jax.jit(BACKBONE.apply).lower(frozen, images(3)).cost_analysis()["flops"]
    assert three - two == pytest.approx(two - one, rel=0.05)
    assert two - one < 0.5 * backbone < one


def test_other_heads(frozen):
    head, tuner = mlp_head(2), TUNERS["bypass"]
    tasks = tasks_of(tuner, head)
    together = jax.jit(multitask(BACKBONE, tuner, head=head))(frozen, stack_tasks(tasks), images(3))
    np.testing.assert_allclose(together[0, :, :2], alone(frozen, tuner, tasks[0], images(3), head), atol=1e-5)
    assert bool(jnp.isneginf(together[0, :, 2:]).all())


def test_state_of_each_task_is_its_own(frozen):
    def writes(params, context):
        return {"block1/out": lambda call, x, **seen: call(x, **seen) * context.state["factor"]}

    tuner = Tuner({"method": "scaled"}, writes=writes, init_state=lambda backbone: {"factor": jnp.ones(())})
    heads = [linear_head().init(KEY, BACKBONE.width, 2)] * 2
    tasks = [
        {"tuner": {}, "head": head, "state": {"factor": jnp.float32(f)}}
        for head, f in zip(heads, (1.0, -1.0), strict=True)
    ]
    logits = multitask(BACKBONE, tuner)(frozen, stack_tasks(tasks), images(3))
    plain = linear_head().apply(heads[0], BACKBONE.apply(frozen, images(3)))
    np.testing.assert_allclose(logits[0], plain, atol=1e-5)
    assert float(jnp.abs(logits[1] - plain).max()) > 1e-4


def test_stacking_round_trips_and_names_what_does_not_fit():
    a, b = ({"tuner": {"port": jnp.full((2,), t)}, "head": {"bias": jnp.full((3,), t)}} for t in (0.0, 1.0))
    assert unstack_task(stack_tasks([a, b]), 1)["tuner"]["port"].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="found none"):
        stack_tasks([])
    with pytest.raises(ValueError, match="task 1 and task 0 differ in 'tuner/other'"):
        stack_tasks([a, {**b, "tuner": {"port": jnp.ones(2), "other": jnp.ones(2)}}])
    with pytest.raises(ValueError, match="'tuner/port' has the shapes"):
        stack_tasks([a, {**b, "tuner": {"port": jnp.ones(3)}}])


def test_a_tuner_that_trains_the_backbone_is_refused():
    tuner = Tuner({"method": "full"}, groups=lambda backbone: ((".*", "tuner"),))
    with pytest.raises(ValueError, match="'full' trains parameters of the backbone"):
        multitask(BACKBONE, tuner)
