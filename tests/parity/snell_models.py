"""Checks of the models that the official SNELL code computed."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.backbones import convnext, swin, vit
from jaxmodels.rules import count, merge, path_name, split
from jaxmodels.tuning import kernels
from jaxmodels.tuning.classifier import classifier, features
from jaxmodels.tuning.lora import lora
from jaxmodels.tuning.parallel_adapter import parallel_adapter
from jaxmodels.tuning.sites import LINEARS
from jaxmodels.tuning.snell import mixk, snell
from jaxmodels.tuning.snella import snella
from jaxmodels.tuning.sparsify import sparsify, threshold
from jaxmodels.weights import convnext as convnext_weights
from jaxmodels.weights import names
from jaxmodels.weights import swin as swin_weights
from jaxmodels.weights import vit as vit_weights
from tests.parity.compare import Quantity, absolute, exact, read, relative, relative_all, under

OFF = {"dropout": 0.0, "drop_path": 0.0}
FACTORS = {"In_Qs": "in_q", "Out_Qs": "out_q", "In_Qs_1": "in_q", "Out_Qs_1": "out_q"}
PARTS = {
    "0.weight": ("down", "kernel"),
    "0.bias": ("down", "bias"),
    "2.weight": ("up", "kernel"),
    "2.bias": ("up", "bias"),
    "a.weight": ("a",),
    "b.weight": ("b",),
}
SCALARS = ("alpha", "gamma", "beta")


# Names ----------------------------------------------------------------------------------------------------------------


def our_path(name: str) -> tuple[str, ...] | None:
    """Path of an official parameter in our trained tree, () for the frozen coefficients, None for any other."""
    found = re.fullmatch(r"(.*)\.additional_(\w+)\.learnable\.(.*)", name)
    if found:
        layer, target, leaf = found.groups()
        if leaf == "shared_coeff_fc":
            return ()
        layer = re.sub(r"^(blocks|layers|stages)\.(\d+)", lambda m: f"{m[1][:-1]}{m[2]}", layer)
        layer = re.sub(r"\.blocks\.(\d+)", r".block\1", layer).replace(".", "/")
        port = f"{layer.rsplit('/', 1)[0]}/{LINEARS[target]}"
        parts = PARTS.get(leaf, (FACTORS.get(leaf, leaf),))
        return ("tuner", port, *parts)
    plain = {
        "head.weight": ("head", "kernel"),
        "head.bias": ("head", "bias"),
        "head.fc.weight": ("head", "kernel"),
        "head.fc.bias": ("head", "bias"),
        "head.norm.weight": ("backbone", "head_norm", "scale"),
        "head.norm.bias": ("backbone", "head_norm", "bias"),
        "cls_token": ("backbone", "cls_token"),
    }
    return plain.get(name)


def to_ours(name: str, array: np.ndarray) -> np.ndarray:
    """Linear weights are (out, in) in the files."""
    return array.T if name.endswith("weight") and array.ndim == 2 else array


def is_tuner(name: str) -> bool:
    return ".learnable." in name


def ours_of(tree, wanted: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our arrays under the official names of `wanted`, in their layout."""
    found = {}
    for name in wanted:
        node = tree
        for part in our_path(name):
            node = node[part]
        found[name] = to_ours(name, np.asarray(node))
    return found


def trained_tree(params: dict[str, np.ndarray]) -> dict:
    """{'tuner', 'head'} from official parameters."""
    tree: dict = {"tuner": {}, "head": {}}
    for name, array in params.items():
        path = our_path(name)
        if not path or path[0] == "backbone":
            continue
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = jnp.asarray(to_ours(name, array))
    return tree


