"""How much two thin factors can express under each kernel: fits of a random full-rank matrix.

    python -m benchmarks.kernel_fit                    # half a minute on two cores

A 64 x 64 target of standard normal entries is fitted by factors of rank 8 (Adam, rate 1e-2, 4,000 steps, factors from
0.5 N(0, 1)). A product of rank 8 cannot beat the Eckart-Young bound of the target; kernels that are no product can,
with as many parameters. This is the claim of SNELL's Figure 4a (Shen et al. 2024, arXiv 2411.01800) on a matrix that
anyone can draw. Printed are mean squared errors and their ratio to the bound.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.tuning import kernels

PIECES = 2


def eckart_young(target: np.ndarray, rank: int) -> float:
    """The least mean squared error of any matrix of that rank."""
    values = np.linalg.svd(target, compute_uv=False)
    return float((values[rank:] ** 2).sum() / target.size)


def merged(kind: str, params: Any) -> jax.Array:
    """The matrix that the factors express."""
    if kind == "learnable":  # the official code freezes the coefficients of the pieces
        return kernels.piecewise_linear(params["in_q"], params["out_q"], params["coefficients"])
    return kernels.kernel("piecewise_linear" if kind == "piecewise" else kind).merge(params)


def start(kind: str, key: jax.Array, size: int, rank: int) -> dict[str, jax.Array]:
    """Factors from 0.5 N(0, 1); scalars where the kernels start them."""
    pieces = PIECES if kind in ("piecewise", "learnable") else 1
    inward, outward = jax.random.split(key)
    params = {
        "in_q": 0.5 * jax.random.normal(inward, (pieces, size, rank // pieces)),
        "out_q": 0.5 * jax.random.normal(outward, (pieces, size, rank // pieces)),
    }
    if kind == "learnable":
        params["coefficients"] = jnp.array([kernels.COEFFICIENT, -kernels.COEFFICIENT])
    elif kind in ("rbf", "sigmoid"):
        params |= {name: jnp.full((1,), value) for name, value in kernels.kernel(kind).scalars.items()}
    return params


def fit(kind: str, target: jax.Array, *, rank: int = 8, steps: int = 4000, seed: int = 0) -> float:
    """The mean squared error after training."""
    optimizer = optax.adam(1e-2)
    params = start(kind, jax.random.key(seed), target.shape[0], rank)

    def error(params):
        return jnp.square(merged(kind, params) - target).mean()

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(error)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    carry = (params, optimizer.init(params))
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))(carry)
    return float(error(params))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    target = np.random.default_rng(a.seed).standard_normal((a.size, a.size))
    bound = eckart_young(target, a.rank)
    print(f"{a.size} x {a.size}, rank {a.rank}, {a.steps} steps: no product has an error below {bound:.4f}")
    for kind in ("linear", "piecewise", "learnable", "rbf", "sigmoid"):
        error = fit(kind, jnp.asarray(target, jnp.float32), rank=a.rank, steps=a.steps, seed=a.seed)
        print(f"{kind:10s} {error:.4f}   {error / bound:.3f} of the bound")


if __name__ == "__main__":
    main()
