"""What keeping freed memory saves: train steps of `vit('mini')` on a CPU with and without it.

    python -m benchmarks.allocator                     # two minutes

Each side runs in a process of its own, in turn; ratios are plain / kept, median of the rounds.
"""

import argparse
import statistics
import subprocess
import sys

import jaxmodels as jm
from benchmarks.tuning import our_step, seconds
from jaxmodels.training.memory import reuse_freed_memory

TUNERS = {"lora": lambda: jm.lora(8), "full": jm.full}
STEPS = 100


def median_step(tuner: str) -> float:
    """Seconds of a train step at batch 64."""
    run = our_step(TUNERS[tuner](), "mini", 64)
    run()
    return statistics.median(seconds(run) for _ in range(STEPS))


def measured(tuner: str, side: str) -> float:
    """`median_step` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.allocator", "--tuner", tuner, "--side", side]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tuner", choices=TUNERS, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=("plain", "kept"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.side:
        if a.side == "kept":
            reuse_freed_memory()
        print(median_step(a.tuner))
        return
    for tuner in TUNERS:
        pairs = [(measured(tuner, "plain"), measured(tuner, "kept")) for _ in range(a.rounds)]
        plain, kept = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(plain / kept for plain, kept in pairs)
        print(f"{tuner:5s} plain {plain:5.1f} ms   kept {kept:5.1f} ms   {ratio:.2f}x")


if __name__ == "__main__":
    main()