def fused(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Backbone parameters with separate q, k, v joined to qkv; tuners and head left out."""
    out = {}
    for name, array in params.items():
        part = re.fullmatch(r"(.*\.attn)\.([qkv])\.(weight|bias)", name)
        if part:
            if part[2] == "q":
                out[f"{part[1]}.qkv.{part[3]}"] = np.concatenate([params[f"{part[1]}.{x}.{part[3]}"] for x in "qkv"])
        elif not is_tuner(name):
            out[name] = array
    return out


# Models ---------------------------------------------------------------------------------------------------------------


def vit_model(file):
    image, patch, classes, width, depth, heads = (int(x) for x in file["cfg"])
    backbone = vit.vit(vit.Size(width, depth, heads, patch), image_size=image)
    return backbone, names.expand(vit_weights.TIMM, depth), classes, (r"head\..*",)


def depths_of(params, pattern: str) -> tuple[int, ...]:
    pairs = {tuple(map(int, m.groups())) for name in params if (m := re.match(pattern, name))}
    return tuple(1 + max(j for i, j in pairs if i == stage) for stage in range(1 + max(i for i, _ in pairs)))


def swin_model(file):
    params = under(file, "param/")
    depths = depths_of(params, r"layers\.(\d+)\.blocks\.(\d+)\.")
    tables = [params[f"layers.{i}.blocks.0.attn.relative_position_bias_table"] for i in range(len(depths))]
    window = max((int(round(len(table) ** 0.5)) + 1) // 2 for table in tables)
    width, _, _, patch = params["patch_embed.proj.weight"].shape
    size = swin.Size(width, depths, tuple(table.shape[1] for table in tables), window, patch)
    classes = len(params["head.bias"])
    return swin.swin(size, image_size=file["x"].shape[-1]), swin_weights.timm(depths), classes, (r"head\..*",)


def convnext_model(file):
    params = under(file, "param/")
    depths = depths_of(params, r"stages\.(\d+)\.blocks\.(\d+)\.")
    widths = tuple(len(params[f"stages.{i}.blocks.0.gamma"]) for i in range(len(depths)))
    backbone = convnext.convnext(convnext.Size(depths, widths), image_size=file["x"].shape[-1], sample_variance=True)
    rows = convnext_weights.timm(depths, named="stem.proj.weight" in params)
    return backbone, rows, len(params["head.fc.bias"]), (r"head\.fc\..*",)


def assemble(file, tuner, model):
    """(backbone, method, variables, batch) of a fixture."""
    backbone, rows, classes, drop = model
    params = under(file, "param/")
    template = jax.eval_shape(backbone.init, jax.random.key(0))
    weights = names.read(fused(params), rows, template, drop=drop)
    variables = {
        "params": {"backbone": jax.tree.map(jnp.asarray, weights), **trained_tree(params)},
        "state": tuner.init_state(backbone),
    }
    method = classifier(backbone, tuner, num_classes=classes)
    batch = {"image": jnp.asarray(file["x"].transpose(0, 2, 3, 1)), "label": jnp.asarray(file["y"], jnp.int32)}
    return method, variables, batch


def sparsity_in(name: str) -> float:
    return float(re.search(r"_s([\d.]+)\.npz$", name)[1])


def check_sparsity(file, name: str) -> float:
    level = float(file["init_thres"])
    if "_s" in name and abs(sparsity_in(name) - level) > 1e-9:
        raise ValueError(f"{name}: holds init_thres {level}")
    return level


# Steps ----------------------------------------------------------------------------------------------------------------


def optimizer(lr: float, decay: float) -> optax.GradientTransformation:
    """AdamW with the official groups: matrices decay, biases, scalars and the class token do not."""

    def mask(params):
        def decays(path, leaf):
            return leaf.ndim >= 2 and not re.search("(bias|cls_token)$", path_name(path))

        return jax.tree_util.tree_map_with_path(decays, params)

    return optax.adamw(lr, weight_decay=decay, mask=mask)


def trainer(method, transform):
    """One jitted step: (trained, frozen, state, opt, batch) -> (loss, gradients, trained, state, opt)."""

    def loss(trained, frozen, state, batch):
        return method.loss({"params": merge(trained, frozen), "state": state}, batch, None)[0]

    @jax.jit
    def step(trained, frozen, state, opt, batch):
        value, grads = jax.value_and_grad(loss)(trained, frozen, state, batch)
        updates, opt = transform.update(grads, opt, trained)
        trained = optax.apply_updates(trained, updates)
        return value, grads, trained, method.after_step(merge(trained, frozen), grads, state), opt

    return step


def grads_close(name, found, expected) -> list[Quantity]:
    """1e-4 of the maximum; arrays whose maximum is below 1e-5 absolutely to 1e-5."""
    large = {key for key, value in expected.items() if np.abs(value).max(initial=0.0) >= 1e-5}
    small = [absolute("", found[key], expected[key], 1e-5) for key in sorted(set(expected) - large)]
    out = []
    if large:
        out.append(relative_all(name, {k: found[k] for k in large}, {k: expected[k] for k in large}, 1e-4))
    if small:
        worst = max(small, key=lambda q: np.inf if np.isnan(q.error) else q.error)
        out.append(worst._replace(name=f"{name} below 1e-5 ({len(small)})"))
    return out


def run(file, tuner, model) -> list[Quantity]:
    """Everything a model's fixture holds."""
    method, variables, batch = assemble(file, tuner, model)
    backbone = model[0]
    params, state = variables["params"], variables["state"]
    out = [absolute("logits", jax.jit(method.predict)(variables, batch), file["logits"], 1e-5)]
    if "features_cls" in file:
        pooled = jax.jit(lambda v, b: features(backbone, tuner, v["params"], v["state"], b, None))(variables, batch)
        out.append(absolute("features", pooled, file["features_cls"], 1e-5))
    if tuner.merge:
        merged = {**params, "backbone": tuner.merge(params["tuner"], params["backbone"], state)}
        plain = backbone.apply(merged["backbone"], batch["image"])
        logits = plain @ params["head"]["kernel"] + params["head"]["bias"][None]
        out.append(absolute("merged logits", logits, file["logits"], 1e-5))
    out += matrices(file, tuner, params["tuner"], state)
    out += gradients(file, method, variables, batch)
    trained, frozen = split(params, method.groups)
    transform = optimizer(float(file.get("lr", 0.0)), float(file.get("weight_decay", 0.0)))
    step, opt = trainer(method, transform), transform.init(trained)
    losses = []
    for i in range(len(file.get("train_losses", [0]))):
        value, _, trained, state, opt = step(trained, frozen, state, opt, batch)
        if i == 0:
            out.append(absolute("loss", value, file["loss"], 1e-5))
        losses.append(value)
    if "n_total" in file:
        constants = sum(a.size for name, a in under(file, "param/").items() if our_path(name) == ())
        out.append(exact("n_total", count(params) + constants, file["n_total"]))
    if "train_losses" in file:
        out.append(relative("train_losses", np.array(losses), file["train_losses"], 1e-4))
        after = {n: a for n, a in under(file, "after3/").items() if not beta_without_effect(n, tuner)}
        found = ours_of(merge(trained, frozen), after)
        each = [absolute(f"after steps:{name}", found[name], after[name], 2e-4) for name in after]
        out.append(max(each, key=lambda q: np.inf if np.isnan(q.error) else q.error))
    return out


def gradients(file, method, variables, batch) -> list[Quantity]:
    """Gradients of everything that trains, in float64: beta of k is a sum that cancels to 1e-4 of its terms."""
    expected = under(file, "grad/")
    with jax.enable_x64(True):

        def wide(tree):
            return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)

        trained, frozen = split(wide(variables["params"]), method.groups)
        pixels = {**batch, "image": wide(batch["image"])}

        @jax.jit
        def gradient(trained, frozen, state, batch):
            return jax.grad(lambda t: method.loss({"params": merge(t, frozen), "state": state}, batch, None)[0])(
                trained
            )

        grads = jax.tree.map(np.asarray, gradient(trained, frozen, variables["state"], pixels))
    found = sorted(path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(grads))
    out = [exact("trained set", found, sorted("/".join(our_path(name)) for name in expected))]
    out += grads_close("grad", ours_of(grads, expected), expected)
    return [*out, exact("n_trainable", count(trained), file["n_trainable"])]


