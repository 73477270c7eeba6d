"""Tuners on a vision transformer: our train step against PyTorch's, and memory inside the suite.

    python -m benchmarks.tuning                        # ti16, batch 8: minutes on two cores
    python -m benchmarks.tuning --size=b16 --batch_size=8 --repeats=5
    python -m benchmarks.tuning --parts memory --size=b16 --batch_size=32

Claims: our LoRA step is at least as fast as Hugging Face peft's on `transformers`' ViT (attention by SDPA), same sizes,
same work (forward, backward, AdamW on what trains); SNELL-8 needs within 10 % of LoRA-8's memory and 1.25x of its step;
an epoch of the bypass on cached features is at least 20 times as fast as one of LoRA. Both sides run interleaved in one
process on the same cores; ratios are PyTorch / ours with quartiles. Needs the extra [bench].
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxmodels as jm
from jaxmodels.backbones.vit import SIZES
from jaxmodels.data.source import array_source
from jaxmodels.rules import merge, split
from jaxmodels.training.memory import reuse_freed_memory, show_bytes
from jaxmodels.training.state import begin, train_step
from jaxmodels.tuning.cache import cached_reads
from jaxmodels.tuning.classifier import needed

CLASSES = 100
SIX = ("q", "k", "v", "proj", "fc1", "fc2")
PARTS = ("steps", "within", "peaks", "memory", "epochs")
PLAIN = {"dropout": 0.0, "drop_path": 0.0, "fuse": True}

PAIRS: dict[str, Callable[[], Any]] = {
    "lora": lambda: jm.lora(8, targets=("q", "v")),
    "adaptformer": lambda: jm.adaptformer(64),
    "vpt_deep": lambda: jm.vpt(10),
    "snell": lambda: jm.snell(8, sparsity=0.5, **PLAIN),
}


def our_step(tuner: Any, size: str, batch_size: int) -> Callable[[], float]:
    """A function that runs one train step and returns its loss."""
    backbone = jm.vit(size)
    method = jm.classifier(backbone, tuner, num_classes=CLASSES)
    optimizer = jm.adamw(method.groups, 1e-3)
    ts, frozen = begin(method, optimizer, method.init(jax.random.key(0), None), seed=0)
    step, batch = train_step(method, optimizer), jax.device_put(random_batch(backbone.image_size, batch_size))
    held = [ts]

    def run() -> float:
        held[0], metrics = step(held[0], frozen, batch)
        return float(metrics["loss"].total)

    return run


def random_batch(image_size: int, batch_size: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.normal(size=(batch_size, image_size, image_size, 3)).astype(np.float32)
    return {"image": images, "label": random.integers(0, CLASSES, batch_size)}


def torch_step(name: str, size: str, batch_size: int) -> Callable[[], float]:
    """The same work in PyTorch."""
    import peft
    import torch
    import torch.utils.checkpoint
    import transformers

    from benchmarks.torch_tuners import AdaptFormer, Prompts, Snell

    width, depth, heads, patch = SIZES[size]
    pixels = jm.vit(size).image_size
    config = transformers.ViTConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        patch_size=patch,
        image_size=pixels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=CLASSES,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.ViTForImageClassification(config)
    model.requires_grad_(False)
    linears = {n: m for n, m in model.vit.named_modules() if isinstance(m, torch.nn.Linear)}
    if name == "lora":
        targets = sorted({n.rsplit(".", 1)[-1] for n in linears if n.endswith(("query", "value", "q_proj", "v_proj"))})
        settings = peft.LoraConfig(r=8, lora_alpha=8, target_modules=targets, modules_to_save=["classifier"])
        model = peft.get_peft_model(model, settings)
    elif name == "snell":
        for path, linear in linears.items():
            parent = model.vit.get_submodule(path.rsplit(".", 1)[0])
            setattr(parent, path.rsplit(".", 1)[-1], Snell(linear, 8, 0.5))
    else:
        blocks = model.vit.layers if hasattr(model.vit, "layers") else model.vit.encoder.layer
        for i, block in enumerate(blocks):
            if name == "vpt_deep":
                blocks[i] = Prompts(block, width, 10, first=i == 0)
            else:
                block.mlp = AdaptFormer(block.mlp, block.layernorm_after, width, 64)
    if name != "lora":
        model.classifier.requires_grad_(True)
    model.to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=1e-4)
    batch = random_batch(pixels, batch_size)
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous().to(device)
    labels = torch.from_numpy(batch["label"]).to(device)

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(pixel_values=images).logits, labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return run


def seconds(run: Callable[[], float]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(name: str, size: str, batch_size: int, repeats: int) -> None:
    """Prints step times and their ratio, interleaved."""
    ours, theirs = our_step(PAIRS[name](), size, batch_size), torch_step(name, size, batch_size)
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    low, middle, high = statistics.quantiles([b / a for a, b in pairs], n=4)
    mine, yours = min(a for a, _ in pairs), min(b for _, b in pairs)
    print(f"{name:12s} ours {mine:7.3f} s   torch {yours:7.3f} s   torch/ours {middle:.2f} ({low:.2f} to {high:.2f})")


def within(size: str, batch_size: int, repeats: int) -> None:
    """Prints the step of SNELL-8 against LoRA-8's on the same six layers of every block, interleaved."""
    snell, lora = (
        our_step(tuner, size, batch_size) for tuner in (jm.snell(8, sparsity=0.5, **PLAIN), jm.lora(8, targets=SIX))
    )
    snell(), lora()
    ratios = [seconds(snell) / seconds(lora) for _ in range(repeats)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"snell-8 / lora-8, six layers: step {middle:.2f} ({low:.2f} to {high:.2f})")


