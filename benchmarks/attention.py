"""Forms of attention and of the exact GELU on this machine: `python -m benchmarks.attention`.

Claim: with heads before tokens, and with probabilities computed again in the backward pass, `nn.transformer.attend` is
faster on a CPU than the textbook einsum over (b, n, h, d), and keeps no N x M array; the GELU through erf is faster
than `jax.nn.gelu(approximate=False)`. Values and gradients are compared first; both sides run interleaved.
"""

import platform
import statistics
import timeit

import jax
import jax.numpy as jnp

from jaxmodels.nn.transformer import attend, gelu

SHAPES = {"ViT-B/16, 8 images": (8, 197, 12, 64), "vit_mini, 64 images": (64, 17, 3, 32)}


def textbook(q, k, v):
    logits = jnp.einsum("bnhd,bmhd->bhnm", q, k) * q.shape[-1] ** -0.5
    return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(logits, axis=-1), v)


def ours(q, k, v):
    return attend(q, k, v)[0]


def pulled(function):
    """The function's value with its gradients against the last argument."""

    def run(*arguments):
        value, pull = jax.vjp(function, *arguments[:-1])
        return value, pull(arguments[-1])

    return run


def ratio(reference, candidate, *arguments, repeats: int = 15) -> tuple[float, list[float]]:
    """Milliseconds of the candidate, and quartiles of reference / candidate."""
    reference, candidate = jax.jit(reference), jax.jit(candidate)
    for a, b in zip(jax.tree.leaves(reference(*arguments)), jax.tree.leaves(candidate(*arguments)), strict=True):
        assert jnp.abs(a - b).max() < 1e-4 * (1.0 + jnp.abs(a).max())

    def seconds(function) -> float:
        return timeit.timeit(lambda: jax.block_until_ready(function(*arguments)), number=1)

    pairs = [(seconds(reference), seconds(candidate)) for _ in range(repeats)]
    return 1e3 * min(b for _, b in pairs), statistics.quantiles([a / b for a, b in pairs], n=4)


def report(name: str, measured: tuple[float, list[float]]) -> None:
    milliseconds, (low, middle, high) = measured
    print(f"{name:48s} {milliseconds:7.2f} ms   {middle:.2f}x faster ({low:.2f} to {high:.2f})")


def main() -> None:
    print(f"{platform.machine()}, {jax.local_devices()[0].device_kind}, jax {jax.__version__}")
    for name, shape in SHAPES.items():
        q, k, v, g = (jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0), 4))
        report(f"attention, {name}, forward", ratio(textbook, ours, q, k, v))
        report(f"attention, {name}, with gradients", ratio(pulled(textbook), pulled(ours), q, k, v, g))
    x, g = (jax.random.normal(key, (8, 197, 3072)) for key in jax.random.split(jax.random.key(1), 2))
    exact = lambda x: jax.nn.gelu(x, approximate=False)  # noqa: E731
    report("GELU, ViT-B/16, 8 images, forward", ratio(exact, gelu, x))
    report("GELU, ViT-B/16, 8 images, with gradients", ratio(pulled(exact), pulled(gelu), x, g))


if __name__ == "__main__":
    main()
