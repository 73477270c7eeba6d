import jax
import numpy as np
import pytest

from jaxmodels.training.schedule import epoch_cosine


def test_the_warm_up_is_cut_out_of_the_cosine():
    rate = epoch_cosine(1.0, epochs=20, steps_per_epoch=2, warmup_epochs=4, initial=0.0, floor=0.0, late=False)
    np.testing.assert_allclose([float(rate(2 * t)) for t in range(4)], [0.0, 0.25, 0.5, 0.75])
    assert float(rate(2 * 4)) == pytest.approx(0.5 * (1 + np.cos(np.pi * 4 / 20)))
    assert float(rate(2 * 20)) == pytest.approx(0.0, abs=1e-7)


def test_late_lags_by_one_epoch():
    options = {"epochs": 10, "steps_per_epoch": 3, "warmup_epochs": 2}
    late, punctual = epoch_cosine(1e-2, **options), epoch_cosine(1e-2, **options, late=False)
    for step in range(3, 30):
        assert float(late(step)) == float(punctual(step - 3))


def test_it_is_constant_within_an_epoch_also_when_traced():
    rate = jax.jit(epoch_cosine(1e-2, epochs=10, steps_per_epoch=3))
    values = [float(rate(step)) for step in range(30)]
    assert all(len(set(values[e : e + 3])) == 1 for e in range(0, 30, 3)) and len(set(values)) > 5


def test_wrong_numbers_are_named():
    for name, value in (("epochs", 0), ("steps_per_epoch", 0), ("warmup_epochs", -1)):
        with pytest.raises(ValueError, match=f"{name}: found {value}, expected at least"):
            epoch_cosine(1.0, **({"epochs": 1, "steps_per_epoch": 1} | {name: value}))
