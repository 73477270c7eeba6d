import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.tuning import sparsify as module
from jaxmodels.tuning.sparsify import limits, order_statistic, prune, quantile, sparsify, threshold

# Larger than what is sorted as a whole, so that the search by counting is what runs.
BIG = (97, 61)
assert BIG[0] * BIG[1] > module.SAMPLE


def values(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    draw = {
        "normal": np.abs(rng.normal(size=BIG)),
        "skewed": rng.lognormal(sigma=6.0, size=BIG),
        "ties": rng.integers(0, 4, BIG).astype(float),
        "constant": np.full(BIG, 0.25),
        "zeros": np.where(rng.random(BIG) < 0.5, 0.0, rng.random(BIG)),
    }[kind]
    return draw.astype(np.float32)


by_counting = jax.jit(lambda x, k: order_statistic(x, k, selection="count"))
quantile_by = {name: jax.jit(lambda x, q, n=name: quantile(x, q, selection=n)) for name in module.SELECTIONS}


@pytest.mark.parametrize("kind", ["normal", "skewed", "ties", "constant", "zeros"])
def test_counting_finds_the_same_order_statistic_as_sorting_to_the_last_bit(kind):
    x = values(kind)
    ordered = np.sort(x, axis=None)
    for k in (0, 1, 17, x.size // 2, int(0.9 * x.size), x.size - 2, x.size - 1):
        assert by_counting(x, k) == ordered[k]


@pytest.mark.parametrize("kind", ["normal", "skewed", "ties", "constant", "zeros"])
def test_quantiles_by_counting_equal_quantiles_by_sorting(kind):
    for q in (0.0, 0.1, 0.37, 0.5, 0.9, 0.995, 1.0):
        found = {name: quantile_by[name](values(kind), q) for name in module.SELECTIONS}
        assert found["count"] == found["sort"]
        np.testing.assert_allclose(found["sort"], jnp.quantile(values(kind), q), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, BIG[0] * BIG[1] - 1), st.integers(1, 40))
def test_counting_is_exact_for_any_rank_and_any_number_of_distinct_values(seed, k, distinct):
    rng = np.random.default_rng(seed)
    x = rng.choice(np.abs(rng.standard_cauchy(distinct)), BIG).astype(np.float32)
    assert by_counting(x, k) == np.sort(x, axis=None)[k]


def test_counting_works_in_float64_and_under_vmap():
    with jax.enable_x64(True):
        x = np.abs(np.random.default_rng(1).normal(size=(3, *BIG)))
        found = jax.vmap(lambda x: quantile(x, 0.7))(x)
        np.testing.assert_allclose(found, np.quantile(x.reshape(3, -1), 0.7, axis=1), rtol=1e-15)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("mode", module.MODES)
def test_the_given_fraction_is_pruned(mode, level):
    update = jnp.asarray(np.random.default_rng(2).normal(size=BIG), jnp.float32)
    kept = float((sparsify(update, level, mode=mode) != 0).mean())
    assert abs(kept - (1 - level)) < 2 / update.size


def test_all_ties_at_the_threshold_are_pruned():
    update = jnp.array([[1.0, -2.0, 2.0, 2.0, 3.0, -4.0]])
    assert sparsify(update, 0.5).tolist() == [[0.0, 0.0, 0.0, 0.0, 9.0, -16.0]]


def test_zero_keeps_all_but_the_smallest_and_one_keeps_nothing():
    update = jnp.array([[1.0, -2.0, 3.0]])
    assert sparsify(update, 0.0).tolist() == [[0.0, -4.0, 9.0]]
    assert np.abs(sparsify(update, 1.0)).max() == 0


@pytest.mark.parametrize(
    ("mode", "gradient"),
    [  # the second smallest of 4 is the threshold of Equation 5 at s = 0.5
        ("code", [0.0, 0.0, 3.0, 4.0]),
        ("hard", [0.0, 0.0, 1.0, 1.0]),
        ("eq5", [0.0, 2.0, 4.0, 6.0]),
        ("eq5_detach", [0.0, 0.0, 1.0, 2.0]),
    ],
)
def test_gradients_are_the_published_ones_even_at_the_threshold(mode, gradient):
    update = jnp.array([[1.0, -2.0, 3.0, -4.0]])
    assert jax.grad(lambda d: sparsify(d, 0.5, mode=mode).sum())(update).tolist() == [gradient]


@pytest.mark.parametrize("mode", module.MODES)
def test_a_matrix_merged_again_with_other_rounding_keeps_the_same_survivors(mode):
    update = jnp.asarray(np.random.default_rng(3).normal(size=(16, 16)), jnp.float32)
    found = limits(update, 0.6, mode=mode)  # 0.6 * 255 is whole: for 'code' t equals an entry
    survivors = prune(update, found, mode=mode) != 0
    for direction in (0.0, 9.0):
        nudged = jnp.sign(update) * jnp.nextafter(jnp.abs(update), direction)
        entry = jnp.abs(update) == found.threshold  # of no consequence in Equation 5, where it is 0 or almost
        again = prune(nudged, found, mode=mode) != 0
        differs = (survivors != again) & ~(entry & mode.startswith("eq5"))
        assert not differs.any()


def test_a_float32_level_falls_on_the_same_rank_beside_float64_magnitudes():
    with jax.enable_x64(True):
        x = jnp.arange(101.0)[None] / 8
        for level in np.arange(0.0, 1.0, 0.05):
            assert quantile(x, np.float32(level)) == pytest.approx(
                float(quantile(x.astype(jnp.float32), np.float32(level))), rel=1e-6
            )


def test_the_order_statistic_of_equation_5_is_the_ceiling_also_in_float32():
    x = jnp.arange(1.0, 141.0)[None]
    assert [float(threshold(x, s, mode="eq5")) for s in (0.0, 0.1, 0.5, 0.9, 1.0)] == [1, 14, 70, 126, 140]


def test_the_level_may_be_traced():
    update = jnp.asarray(np.random.default_rng(4).normal(size=BIG), jnp.float32)
    traces = []

    @jax.jit
    def pruned(level):
        traces.append(0)
        return (sparsify(update, level) == 0).mean()

    assert float(pruned(0.2)) < 0.21 < 0.69 < float(pruned(0.7)) and len(traces) == 1


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="sparsify: found 'soft'"):
        sparsify(jnp.ones((2, 2)), 0.5, mode="soft")
    with pytest.raises(ValueError, match="selection: found 'heap'"):
        sparsify(jnp.ones((2, 2)), 0.5, selection="heap")