def beta_without_effect(name: str, tuner) -> bool:
    """Mix-K's beta on proj and fc2 is removed by every later LayerNorm: AdamW moves it by its rounding errors."""
    return not tuner.config.get("sparsity", 1.0) and bool(re.search(r"additional_(proj|fc2)\.learnable\.beta$", name))


def matrices(file, tuner, params, state) -> list[Quantity]:
    """Merged and sparsified updates of the layers the file shows (block{i}_{layer}_{W,Ws})."""
    out = []
    for key, expected in file.items():
        found = re.fullmatch(r"block(\d+)_(\w+)_(W|Ws)", key)
        if found:
            path = f"block{found[1]}/{LINEARS[found[2]]}"
            name = "mixture" if tuner.config["method"] == "snella" else tuner.config["kernel"]
            merged = kernels.kernel(name).merge(params[path])
            if found[3] == "W":
                out.append(relative(key, merged, expected, 1e-6))
                continue
            level = state.get("sparsity", state).get(path)
            out += survivors(key, merged, merged if level is None else sparsify(merged, level), level, expected, 1e-5)
    return out


def survivors(name, merged, found, level, expected, limit) -> list[Quantity]:
    """A sparsified update, except entries whose magnitude is within 1e-7 of the threshold, which may flip."""
    if level is not None:
        near = np.abs(np.abs(merged) - threshold(jnp.abs(merged), level)) <= 1e-7
        found, expected = np.where(near, 0.0, found), np.where(near, 0.0, expected)
        mask = exact(f"{name} mask", found != 0, expected != 0)
        return [relative(name, found, expected, limit), mask]
    return [relative(name, found, expected, limit)]


