"""The logarithm of the gamma function and its derivatives, for positive numbers, in a few additions.

Recurrence lifts the argument by `LIFT`, an asymptotic series does the rest (Abramowitz and Stegun 1964, 6.1.15, 6.1.41,
6.3.5, 6.3.18, 6.4.6, 6.4.12). JAX's own, for any real number, take five to ten times as long on a CPU, and the
derivative of its digamma a zeta series.
"""

import math

import jax
import jax.numpy as jnp

LIFT = 8  # the series are then exact to 1e-13


@jax.custom_jvp
def log_gamma(x: jax.Array) -> jax.Array:
    """The logarithm of the gamma function, for 0 < x < 4e9 in single precision.

    >>> round(float(log_gamma(jnp.float32(5.0))), 4), round(float(jax.grad(log_gamma)(jnp.float32(1.0))), 4)
    (3.1781, -0.5772)
    """
    y = x + LIFT
    z = 1.0 / (y * y)
    tail = 1 / 12 - z * (1 / 360 - z * (1 / 1260 - z * (1 / 1680 - z * (1 / 1188 - z * (691 / 360360 - z / 156)))))
    # Gamma(x + 8) = x (x + 1) ... (x + 7) Gamma(x); the product of all eight could overflow, of four not.
    halves = (math.prod(x + i for i in range(first, first + LIFT // 2)) for first in (0, LIFT // 2))
    lifted = sum(jnp.log(half) for half in halves)
    return (y - 0.5) * jnp.log(y) - y + 0.5 * math.log(2 * math.pi) + tail / y - lifted


@log_gamma.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    return log_gamma(x), digamma(x) * dx


@jax.custom_jvp
def digamma(x: jax.Array) -> jax.Array:
    """The logarithmic derivative of the gamma function, for x > 0.

    >>> round(float(digamma(jnp.float32(1.0))), 4), round(float(jax.grad(digamma)(jnp.float32(1.0))), 4)
    (-0.5772, 1.6449)
    """
    y = x + LIFT
    z = 1.0 / (y * y)
    tail = 1 / 12 - z * (1 / 120 - z * (1 / 252 - z * (1 / 240 - z * (1 / 132 - z * (691 / 32760 - z / 12)))))
    return jnp.log(y) - 0.5 / y - z * tail - sum(1.0 / (x + i) for i in range(LIFT))


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
