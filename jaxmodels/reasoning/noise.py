"""Noise for training data: corrupted triples and corrupted answers.

Part of a reconstruction: how the paper on Logic Diffusion (arXiv 2306.03515) makes its noise could not be obtained.
"""

import numpy as np

from jaxmodels.reasoning.graph import Answers


def check_fraction(eta: float) -> None:
    """Raises ValueError unless 0 <= eta <= 1."""
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta: found {eta}, expected 0 to 1")


def noisy_triples(
    triples: np.ndarray, permutation: np.ndarray, uniform: np.ndarray, *, eta: float, entities: int
) -> np.ndarray:
    """Triples of which a fraction has another tail; the order stays, and inverses are derived afterwards.

    Args:
        triples: (M, 3) without inverses.
        permutation: of M; its first round(eta M) triples are corrupted.
        uniform: (M,) in [0, 1), one per triple (not per place in the permutation).
        eta: fraction.
        entities: N; the new tail is uniform among the other N - 1.

    Raises:
        ValueError: a fraction outside 0 to 1.
    """
    check_fraction(eta)
    out = np.array(triples)
    chosen = np.asarray(permutation)[: round(eta * len(out))]
    other = np.floor(np.asarray(uniform)[chosen] * (entities - 1)).astype(out.dtype)
    out[chosen, 2] = other + (other >= out[chosen, 2])
    return out


def noisy_answers(found: Answers, rng: np.random.Generator, *, eta: float, entities: int) -> Answers:
    """Answer sets of which each member is replaced with probability `eta` by any entity; duplicates merge.

    Args:
        found: the sets of a training split.
        rng: of the draws.
        eta: probability.
        entities: N.

    Raises:
        ValueError: a probability outside 0 to 1.
    """
    check_fraction(eta)
    query = np.repeat(np.arange(len(found.starts) - 1), found.counts)
    replaced = rng.random(len(found.values)) < eta
    values = np.where(replaced, rng.integers(entities, size=len(found.values)), found.values)
    pairs = np.unique(np.stack([query, values], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=len(found.starts) - 1)
    return Answers(np.append(0, np.cumsum(counts)), pairs[:, 1])
