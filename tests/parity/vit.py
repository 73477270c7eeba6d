"""The Vision Transformer against timm and Transformers: converters, activations, logits, loss, gradients, resizing.

Weights go through the library's own files: they are written to a temporary checkpoint, loaded, saved and read again.
"""

import re
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.backbones.backbone import Backbone
from jaxmodels.backbones.vit import Size, vit
from jaxmodels.rules import path_name
from jaxmodels.tuning.heads import linear_head
from jaxmodels.weights import names
from jaxmodels.weights.files import read_arrays, write_npz, write_safetensors
from jaxmodels.weights.pos_embed import resize_pos_embed
from jaxmodels.weights.vit import WRITTEN
from jaxmodels.weights.vit_checkpoint import load_vit, load_vit_head, save_vit
from tests.parity.compare import Quantity, absolute, exact, read, relative_all, under

_SUFFIX = {"timm": ".safetensors", "hf": ".safetensors", "google": ".npz"}
_PORTS = {
    "patch_embed": "embed",
    "tokens_in": "tokens",
    "block{}_norm1": "block{}/norm1",
    "block{}_attn": "block{}/attn_out",
    "block{}_norm2": "block{}/norm2",
    "block{}_mlp": "block{}/mlp_out",
    "block{}_out": "block{}/out",
    "norm": "norm",
}


def forward(file: Path) -> list[Quantity]:
    arrays = read(file)
    backbone = _backbone(arrays["cfg"])
    params, head, written_back = through_files("timm", under(arrays, "timm/"), backbone)
    images = _nhwc(arrays["x"])
    logits = _logits(backbone, params, head, images)
    activations = under(arrays, "act/")
    ports = {name: _port(name) for name in activations}
    reads = backbone.read(params, images, tuple(ports.values()))
    found = {name: reads[port].reshape(activations[name].shape) for name, port in ports.items()}
    each = [absolute(name, found[name], activations[name], 1e-5) for name in activations]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(arrays["y"])).mean()
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), (params, head, images))
        features = backbone.module.apply({"params": wide[0]}, wide[2])
        logits_wide = features @ wide[1]["kernel"] + wide[1]["bias"][None]
    return [
        written_back,
        *(quantity._replace(name=f"act:{quantity.name}") for quantity in each),
        absolute("logits", logits, arrays["logits"], 1e-5),
        absolute("logits_f64", logits_wide, arrays["logits_f64"], 1e-9),
        absolute("loss", loss, arrays["loss"], 1e-5),
    ]


def gradients(file: Path) -> list[Quantity]:
    arrays = read(file.with_name(file.name.replace("vit_grads", "vit_forward")))
    backbone = _backbone(arrays["cfg"])
    params, head, _ = through_files("timm", under(arrays, "timm/"), backbone)

    def loss(params, head):
        logits = _logits(backbone, params, head, _nhwc(arrays["x"]))
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(arrays["y"])).mean()

    grads, head_grads = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, head)
    rows = names.expand(WRITTEN["timm"].rows, len(backbone.blocks))
    found = names.write(grads, rows) | names.write(head_grads, WRITTEN["timm"].head)
    return [relative_all("grad", found, under(read(file), "grad/"), 1e-4)]


def google(file: Path) -> list[Quantity]:
    arrays = read(file)
    published = {name: array for name, array in arrays.items() if not name.startswith("expected/")}
    heads = next(array.shape[1] for name, array in published.items() if name.endswith("/query/kernel"))
    patch, _, _, width = published["embedding/kernel"].shape
    depth = sum(name.endswith("/query/kernel") for name in published)
    images = _nhwc(arrays["expected/x"])
    quantities = []
    for pre_logits in (False, True):
        name = "logits_with_pre_logits" if pre_logits else "logits_no_pre_logits"
        if f"expected/{name}" not in arrays:
            continue
        backbone = vit(Size(width, depth, heads, patch), image_size=images.shape[1], pre_logits=pre_logits)
        params, head, written_back = through_files("google", published, backbone)
        quantities.append(written_back._replace(name=f"written back, {name}"))
        quantities.append(absolute(name, _logits(backbone, params, head, images), arrays[f"expected/{name}"], 1e-5))
        if not pre_logits:
            quantities += _same_as_timm(file, "vit_google_npz", params, head)
    return quantities


