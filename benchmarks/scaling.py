"""What a train step costs as devices are added: measured on virtual CPU devices, planned for TPU slices.

    python -m benchmarks.scaling                       # LoRA on the mini backbone: about three minutes on two cores
    python -m benchmarks.scaling --parts devices --counts 1 8 --size=ti16 --method=full
    python -m benchmarks.scaling --parts plans --size=b16 --per_device 64 --chips v5e:4x4 v5e:16x16

Claims: per device neither arguments nor temporaries grow with the number of devices at a constant batch per device
(weak scaling), what a step all-reduces is what trains and the metrics, whatever the number of devices, and on TPU
slices the network is the least of the three bounds. Virtual devices share the machine's cores: there N devices do N
times the work on the same cores, so a device's ideal is one Nth of the steps per second, and what is missing from that
ideal is overhead of partitioning and collectives; it says nothing about the speed of N real devices. The batch is fixed
in memory, so reading data is not part of it. Plans need the extra [plan].
"""

import argparse
import importlib.util
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

import jax

import jaxmodels as jm
from benchmarks.tuning import CLASSES, random_batch
from jaxmodels.backbones.vit import SIZES
from jaxmodels.planning.chips import parse
from jaxmodels.planning.collectives import collectives
from jaxmodels.planning.plan import Plan
from jaxmodels.planning.training import plan_train, trained_bytes
from jaxmodels.training.mesh import make_mesh, placement, put_batch
from jaxmodels.training.precision import precision
from jaxmodels.training.state import begin, train_step

TUNERS = {
    "lora": lambda: jm.lora(8),
    "snell": lambda: jm.snell(8),
    "res_tuning": lambda: jm.res_tuning(10),
    "res_tuning_bypass": lambda: jm.res_tuning_bypass(10),
    "full": lambda: jm.full(),
}
COUNTS = (1, 2, 4, 8)
CHIPS = ("v5e:2x2", "v5e:4x4", "v5e:8x8", "v5e:16x16")


def method_of(name: str, size: str, dtype: Any = None) -> Any:
    return jm.classifier(jm.vit(size, dtype=dtype), TUNERS[name](), num_classes=CLASSES)


def one_count(a: argparse.Namespace) -> None:
    """Prints one row, in a process that has so many devices: seconds of each repeat, then bytes."""
    method, mesh = method_of(a.method, a.size), make_mesh("data:-1")
    optimizer = jm.adamw(method.groups, 1e-3)
    ts, frozen = begin(method, optimizer, method.init(jax.random.key(0), None), seed=0)
    placed = placement(ts, frozen, method.shardings, mesh)
    ts, frozen = jax.device_put((ts, frozen), placed.trees)
    batch = put_batch(random_batch(jm.vit(a.size).image_size, a.per_device * mesh.size), mesh)
    compiled = train_step(method, optimizer, placement=placed).lower(ts, frozen, batch).compile()
    sizes = compiled.memory_analysis()
    reduced, others = sent(collectives(compiled.as_text(), devices=mesh.size))
    ts, metrics = compiled(ts, frozen, batch)
    jax.block_until_ready(metrics)
    seconds = []
    for _ in range(a.repeats):
        started = time.perf_counter()
        ts, metrics = compiled(ts, frozen, batch)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - started)
    print(statistics.median(seconds), sizes.argument_size_in_bytes, sizes.temp_size_in_bytes, reduced, others)


def sent(found: Any) -> tuple[int, int]:
    """Bytes of all-reduces, and of other collectives."""
    reduced = sum(each.bytes for each in found if each.kind == "all-reduce")
    return reduced, sum(each.bytes for each in found) - reduced