def peak_of(side: str, name: str, size: str, batch_size: int) -> int:
    """Peak resident bytes of a process that runs three steps of one side."""
    command = [sys.executable, "-m", "benchmarks.tuning", "--parts", "peak", "--size", size]
    command += ["--batch_size", str(batch_size), "--methods", name, "--side", side]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def memory_table(size: str, batch_size: int) -> None:
    """Prints what the compiled step needs: temporaries, arguments and outputs; nothing is allocated."""
    backbone = jm.vit(size)
    cached = jm.res_tuning_bypass(10)
    rows = {
        "full": jm.full(),
        "lora-8, six layers": jm.lora(8, targets=SIX),
        **{f"snell-{r}, recomputed": jm.snell(r, sparsity=0.5, **PLAIN) for r in (8, 16, 32)},
        **{f"snell-{r}, kept": jm.snell(r, sparsity=0.5, **PLAIN, recompute=False) for r in (8, 16, 32)},
        "res_tuning": jm.res_tuning(10),
        "bypass": cached,
    }
    reference = 0
    for name, tuner in rows.items():
        total = compiled_bytes(backbone, tuner, batch_size, cached=False)
        reference = total if name.startswith("lora") else reference
        against = f"   {total / reference - 1:+.0%} of lora-8" if reference else ""
        print(f"{name:22s} {show_bytes(total):>12s}{against}")
    total = compiled_bytes(backbone, cached, batch_size, cached=True)
    print(f"{'bypass, cached':22s} {show_bytes(total):>12s}   {total / reference - 1:+.0%} of lora-8")


