import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.tuning import kernels


def factors(shape=(2, 7, 3), out=9, scale=1.0):
    a, b = jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), (shape[0], out, shape[2]))
    return scale * a, scale * b


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.5])
def test_distances_are_the_norms_of_the_differences(norm):
    (a,), (b,) = factors((1, 7, 3))
    expected = np.linalg.norm(np.asarray(a)[:, None] - np.asarray(b)[None], ord=norm, axis=-1)
    np.testing.assert_allclose(kernels.distances(a, b, norm=norm), expected, rtol=1e-6)


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.5])
def test_coincident_rows_have_no_gradient_and_do_not_spoil_the_others(norm):
    a = jnp.array([[1.0, 2.0], [0.0, 0.0]])
    grads = jax.grad(lambda a, b: kernels.distances(a, b, norm=norm).sum(), (0, 1))(a, a[:1])
    assert np.isfinite(np.asarray(grads[0])).all() and np.isfinite(np.asarray(grads[1])).all()
    assert grads[0][0].tolist() == [0.0, 0.0] and float(jnp.abs(grads[0][1]).min()) > 0.1


@pytest.mark.parametrize("width", [3, kernels.UNROLLED + 1])
def test_both_forms_of_the_euclidean_distance_have_the_exact_gradient(width):
    with jax.enable_x64(True):
        a = jax.random.normal(jax.random.key(0), (5, width), jnp.float64)
        b = jax.random.normal(jax.random.key(1), (6, width), jnp.float64)
        g = jax.random.normal(jax.random.key(2), (5, 6), jnp.float64)

        def explicit(a, b):
            return (jnp.sqrt(jnp.square(a[:, None] - b[None]).sum(-1)) * g).sum()

        found = jax.grad(lambda a, b: (kernels.distances(a, b) * g).sum(), (0, 1))(a, b)
        for ours, expected in zip(found, jax.grad(explicit, (0, 1))(a, b), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def test_distances_are_computed_in_float32_from_bfloat16_factors():
    a, b = (x[0].astype(jnp.bfloat16) for x in factors((1, 7, 3), scale=0.01))
    found = kernels.distances(a, b)
    assert found.dtype == jnp.float32
    wide = np.asarray(a, np.float64)[:, None] - np.asarray(b, np.float64)[None]
    np.testing.assert_allclose(found, np.sqrt((wide**2).sum(-1)), rtol=1e-5)


def test_the_piecewise_kernel_has_full_rank_where_the_product_has_not():
    a, b = factors((2, 24, 2), 24)
    pieced = kernels.piecewise_linear(a, b, jnp.array([0.1, -0.1]))
    product = kernels.linear(a.transpose(1, 0, 2).reshape(24, 4), b.transpose(1, 0, 2).reshape(24, 4))
    assert np.linalg.matrix_rank(pieced) == 24 and np.linalg.matrix_rank(product) == 4


def test_sigmoid_does_not_overflow():
    a = jnp.full((1, 4), 100.0)
    value, grad = jax.value_and_grad(lambda a: kernels.sigmoid(a, -a, 1.0, 1.0, 0.0).sum())(a)
    assert float(value) == 0.0 and np.isfinite(np.asarray(grad)).all()


def test_the_mixture_adds_a_softmax_over_outputs_and_a_shift():
    update = jnp.array([[0.0, jnp.log(3.0)]])
    np.testing.assert_allclose(kernels.mixture(update, 4.0, 1.0, 0.5), update + jnp.array([[1.5, 3.5]]), rtol=1e-6)


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_every_kernel_merges_its_parameters_and_trains_its_scalars(name):
    kernel = kernels.kernel(name)
    a, b = factors((kernel.pieces, 6, 4), 5)
    params = {"in_q": a, "out_q": b, **{s: jnp.full((1,), v) for s, v in kernel.scalars.items()}}
    grads = jax.grad(lambda p: (kernel.merge(p) * jnp.arange(30.0).reshape(6, 5)).sum())(params)
    assert kernel.merge(params).shape == (6, 5)
    assert all(float(jnp.abs(g).max()) > 0 for g in grads.values())


@pytest.mark.parametrize("pieces", [1, 3])
def test_pieces_have_alternating_signs(pieces):
    a, b = factors((pieces, 6, 2), 5)
    each = [kernels.distances(a[h], b[h]) * 0.1 * (-1) ** h for h in range(pieces)]
    np.testing.assert_allclose(kernels.kernel(pieces=pieces).merge({"in_q": a, "out_q": b}), sum(each), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cubic"}, "kernel: found 'cubic'"),
        ({"name": "linear", "norm": 1.0}, "'linear' has neither norm nor pieces"),
        ({"norm": 0.5}, "norm: found 0.5"),
        ({"pieces": 0}, "pieces: found 0"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        kernels.kernel(**options)