def devices(a: argparse.Namespace) -> None:
    """Prints a table over numbers of virtual devices, the batch per device constant."""
    trained = trained_bytes(method_of(a.method, a.size))
    print(f"{a.method} on vit_{a.size}, {a.per_device} images per device, {trained / 1e6:.3f} MB of float32 train")
    print(f"{os.cpu_count()} cores shared by all virtual devices: steps/s shows overhead, not speed")
    print("devices  steps/s  of 1 device's  of the ideal 1/N  arguments MB  temporaries MB  all-reduced MB  other MB")
    first = None
    for count in a.counts:
        line = [sys.executable, "-m", "benchmarks.scaling", "--parts", "count", "--size", a.size, "--method", a.method]
        line += ["--per_device", str(a.per_device), "--repeats", str(a.repeats)]
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}".strip()
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        done = subprocess.run(line, check=True, capture_output=True, text=True, env=environment)
        seconds, *sizes = (float(word) for word in done.stdout.split()[-5:])
        first = first or (count, seconds)
        ratio = first[1] / seconds
        megabytes = "  ".join(f"{size / 1e6:14.3f}" for size in sizes)
        print(f"{count:7d}  {1 / seconds:7.2f}  {ratio:13.2f}  {ratio * count / first[0]:16.2f}  {megabytes}")


def plans(a: argparse.Namespace) -> None:
    """Prints what the plans of TPU slices predict, the batch per chip constant."""
    if importlib.util.find_spec("libtpu") is None:
        print("libtpu is not installed, so nothing is planned: pip install 'jaxmodels[plan]'")
        return
    policy = precision(platform="tpu")
    method = method_of(a.method, a.size, policy.compute)
    print(f"{a.method} on vit_{a.size}, {a.per_device} images per chip, planned (roofline: a step at best)")
    print("images/s, efficiency (of the first row's) and the network's share: if sending overlaps with nothing")
    print("slice       chips  step ms  bound      images/s  efficiency  network ms  network share  all-reduced MB  GiB")
    first = None
    for chips in a.chips:
        optimizer = jm.adamw(method.groups, 1e-3)
        count = math.prod(parse(chips)[1]) * parse(chips)[0].devices
        found = plan_train(
            method, optimizer, chips=chips, batch_size=a.per_device * count, mesh=a.mesh, precision=policy
        )
        first = first or found
        print_plan(found, a.per_device, first)


def seconds_of(found: Plan) -> tuple[float, float]:
    """Seconds of one device's own work, and of sending where nothing overlaps with it."""
    times = found.roofline
    return (max(times.compute, times.memory), times.network) if times else (float("nan"), float("nan"))


def print_plan(found: Plan, per_device: int, first: Plan) -> None:
    if found.roofline is None:
        print(f"{found.chips:10s}  {found.devices:5d}  does not fit, advice: {found.advice}")
        return
    (own, network), reference = seconds_of(found), sum(seconds_of(first))
    print(
        f"{found.chips:10s}  {found.devices:5d}  {1e3 * found.roofline.seconds:7.3f}  {found.roofline.bound:7s}  "
        f"{per_device * found.devices / (own + network):10,.0f}  {reference / (own + network):10.2%}  "
        f"{1e3 * network:10.4f}  {network / (own + network):13.3%}  {sent(found.collectives)[0] / 1e6:14.3f}  "
        f"{found.needed / 1024**3:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("devices", "plans", "count"), default=["devices", "plans"])
    parser.add_argument("--size", choices=SIZES, default="mini")
    parser.add_argument("--method", choices=TUNERS, default="lora")
    parser.add_argument("--per_device", type=int, default=64, help="images per device and step")
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, help="virtual CPU devices")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--chips", nargs="+", default=CHIPS, help="TPU slices to plan for")
    parser.add_argument("--mesh", default="data:-1", help="of the plans")
    a = parser.parse_args()
    if a.parts == ["count"]:
        one_count(a)
        return
    print(f"{platform.machine()}, jax {jax.__version__}")
    if "devices" in a.parts:
        devices(a)
    if "plans" in a.parts:
        plans(a)


if __name__ == "__main__":
    main()
