"""The learning rate of N2's runs, as an optax schedule."""

import optax


def warmup_power(peak: float, *, warmup: int = 1, decay: float = 1.0, floor: float = 1e-3) -> optax.Schedule:
    """Linear from peak/warmup to `peak` within `warmup` steps, then times `decay` each step, not below peak * floor.

    The released code counts `warmup` as epochs times its `nbatch` argument (the batch size, where batches are small).

    Args:
        peak: the nominal learning rate.
        warmup: steps; 1 starts at the peak.
        decay: factor per step; 1 keeps the rate constant.
        floor: least factor.

    Raises:
        ValueError: warmup below 1, or decay not in (0, 1].

    >>> schedule = warmup_power(1.0, warmup=4, decay=0.5, floor=0.2)
    >>> [float(schedule(step)) for step in range(7)]
    [0.25, 0.5, 0.75, 1.0, 0.5, 0.25, 0.20000000298023224]
    """
    if warmup < 1:
        raise ValueError(f"warmup: found {warmup}, expected at least 1 step")
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"decay: found {decay}, expected 0 < decay <= 1")
    # For a factor of 1 optax would take the floor for a ceiling.
    falling = optax.exponential_decay(peak, 1, decay, end_value=peak * floor)
    after = optax.constant_schedule(peak) if decay == 1.0 else falling
    if warmup == 1:
        return after
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup - 1), after], [warmup - 1])
