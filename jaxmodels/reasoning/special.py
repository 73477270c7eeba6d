"""Digamma and trigamma of positive numbers, in a few additions; JAX's own take a zeta series for the derivative.

Recurrence lifts the argument, an asymptotic series does the rest (Abramowitz and Stegun 1964, 6.3.5, 6.3.18, 6.4.12).
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma as _digamma

LIFT = 8  # the series is then exact to 1e-13


@jax.custom_jvp
def digamma(x: jax.Array) -> jax.Array:
    """The logarithmic derivative of the gamma function.

    >>> round(float(digamma(jnp.float32(1.0))), 4), round(float(jax.grad(digamma)(jnp.float32(1.0))), 4)
    (-0.5772, 1.6449)
    """
    return _digamma(x)


@digamma.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    return digamma(x), trigamma(x) * dx


def trigamma(x: jax.Array) -> jax.Array:
    """The derivative of digamma, for x > 0.

    >>> round(float(trigamma(jnp.float32(0.5))), 4)
    4.9348
    """
    lifted = sum(1.0 / jnp.square(x + i) for i in range(LIFT))
    y = 1.0 / (x + LIFT)
    z = y * y
    tail = z * (1 / 6 - z * (1 / 30 - z * (1 / 42 - z * (1 / 30 - z * (5 / 66 - z * (691 / 2730 - z * 7 / 6))))))
    return lifted + y * (1.0 + 0.5 * y + tail)
