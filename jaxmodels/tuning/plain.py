"""The reference points every tuner is compared with: linear probe, full and partial fine-tuning, biases only."""

from jaxmodels.tuning.tuner import Tuner


def linear() -> Tuner:
    """Nothing but the head trains, on the pooled feature. Reads only 'pooled', so features can be cached."""
    return Tuner(
        {"method": "linear"},
        reads=lambda backbone: ("pooled",),
        bypass=lambda params, reads, tail: reads["pooled"],
        merge=lambda params, backbone_params, state: backbone_params,
    )
