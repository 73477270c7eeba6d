"""A step may hold several batches, each of which has an optimizer update of its own."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmodels as jm
from jaxmodels.method import Aux, Mean, Method


def pull():
    """Pulls w to the mean of each batch; a batch of the other kind pulls v."""

    def loss(variables, batch, key):
        name = "w" if "w" in batch else "v"
        off = variables["params"][name] - batch[name].mean()
        state = {"updates": variables["state"]["updates"] + 1}
        return 0.5 * off**2, Aux(state, {f"loss_{name}": Mean.of(off[None])})

    start = {"params": {"w": jnp.zeros(()), "v": jnp.zeros(())}, "state": {"updates": jnp.zeros((), jnp.int32)}}
    return Method(lambda key, batch: start, loss, lambda variables, batch: None, ((".*", "all"),))


class Steps:
    def __getitem__(self, step):
        w, v = ({name: np.full(2, value + step, np.float32)} for name, value in (("w", 8.0), ("v", 4.0)))
        return w, v, {"w": w["w"] + 1}


def test_each_batch_of_a_step_has_an_update_and_metrics_merge():
    fitted = jm.fit(pull(), Steps(), optax.sgd(0.5), steps=2, log_every=1)
    assert fitted.step == 2 and int(fitted.variables["state"]["updates"]) == 6
    w = 0.0
    for target in (8, 9, 9, 10):
        w += 0.5 * (target - w)
    assert float(fitted.variables["params"]["w"]) == pytest.approx(w)
    assert fitted.history[0]["loss_w"] == pytest.approx((-8 + (4 - 9)) / 2) and fitted.history[0]["loss_v"] == -4


def test_a_resumed_run_goes_on_after_whole_steps(tmp_path):
    whole = jm.fit(pull(), Steps(), optax.adam(0.1), steps=4).variables
    jm.fit(pull(), Steps(), optax.adam(0.1), steps=2, workdir=tmp_path)
    again = jm.fit(pull(), Steps(), optax.adam(0.1), steps=4, workdir=tmp_path, resume=True).variables
    assert whole["params"]["w"] == again["params"]["w"] and int(again["state"]["updates"]) == 12


def test_another_shape_within_a_step_is_named():
    class Ragged:
        def __getitem__(self, step):
            return {"w": np.zeros(2 + step, np.float32)}, {"v": np.zeros(2, np.float32)}

    with pytest.raises(ValueError, match="'0/w' is float32"):
        jm.fit(pull(), Ragged(), optax.sgd(0.1), steps=2)
