import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxmodels.reasoning.betae import Beta, chosen_divergences, divergence, terms
from jaxmodels.reasoning.special import digamma, log_gamma, trigamma


def test_the_gamma_function_and_its_derivatives_are_scipys():
    x = np.concatenate([np.geomspace(1e-9, 4e9, 60), [1.0, 1.4616321449683622, 2.0]])
    with jax.enable_x64(True):
        given = jnp.asarray(x)
        near = dict(rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(log_gamma(given), special.gammaln(x), **near)
        np.testing.assert_allclose(digamma(given), special.digamma(x), **near)
        np.testing.assert_allclose(trigamma(given), special.polygamma(1, x), **near)
        np.testing.assert_allclose(jax.vmap(jax.grad(log_gamma))(given), special.digamma(x), **near)
        np.testing.assert_allclose(jax.vmap(jax.grad(digamma))(given), special.polygamma(1, x), **near)


def test_single_precision_is_near():
    x = np.geomspace(1e-9, 4e9, 10_000, dtype=np.float32)
    for found, expected in ((log_gamma, special.gammaln), (digamma, special.digamma)):
        exact = expected(x.astype(np.float64))
        np.testing.assert_allclose(found(jnp.asarray(x)), exact, rtol=1e-6, atol=1e-5)


def test_divergences_of_chosen_entities_and_their_gradients_are_those_of_pairs():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        p, q = (Beta(*jnp.asarray(rng.uniform(0.1, 5, (2, *shape)))) for shape in ((3, 2, 4), (3, 4)))

        def pairs(p, q):
            return divergence(p, Beta(q.alpha[:, None], q.beta[:, None])).sum(-1)

        cotangent = jnp.asarray(rng.normal(size=(3, 2)))
        slow = jax.vjp(pairs, p, q)[1](cotangent)
        fast = jax.vjp(lambda p, q: chosen_divergences(terms(jnp.concatenate(p, axis=-1)), q), p, q)[1](cotangent)
        for one, two in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)