# Checkers of model files ----------------------------------------------------------------------------------------------


def vit_snell(path: Path) -> list[Quantity]:
    file = read(path)
    level = 0.0 if "klora" in path.name else check_sparsity(file, path.name)
    return run(file, snell(int(file["low_rank_dim"]), sparsity=level, **OFF), vit_model(file))


def vit_mixk(path: Path) -> list[Quantity]:
    file = read(path)
    return run(file, mixk(int(file["low_rank_dim"]), **OFF), vit_model(file))


def vit_snella(path: Path) -> list[Quantity]:
    file = read(path)
    level = check_sparsity(file, path.name)
    tuner = snella(int(file["low_rank_dim"]), steps_per_epoch=1000, init_sparsity=level, **OFF)
    return run(file, tuner, vit_model(file))


def vit_lora(path: Path) -> list[Quantity]:
    # '0.weight' is also the adapter's first layer: give LoRA's two names of their own.
    letters = {"0": "a", "1": "b"}
    file = {
        re.sub(r"(\.learnable)\.([01])\.", lambda m: f"{m[1]}.{letters[m[2]]}.", k): v for k, v in read(path).items()
    }
    return run(file, with_cls_token(lora(int(file["low_rank_dim"]), targets=tuple(LINEARS))), vit_model(file))


def vit_adapter(path: Path) -> list[Quantity]:
    file = read(path)
    return run(file, with_cls_token(parallel_adapter(int(file["low_rank_dim"]))), vit_model(file))


def with_cls_token(tuner):
    """The official repository trains the class token with every tuner."""
    return tuner._replace(groups=lambda backbone: (("cls_token", "tuner"),))


def hierarchical(model, path: Path) -> list[Quantity]:
    file = read(path)
    level = check_sparsity(file, path.name)
    out = run(file, snell(int(file["low_rank_dim"]), sparsity=level, **OFF), model(file))
    return out + swin_buffers(file)


def swin_buffers(file) -> list[Quantity]:
    out = []
    for key, expected in under(file, "buffer/").items():
        if key.endswith("relative_position_index"):
            side = int(round(len(expected) ** 0.5))
            out.append(exact(key, swin.relative_index(side), expected))
        elif key.endswith("attn_mask"):
            side = int(round(expected.shape[-1] ** 0.5))
            stage = int(key.split(".")[1])
            patch = file["param/patch_embed.proj.weight"].shape[-1] * 2**stage
            grid = tuple(pixels // patch for pixels in file["x"].shape[2:])
            out.append(exact(key, swin.shift_mask(grid, side, side // 2), expected))
    return out


CHECKERS = (
    ("vit_snell_s*.npz", vit_snell),
    ("vit_klora*.npz", vit_snell),
    ("vit_mixk*.npz", vit_mixk),
    ("vit_snella_s*.npz", vit_snella),
    ("vit_lora*.npz", vit_lora),
    ("vit_adapter*.npz", vit_adapter),
    ("swin_s*.npz", functools.partial(hierarchical, swin_model)),
    ("convnext_s*.npz", functools.partial(hierarchical, convnext_model)),
)