def compiled_bytes(backbone: Any, tuner: Any, batch_size: int, *, cached: bool) -> int:
    """Temporaries + arguments of the compiled train step at abstract inputs."""
    method = jm.classifier(backbone, tuner, num_classes=CLASSES)
    optimizer = jm.adamw(method.groups, 1e-3)
    variables = jax.eval_shape(lambda key: method.init(key, None), jax.random.key(0))
    trained, frozen = split(variables["params"], method.groups)

    def start(trained, state, frozen):
        return begin(method, optimizer, {"params": merge(trained, frozen), "state": state}, seed=0)[0]

    ts = jax.eval_shape(start, trained, variables["state"], frozen)
    side = backbone.image_size
    batch: dict[str, Any] = {"label": jax.ShapeDtypeStruct((batch_size,), jnp.int32)}
    if cached:
        ports = backbone.shapes().ports
        reads = jax.eval_shape(lambda x: needed(backbone, tuner, x), {p: ports[p][1] for p in tuner.reads(backbone)})
        shapes = {path: (batch_size, *each.shape[1:]) for path, each in reads.items()}
        batch["features"] = {path: jax.ShapeDtypeStruct(each, jnp.bfloat16) for path, each in shapes.items()}
    else:
        batch["image"] = jax.ShapeDtypeStruct((batch_size, side, side, 3), jnp.float32)
    analysis = train_step(method, optimizer).lower(ts, frozen, batch).compile().memory_analysis()
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes


def epochs(size: str, batch_size: int, images: int) -> None:
    """Prints an epoch of LoRA against one of the bypass on cached features (and what the cache costs once)."""
    backbone, tuner = jm.vit(size), jm.res_tuning_bypass(10)
    source = array_source(random_batch(backbone.image_size, images))
    params = backbone.init(jax.random.key(0))
    started = time.perf_counter()
    features = cached_reads(backbone, tuner, params, source, batch_size=batch_size)
    filling = time.perf_counter() - started
    times = {}
    for name, kind, data in (("lora", jm.lora(8), source), ("bypass", tuner, features)):
        method = jm.classifier(backbone, kind, num_classes=CLASSES)
        variables = method.init(jax.random.key(0), None)
        variables["params"]["backbone"] = params
        optimizer = jm.adamw(method.groups, 1e-3)
        steps = max(1, images // batch_size)
        batches = jm.batches(data, batch_size, seed=0)
        jm.fit(method, batches, optimizer, steps=1, variables=variables)  # compiles
        times[name] = jm.fit(method, batches, optimizer, steps=steps, variables=variables).seconds
    ratio = times["lora"] / times["bypass"]
    print(f"epoch of {images} images: lora {times['lora']:.1f} s, bypass on cached features {times['bypass']:.2f} s")
    print(f"bypass is {ratio:.0f}x as fast; the cache took {filling:.1f} s once")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="ti16")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--images", type=int, default=256, help="images of an epoch")
    parser.add_argument("--methods", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument(
        "--parts", nargs="+", choices=("steps", "within", "peaks", "memory", "epochs", "peak"), default=None
    )
    parser.add_argument("--side", choices=("ours", "torch"), default="ours", help=argparse.SUPPRESS)
    a = parser.parse_args()
    parts = list(a.parts)
    if parts == ["peak"]:
        make = our_step if a.side == "ours" else torch_step
        run = make(PAIRS[a.methods[0]]() if a.side == "ours" else a.methods[0], a.size, a.batch_size)
        for _ in range(3):
            run()
        print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    reuse_freed_memory()
    print(f"{platform.machine()}, {jax.local_devices()[0].device_kind}, jax {jax.__version__}; vit {a.size}", end="")
    print(f", batch {a.batch_size}")
    if "steps" in parts:
        for name in a.methods:
            compare(name, a.size, a.batch_size, a.repeats)
    if "within" in parts:
        within(a.size, a.batch_size, a.repeats)
    if "peaks" in parts:
        for name in a.methods:
            ours, theirs = (peak_of(side, name, a.size, a.batch_size) for side in ("ours", "torch"))
            print(f"{name:12s} peak {show_bytes(ours)} ours, {show_bytes(theirs)} torch: {theirs / ours:.2f}x")
    if "memory" in parts:
        print("compiled train step, bytes (temporaries and arguments):")
        memory_table(a.size, a.batch_size)
    if "epochs" in parts:
        epochs(a.size, a.batch_size, a.images)


if __name__ == "__main__":
    main()
