"""Kernels that merge two thin factors into a full-size, full-rank update (SNELL, Shen et al. 2024, arXiv 2411.01800).

A layer with `inputs` x `outputs` weights keeps factors In (H, inputs, r/H) and Out (H, outputs, r/H); a kernel turns
rows In_i, Out_j into the update D[i, j]. H is the number of pieces. The functions below are the published equations on
plain arrays; `kernel(name)` packs one with its learnable scalars for a tuner.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

HIGHEST = jax.lax.Precision.HIGHEST
COEFFICIENT = 0.1  # of the pieces, with alternating sign; frozen in the official code
UNROLLED = 16  # widest factor whose squared differences are summed explicitly


def _wide(x: Array) -> Array:
    """At least float32: distances between entries of about 0.01 cancel badly in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _root(power: Array, exponent: float) -> Array:
    """The root of a power, with gradient 0 where the power is 0: both branches of a `where` must stay finite."""
    positive = power > 0
    safe = jnp.where(positive, power, 1.0)
    root = jnp.sqrt(safe) if exponent == 2.0 else safe ** (1.0 / exponent)
    return jnp.where(positive, root, 0.0)


def _pairs(function: Callable[[Array], Array], a: Array, b: Array) -> Array:
    """sum_k function(a_ik - b_jk), in one pass over (m, n): nothing of size (m, n, w) is stored."""

    def unrolled(a, b):
        return functools.reduce(jnp.add, (function(a[:, k][:, None] - b[:, k][None, :]) for k in range(a.shape[1])))

    def reduced(a, b):
        return function(a.T[:, :, None] - b.T[:, None, :]).sum(0)

    # XLA's CPU compiler makes slow loops of such a sum; the others fuse it, and hundreds of operations per layer more
    # would make their compilation many times longer.
    return jax.lax.platform_dependent(a, b, cpu=unrolled, default=reduced)


@jax.custom_vjp
def _euclidean(a: Array, b: Array) -> Array:
    return _euclidean_forward(a, b)[0]


def _euclidean_forward(a, b):
    if a.shape[1] <= UNROLLED:
        squares = _pairs(jnp.square, a, b)
    else:
        cross = jnp.matmul(a, b.T, precision=HIGHEST)
        squares = jnp.square(a).sum(1)[:, None] + jnp.square(b).sum(1)[None, :] - 2.0 * cross
        squares = jnp.maximum(squares, 0.0)
    out = _root(squares, 2.0)
    return out, (a, b, out)


def _euclidean_backward(residuals, g):
    # sum_j g_ij (a_i - b_j) / d_ij as two thin products; autodiff of the explicit form would pass 4 w times over it.
    a, b, out = residuals
    slope = jnp.where(out > 0, g / jnp.where(out > 0, out, 1.0), 0.0)
    slope = jax.lax.optimization_barrier(slope)  # four passes read it
    grad_a = a * slope.sum(1)[:, None] - jnp.matmul(slope, b, precision=HIGHEST)
    grad_b = b * slope.sum(0)[:, None] - jnp.matmul(slope.T, a, precision=HIGHEST)
    return grad_a, grad_b


_euclidean.defvjp(_euclidean_forward, _euclidean_backward)


def distances(a: Float[Array, "m w"], b: Float[Array, "n w"], *, norm: float = 2.0) -> Float[Array, "m n"]:
    """All pairwise distances ||a_i - b_j||_p in float32 or wider; coincident rows have distance and gradient 0.

    Args:
        a: rows (m, w).
        b: rows (n, w).
        norm: p >= 1.

    >>> distances(jnp.array([[0., 0.]]), jnp.array([[3., 4.], [0., 0.]])).tolist()
    [[5.0, 0.0]]
    """
    a, b = _wide(a), _wide(b)
    if norm == 2.0:
        return _euclidean(a, b)
    if norm == 1.0:
        return _pairs(lambda x: jnp.where(x == 0, 0.0, jnp.abs(x)), a, b)  # jax's |x| has slope 1 at 0
    return _root(_pairs(lambda x: _power(x, norm), a, b), norm)


def _power(x: Array, p: float) -> Array:
    return jnp.where(x == 0, 0.0, jnp.abs(jnp.where(x == 0, 1.0, x)) ** p)


