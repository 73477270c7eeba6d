"""Parity of the baseline tuners: one tiny timm ViT (`backbone.npz`, beside the file under check), one file per method.

Every size and option is read from the arrays, or from the file's name (`partial2.npz`). The file is compared through
the public path: the `Method` that `classifier` builds, its loss, its groups, and the tuner's `merge`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import rules
from jaxmodels.backbones.backbone import Backbone
from jaxmodels.backbones.vit import Size, vit
from jaxmodels.tuning.adapter import adapter, adaptformer
from jaxmodels.tuning.classifier import classifier
from jaxmodels.tuning.fact import fact
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.plain import bitfit, full, linear, partial
from jaxmodels.tuning.ssf import ssf
from jaxmodels.tuning.tuner import Tuner
from jaxmodels.tuning.vpt import vpt
from jaxmodels.weights import names
from jaxmodels.weights.names import Row
from jaxmodels.weights.vit import TIMM
from tests.parity.compare import Checker, Quantity, absolute, exact, read, relative_all, under

Arrays = Mapping[str, np.ndarray]
HEAD = (Row("head.weight", ("kernel",), "o i -> i o"), Row("head.bias", ("bias",)))
OPTIONS = ("scale", "scaling", "rank")  # what a file holds beside results


class Setting(NamedTuple):
    """The backbone of `backbone.npz`: its parameters and head in our layout, and the batch."""

    backbone: Backbone
    params: Any
    head: Any
    batch: dict[str, Any]
    classes: int
    logits: np.ndarray


def setting(folder: Path) -> Setting:
    """Reads `backbone.npz`."""
    arrays = read(folder / "backbone.npz")
    image, patch, classes, width, depth, heads = map(int, arrays["cfg"])
    backbone = vit(Size(width, depth, heads, patch), image_size=image)
    published = under(arrays, "param/")
    body = {name: array for name, array in published.items() if not name.startswith("head.")}
    params = names.read(body, names.expand(TIMM, depth), backbone.shapes().params)
    shapes = jax.eval_shape(lambda: {"kernel": jnp.zeros((width, classes)), "bias": jnp.zeros(classes)})
    head = names.read({k: v for k, v in published.items() if k not in body}, HEAD, shapes)
    batch = {"image": arrays["x"].transpose(0, 2, 3, 1), "label": arrays["y"]}
    params, head, batch = jax.tree.map(jnp.asarray, (params, head, batch))
    return Setting(backbone, params, head, batch, classes, arrays["logits"])


def check_backbone(path: Path) -> list[Quantity]:
    """The frozen model's logits."""
    s = setting(path.parent)
    logits = s.backbone.apply(s.params, s.batch["image"]) @ s.head["kernel"] + s.head["bias"][None]
    return [absolute("logits", logits, s.logits, 1e-5)]


def checker(build: Callable[[Arrays, Backbone, Path], tuple[Tuner, Sequence[Row]]]) -> Checker:
    """A checker from (arrays, backbone, path) -> (tuner, the map from the file's tuner arrays to its parameters)."""

    def check(path: Path) -> list[Quantity]:
        s, arrays = setting(path.parent), read(path)
        tuner, rows = build(arrays, s.backbone, path)
        method = classifier(s.backbone, tuner, num_classes=s.classes)
        template = jax.eval_shape(lambda: tuner.init(jax.random.key(0), s.backbone))
        tuned = names.read(under(arrays, "tuner/"), rows, template, source=path.name)
        tuned = jax.tree.map(jnp.asarray, tuned)
        params = {"backbone": s.params, "tuner": tuned, "head": s.head}
        state = tuner.init_state(s.backbone)
        trained, frozen = rules.split(params, method.groups)

        def loss(trained):
            variables = {"params": rules.merge(trained, frozen), "state": state}
            return method.loss(variables, s.batch, jax.random.key(0))[0]

        value, grads = jax.jit(jax.value_and_grad(loss))(trained)
        logits = method.predict({"params": params, "state": state}, s.batch)
        found = [
            absolute("logits", logits, arrays["logits"], 1e-5),
            absolute("loss", value, arrays["loss"], 1e-5),
            exact("n_trainable", rules.count(trained), arrays["n_trainable"]),
            relative_all("grad", published(grads, rows, s.backbone), under(arrays, "grad/"), 1e-4),
        ]
        if "logits_merged" in arrays:
            merged = s.backbone.apply(tuner.merge(tuned, s.params, state), s.batch["image"])
            logits = merged @ s.head["kernel"] + s.head["bias"][None]
            found.append(absolute("logits_merged", logits, arrays["logits_merged"], 1e-5))
        known = {q.name for q in found} | set(OPTIONS)
        unknown = [key for key in arrays if key not in known and not key.startswith(("tuner/", "grad/"))]
        if unknown:
            raise ValueError(f"{path.name}: nothing compares '{unknown[0]}'")
        return found

    return check


def published(grads: Any, rows: Sequence[Row], backbone: Backbone) -> dict[str, np.ndarray]:
    """Gradients of the trained leaves under the file's names; of the backbone only what trains is there."""
    there = set(rules.leaf_names(grads["backbone"]))
    trained = [row for row in names.expand(TIMM, len(backbone.blocks)) if there.issuperset(row.ours)]
    return {
        **names.write(grads["head"], HEAD),
        **names.write(grads["tuner"], rows),
        **names.write(grads["backbone"], trained),
    }


def _linear(arrays: Arrays, backbone: Backbone, path: Path):
    return linear(), ()


def _full(arrays: Arrays, backbone: Backbone, path: Path):
    return full(), ()


def _bitfit(arrays: Arrays, backbone: Backbone, path: Path):
    return bitfit(), ()