def hugging_face(file: Path) -> list[Quantity]:
    arrays = read(file)
    published = {name: a for name, a in arrays.items() if not name.startswith("expected/") and name != "layer_norm_eps"}
    # These names do not tell the heads: they are those of the file with the same weights under timm's names.
    cfg = read(_timm_sibling(file, "vit_hf_names"))["cfg"]
    backbone = _backbone(cfg, epsilon=float(arrays["layer_norm_eps"]))
    params, head, written_back = through_files("hf", published, backbone)
    logits = _logits(backbone, params, head, _nhwc(arrays["expected/x"]))
    same = _same_as_timm(file, "vit_hf_names", params, head)
    return [written_back, *same, absolute("logits", logits, arrays["expected/logits"], 2e-5)]


def resizing(file: Path) -> list[Quantity]:
    arrays = read(file)
    rules = {"bicubic_aa": "timm", "bicubic_noaa": "hf", "scipy_zoom_order1": "google"}
    quantities = []
    for name in sorted(set(arrays) - {"pos_embed", "old_grid", "new_grid"}):
        grid = round((arrays[name].shape[1] - 1) ** 0.5)
        found = resize_pos_embed(arrays["pos_embed"], grid, rule=rules[name.removesuffix("_down")])
        quantities.append(absolute(name, found, arrays[name], 1e-5))
    return quantities


def through_files(layout: str, published: dict, backbone: Backbone) -> tuple[dict, dict, Quantity]:
    """Weights through a checkpoint: (params, head, how far the saved file is from the published one)."""
    with tempfile.TemporaryDirectory() as folder:
        source, copy = (Path(folder, name + _SUFFIX[layout]) for name in ("published", "copy"))
        (write_npz if layout == "google" else write_safetensors)(source, published)
        params, head = load_vit(source, backbone), load_vit_head(source, backbone)
        save_vit(copy, params, backbone, layout=layout, head=head)
        again = read_arrays(copy)
    dropped = {row.theirs for row in WRITTEN[layout].pre_logits if not backbone.module.pre_logits}
    expected = {name: array for name, array in published.items() if name not in dropped}
    if set(again) != set(expected):
        return params, head, Quantity("written back: other names", float("nan"), 0.0)
    worst = max(exact(name, again[name], expected[name]).error for name in expected)
    return params, head, Quantity("written back", worst, 0.0)


def _same_as_timm(file: Path, kind: str, params: dict, head: dict) -> list[Quantity]:
    sibling = _timm_sibling(file, kind)
    if not sibling.is_file():
        return []
    arrays = read(sibling)
    expected, expected_head, _ = through_files("timm", under(arrays, "timm/"), _backbone(arrays["cfg"]))
    return [relative_all("same parameters", _flat((params, head)), _flat((expected, expected_head)), 0.0)]


def _timm_sibling(file: Path, kind: str) -> Path:
    return file.with_name(file.name.replace(kind, "vit_forward"))


def _backbone(cfg: np.ndarray, epsilon: float = 1e-6) -> Backbone:
    pixels, patch, _, width, depth, heads = map(int, cfg)
    return vit(Size(width, depth, heads, patch), image_size=pixels, epsilon=epsilon)


def _logits(backbone: Backbone, params: dict, head: dict, images: jax.Array) -> jax.Array:
    return linear_head().apply(head, backbone.apply(params, images))


def _nhwc(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def _port(name: str) -> str:
    index = re.search(r"\d+", name)
    key = name.replace(index.group(), "{}", 1) if index and name.startswith("block") else name
    if key not in _PORTS:
        raise ValueError(f"act/{name}: no port is known for this activation")
    return _PORTS[key].format(index.group() if index else "")


def _flat(tree) -> dict[str, np.ndarray]:
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


CHECKERS = (
    ("vit_forward*.npz", forward),
    ("vit_grads*.npz", gradients),
    ("vit_google_npz*.npz", google),
    ("vit_hf_names*.npz", hugging_face),
    ("pos_embed_resize*.npz", resizing),
)