def piecewise_linear(
    in_q: Float[Array, "h m w"], out_q: Float[Array, "h n w"], coefficients: Float[Array, " h"], *, norm: float = 2.0
) -> Float[Array, "m n"]:
    """D[i, j] = sum_h c_h ||In[h, i] - Out[h, j]||_p (SNELL's kernel).

    Args:
        in_q: factor (H, m, w).
        out_q: factor (H, n, w).
        coefficients: c (H,).
        norm: p >= 1.
    """
    pieces = (c * distances(a, b, norm=norm) for a, b, c in zip(in_q, out_q, coefficients, strict=True))
    return functools.reduce(jnp.add, pieces)


def linear(a: Float[Array, "m r"], b: Float[Array, "n r"]) -> Float[Array, "m n"]:
    """D = A B^T, the low-rank product of LoRA."""
    return jnp.matmul(_wide(a), _wide(b).T, precision=HIGHEST)


def sigmoid(a: Float[Array, "m r"], b: Float[Array, "n r"], alpha: Any, beta: Any, gamma: Any) -> Float[Array, "m n"]:
    """D = alpha / (1 + exp(-beta A B^T)) + gamma, without overflow."""
    return alpha * jax.nn.sigmoid(beta * linear(a, b)) + gamma


def rbf(a: Float[Array, "m r"], b: Float[Array, "n r"], alpha: Any, beta: Any, gamma: Any) -> Float[Array, "m n"]:
    """D = alpha exp(-beta ||A_i - B_j||^2) + gamma."""
    return alpha * jnp.exp(-beta * _pairs(jnp.square, _wide(a), _wide(b))) + gamma


def mixture(update: Float[Array, "m n"], alpha: Any, gamma: Any, beta: Any) -> Float[Array, "m n"]:
    """W = E + alpha softmax_out(E / gamma) + beta (Mix-K of SNELLA, Shen et al. 2025, arXiv 2510.24037)."""
    return update + alpha * jax.nn.softmax(update / gamma, axis=-1) + beta


class Kernel(NamedTuple):
    """A kernel as a tuner uses it.

    Attributes:
        pieces: H.
        scalars: learnable scalars, name -> initial value; parameters of shape (1,).
        merge: {'in_q', 'out_q', **scalars} -> update (inputs, outputs) in float32 or wider.
    """

    pieces: int
    scalars: dict[str, float]
    merge: Callable[[Mapping[str, Array]], Array]


_SCALED = {"alpha": 1.0, "beta": 1.0, "gamma": 0.0}  # the published initial values are unknown
KERNELS = ("piecewise_linear", "linear", "sigmoid", "rbf", "mixture")


def kernel(name: str = "piecewise_linear", *, norm: float = 2.0, pieces: int = 2) -> Kernel:
    """A kernel by its name.

    Args:
        name: 'piecewise_linear', 'linear', 'sigmoid', 'rbf', or 'mixture' (piecewise linear, then `mixture`).
        norm: p of the distance; of the piecewise kernels only.
        pieces: H, the pieces with coefficients +0.1, -0.1, ...; of the piecewise kernels only.

    Raises:
        ValueError: an unknown name, or an option that is out of range or that the kernel does not have.
    """
    if name not in KERNELS:
        raise ValueError(f"kernel: found '{name}', expected one of {', '.join(KERNELS)}")
    if name in ("linear", "sigmoid", "rbf"):
        if (norm, pieces) != (2.0, 2):
            raise ValueError(f"kernel: '{name}' has neither norm nor pieces, found norm={norm}, pieces={pieces}")
        scalars = {} if name == "linear" else _SCALED
        function = {"linear": linear, "sigmoid": sigmoid, "rbf": rbf}[name]

        def plain(params):
            named = {s: _wide(params[s])[:, None] for s in scalars}
            return function(params["in_q"][0], params["out_q"][0], **named)

        return Kernel(1, scalars, plain)
    if not 1.0 <= norm < float("inf"):
        raise ValueError(f"norm: found {norm}, expected a finite number of at least 1")
    if pieces < 1:
        raise ValueError(f"pieces: found {pieces}, expected at least 1")

    def pieced(params):
        dtype = jnp.promote_types(params["in_q"].dtype, jnp.float32)
        signs = jnp.asarray([COEFFICIENT * (-1) ** h for h in range(pieces)], dtype)
        return piecewise_linear(params["in_q"], params["out_q"], signs, norm=norm)

    if name == "piecewise_linear":
        return Kernel(pieces, {}, pieced)

    def mixed(params):
        return mixture(pieced(params), *(_wide(params[s])[:, None] for s in ("alpha", "gamma", "beta")))

    return Kernel(pieces, {"alpha": 1.0, "gamma": 1.0, "beta": 0.0}, mixed)