def _partial(arrays: Arrays, backbone: Backbone, path: Path):
    return partial(int(re.match(r"partial(\d+)", path.name)[1])), ()


LORA_SITES = {
    "attn.qkv.q": ("q", "attn/q_proj"),
    "attn.qkv.k": ("k", "attn/k_proj"),
    "attn.qkv.v": ("v", "attn/v_proj"),
    "attn.proj": ("proj", "attn/proj"),
    "mlp.fc1": ("fc1", "mlp/fc1"),
    "mlp.fc2": ("fc2", "mlp/fc2"),
}


def _lora(arrays: Arrays, backbone: Backbone, path: Path):
    used = {theirs: ours for theirs, ours in LORA_SITES.items() if f"tuner/blocks.0.{theirs}.A" in arrays}
    rank = next(array.shape[0] for name, array in arrays.items() if name.startswith("tuner/") and name.endswith(".A"))
    rows = [
        Row(f"blocks.{{}}.{theirs}.{matrix}", (f"block{{}}/{port}/{matrix.lower()}",), "o i -> i o")
        for theirs, (_, port) in used.items()
        for matrix in "AB"
    ]
    tuner = lora(rank, alpha=float(arrays["scaling"]) * rank, targets=[target for target, _ in used.values()])
    return tuner, names.expand(rows, len(backbone.blocks))


def _bottleneck_rows(backbone: Backbone, **places: str) -> list[Row]:
    rows = [
        row
        for theirs, port in places.items()
        for side in ("down", "up")
        for row in (
            Row(f"blocks.{{}}.{theirs}.{side}.weight", (f"block{{}}/{port}/{side}/kernel",), "o i -> i o"),
            Row(f"blocks.{{}}.{theirs}.{side}.bias", (f"block{{}}/{port}/{side}/bias",)),
        )
    ]
    return names.expand(rows, len(backbone.blocks))


def _houlsby(arrays: Arrays, backbone: Backbone, path: Path):
    hidden = arrays["tuner/blocks.0.mlp_adapter.down.weight"].shape[0]
    rows = _bottleneck_rows(backbone, attn_adapter="attn_out", mlp_adapter="mlp_out")
    return adapter(hidden, kind="houlsby", activation="gelu", scale=float(arrays.get("scale", 1.0))), rows


def _pfeiffer(arrays: Arrays, backbone: Backbone, path: Path):
    hidden = arrays["tuner/blocks.0.adapter.down.weight"].shape[0]
    rows = _bottleneck_rows(backbone, adapter="mlp_out")
    return adapter(hidden, kind="pfeiffer", activation="gelu", scale=float(arrays.get("scale", 1.0))), rows


def _adaptformer(arrays: Arrays, backbone: Backbone, path: Path):
    hidden = arrays["tuner/blocks.0.adapter.down.weight"].shape[0]
    rows = _bottleneck_rows(backbone, adapter="mlp_out")
    return adaptformer(hidden, scale=float(arrays["scale"]), activation="relu"), rows


def _vpt(arrays: Arrays, backbone: Backbone, path: Path):
    deep = any(name.startswith("tuner/deep_prompt.") for name in arrays)
    rows = [Row("prompt", ("tokens",), "1 p d -> p d")]
    if deep:
        later = range(1, len(backbone.blocks))
        rows += [Row(f"deep_prompt.{i}", (f"block{i - 1}/out",), "1 p d -> p d") for i in later]
    return vpt(arrays["tuner/prompt"].shape[1], deep=deep), rows


SSF_SITES = {
    "patch_embed": ("embed",),
    "blocks.{}.norm1": ("block{}/norm1",),
    "blocks.{}.attn.qkv": tuple(f"block{{}}/attn/{name}_proj" for name in "qkv"),
    "blocks.{}.attn.proj": ("block{}/attn/proj",),
    "blocks.{}.norm2": ("block{}/norm2",),
    "blocks.{}.mlp.fc1": ("block{}/mlp/fc1",),
    "blocks.{}.mlp.fc2": ("block{}/mlp/fc2",),
    "norm": ("norm",),
}


def _ssf(arrays: Arrays, backbone: Backbone, path: Path):
    rows = [
        Row(f"{site}.{part}", tuple(f"{port}/{part}" for port in ours), "(n o) -> n o" if len(ours) > 1 else "")
        for site, ours in SSF_SITES.items()
        for part in ("scale", "shift")
    ]
    return ssf(), names.expand(rows, len(backbone.blocks))


def _fact_tt(arrays: Arrays, backbone: Backbone, path: Path):
    ports = {name.rsplit(".", 1)[-1]: port for name, (_, port) in LORA_SITES.items()}
    sites = [Row(f"blocks.{{}}.{name}", (f"block{{}}/{port}",), "o i -> i o") for name, port in ports.items()]
    rows = [Row("U", ("u",), "o i -> i o"), Row("V", ("v",), "o i -> i o"), *sites]
    rank = arrays["tuner/U"].shape[0]
    return fact(rank, kind="tt", scale=float(arrays["scale"]), dropout=0.0), names.expand(rows, len(backbone.blocks))


CHECKERS = (
    ("backbone.npz", check_backbone),
    ("linear*.npz", checker(_linear)),
    ("full*.npz", checker(_full)),
    ("bitfit*.npz", checker(_bitfit)),
    ("partial*.npz", checker(_partial)),
    ("lora_*.npz", checker(_lora)),
    ("adapter_houlsby*.npz", checker(_houlsby)),
    ("adapter_pfeiffer*.npz", checker(_pfeiffer)),
    ("adaptformer*.npz", checker(_adaptformer)),
    ("vpt_*.npz", checker(_vpt)),
    ("ssf*.npz", checker(_ssf)),
    ("fact_tt*.npz", checker(_fact_tt)),
)
