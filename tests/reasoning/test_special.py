import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxmodels.reasoning.betae import Beta, chosen_divergences, divergence, terms
from jaxmodels.reasoning.special import digamma, trigamma


def test_trigamma_is_scipys():
    x = np.geomspace(0.05, 1e6, 20)
    with jax.enable_x64(True):
        np.testing.assert_allclose(trigamma(jnp.asarray(x)), special.polygamma(1, x), rtol=1e-12)
        np.testing.assert_allclose(jax.vmap(jax.grad(digamma))(jnp.asarray(x)), special.polygamma(1, x), rtol=1e-12)


def test_divergences_of_chosen_entities_and_their_gradients_are_those_of_pairs():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        p, q = (Beta(*jnp.asarray(rng.uniform(0.1, 5, (2, *shape)))) for shape in ((3, 2, 4), (3, 4)))

        def pairs(p, q):
            return divergence(p, Beta(q.alpha[:, None], q.beta[:, None])).sum(-1)

        cotangent = jnp.asarray(rng.normal(size=(3, 2)))
        slow = jax.vjp(pairs, p, q)[1](cotangent)
        fast = jax.vjp(lambda p, q: chosen_divergences(terms(p), q), p, q)[1](cotangent)
        for one, two in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)
