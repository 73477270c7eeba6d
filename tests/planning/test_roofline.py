import pytest

from jaxmodels.planning.chips import Chip
from jaxmodels.planning.collectives import KINDS, Collective
from jaxmodels.planning.roofline import moved, roofline

CHIP = Chip("toy", memory=100, flops=1000.0, bandwidth=100.0, network=10.0, axes=2)


@pytest.mark.parametrize("group", [2, 3, 16])
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(group):
    whole = 48 * group
    parts = [moved(Collective(kind, group, 1, whole)) for kind in ("reduce-scatter", "all-gather")]
    assert moved(Collective("all-reduce", group, 1, whole)) == pytest.approx(sum(parts))
    assert parts[0] == pytest.approx((group - 1) * 48)  # g-1 steps round the ring, one part each


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent(kind):
    sent = {"all-reduce": 30.0, "collective-permute": 20.0, "collective-broadcast": 20.0}
    assert moved(Collective(kind, 4, 7, 20)) == sent.get(kind, 15.0)
    assert moved(Collective(kind, 1, 7, 20)) == 0.0


@pytest.mark.parametrize(
    ("flops", "accessed", "reduced", "bound", "seconds"),
    [(5000, 100, 10, "compute", 5.0), (500, 400, 10, "memory", 4.0), (500, 100, 40, "network", 6.0)],
)
def test_roofline(flops, accessed, reduced, bound, seconds):
    found = roofline(flops, accessed, [Collective("all-reduce", 4, 1, reduced)], CHIP)
    assert (found.bound, found.seconds) == (bound, pytest.approx(seconds))
    assert found.compute == pytest.approx(flops / 1000)
    assert found.memory == pytest.approx(accessed / 100)
    assert found.network == pytest.approx(1.5 * reduced / 10)


def test_devices_of_one_chip_share_its_rates():
    collectives = [Collective("all-gather", 2, 1, 10), Collective("all-to-all", 2, 3, 6)]
    one, two = (roofline(10, 20, collectives, CHIP._replace(devices=n)) for n in (1, 2))
    assert [2 * time for time in one[:4]] == pytest.approx(list(two[:4]))
    assert one.network == pytest.approx((5 + 3) / 10)
