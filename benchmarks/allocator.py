"""What keeping freed memory saves: train steps of a vision transformer on a CPU with and without it.

    python -m benchmarks.allocator                                             # two minutes
    python -m benchmarks.allocator --size=s16 --batch_size=48 --steps=6        # a quarter of an hour, 7 GiB

Each side runs in a process of its own, in turn; ratios are plain / kept, median of the rounds.
Peaks are those of the processes.
"""

import argparse
import statistics
import subprocess
import sys

import jaxmodels as jm
from benchmarks.tuning import our_step, seconds
from jaxmodels.training.memory import peak_bytes, reuse_freed_memory, show_bytes

TUNERS = {"lora": lambda: jm.lora(8), "full": jm.full}


def median_step(tuner: str, size: str, batch_size: int, steps: int) -> float:
    """Seconds of a train step."""
    run = our_step(TUNERS[tuner](), size, batch_size)
    run()
    return statistics.median(seconds(run) for _ in range(steps))


def measured(tuner: str, side: str) -> tuple[float, int]:
    """`median_step` of a fresh process with this one's flags, and its peak in bytes."""
    command = [sys.executable, "-m", "benchmarks.allocator", *sys.argv[1:], "--tuner", tuner, "--side", side]
    step, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(step), int(peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="mini", help="of the vision transformer")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100, help="timed in each process")
    parser.add_argument("--tuner", choices=TUNERS, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=("plain", "kept"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.side:
        if a.side == "kept":
            reuse_freed_memory()
        print(median_step(a.tuner, a.size, a.batch_size, a.steps), peak_bytes())
        return
    for tuner in TUNERS:
        pairs = [(measured(tuner, "plain"), measured(tuner, "kept")) for _ in range(a.rounds)]
        ratio = statistics.median(plain / kept for (plain, _), (kept, _) in pairs)
        shown = [
            f"{side} {1e3 * statistics.median(s for s, _ in runs):6.1f} ms, {show_bytes(max(peak for _, peak in runs))}"
            for side, runs in zip(("plain", "kept"), zip(*pairs, strict=True), strict=True)
        ]
        print(f"{tuner:5s} {shown[0]}   {shown[1]}   {ratio:.2f}x")


if __name__ == "__main__":
    main()
