"""Scores of all pairs of nodes, for link prediction."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def link_scores(x: Float[Array, "n w"], kind: str = "dot") -> Float[Array, "n n"]:
    """Score of every pair (i, j) from the first half a_i and the second half b_j of node outputs.

    Args:
        x: (N, 2 d).
        kind: 'dot', 2 <a_i, b_j> / d; 'cosine', 2 <a_i, b_j> / (|a_j| |b_j|): the norm of column j twice, as in N2's
            released code, so it is not a cosine off the diagonal.

    Raises:
        ValueError: an odd width or another kind.
    """
    if x.shape[1] % 2:
        raise ValueError(f"x: found {x.shape[1]} columns, expected an even number, two halves")
    a, b = jnp.split(x, 2, axis=1)
    if kind == "dot":
        return 2.0 * (a @ b.T) / a.shape[1]
    if kind != "cosine":
        raise ValueError(f"kind: found '{kind}', expected 'dot' or 'cosine'")
    return 2.0 * (a @ b.T) / (jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1))[None]
