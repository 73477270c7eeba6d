"""Learning-rate schedules as optax schedules: step -> learning rate."""

import jax.numpy as jnp
import optax


def epoch_cosine(
    peak: float,
    *,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: int = 10,
    initial: float = 1e-6,
    floor: float = 1e-5,
    late: bool = True,
) -> optax.Schedule:
    """Cosine per epoch with a warm-up, as in timm 0.5.4 and the runs of SNELL.

    lr(t) = initial + t (peak - initial) / warmup for t < warmup, else floor + (peak - floor) (1 + cos(pi t / T)) / 2;
    the warm-up is cut out of the cosine, not put before it. From t = T on it is `floor`.

    Args:
        peak: the nominal learning rate.
        epochs: T.
        steps_per_epoch: optimizer steps per epoch.
        warmup_epochs: epochs of linear warm-up.
        initial: learning rate at t = 0.
        floor: where the cosine ends.
        late: epoch e runs with lr(max(e - 1, 0)), as in the official runs, whose scheduler steps after the epoch it is
            told of; epochs 0 and 1 both run at `initial`. False uses t = e.

    Raises:
        ValueError: epochs or steps_per_epoch below 1, or a negative warm-up.

    >>> schedule = epoch_cosine(1e-3, epochs=100, steps_per_epoch=5)
    >>> [f'{schedule(step):.1e}' for step in (0, 5, 10, 499)]
    ['1.0e-06', '1.0e-06', '1.0e-04', '1.1e-05']
    """
    for name, value, least in (
        ("epochs", epochs, 1),
        ("steps_per_epoch", steps_per_epoch, 1),
        ("warmup_epochs", warmup_epochs, 0),
    ):
        if value < least:
            raise ValueError(f"{name}: found {value}, expected at least {least}")

    def schedule(step):
        epoch = jnp.asarray(step) // steps_per_epoch
        t = jnp.maximum(epoch - int(late), 0).astype(jnp.result_type(float))
        warm = initial + t * (peak - initial) / max(warmup_epochs, 1)
        cosine = floor + 0.5 * (peak - floor) * (1.0 + jnp.cos(jnp.pi * jnp.minimum(t / epochs, 1.0)))
        return jnp.where(t < warmup_epochs, warm, cosine)

    return schedule
