"""Fixtures of Res-Tuning: components, bypass on ViT and on a pyramid of maps, unbound attention, the triple tuner."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import rules
from jaxmodels.backbones.vit import Size, vit
from jaxmodels.nn.transformer import attend
from jaxmodels.tuning.bypass_chain import ChainKinds, run_chain
from jaxmodels.tuning.classifier import bypass_reads, classifier
from jaxmodels.tuning.heads import linear_head
from jaxmodels.tuning.multitask import multitask, stack_tasks
from jaxmodels.tuning.res_adapter import adapter
from jaxmodels.tuning.res_bypass import res_tuning_bypass
from jaxmodels.tuning.res_maps import group_adapter, upsample
from jaxmodels.tuning.res_tuning import res_tuning
from jaxmodels.tuning.tuner import Context
from jaxmodels.tuning.unbound import attend_shared, unbound_prefix, unbound_prompt
from jaxmodels.weights import names
from jaxmodels.weights.res_tuning import bypass_rows
from jaxmodels.weights.vit import TIMM
from tests.parity.compare import Quantity, absolute, exact, read, relative, relative_all, under
from tests.parity.torch_layout import channels_first, channels_last, renamed, to_flat, to_tree

OUT, GRAD, WIDE = 1e-5, 1e-4, 1e-10


SWIFT = {"ln1": "down", "ln2": "up"}
LONG = {"lambda_logit": "lam"}


def back(table):
    """The table read from right to left."""
    return {ours: theirs for theirs, ours in table.items()}


def weighting(params, name=""):
    """The weighting of an adapter, from its parameters (and, for a constant, from its name)."""
    constant = re.search(r"scalar(?:_(-?[\d.]+))?$", name)
    if constant:
        return f"scalar_{constant[1] or '0.5'}"
    scaling = params.get("scaling")
    if scaling is None:
        return "none"
    if isinstance(scaling, dict):
        return "gate"
    return "scale" if scaling.shape == (1,) and params["up"]["bias"].shape != (1,) else "scale_channel"


def pulled(function, params, x, cotangent):
    """Output and the gradients of sum(output * cotangent)."""

    @jax.jit
    def run(params, x, cotangent):
        out, pullback = jax.vjp(function, params, x)
        return out, *pullback(cotangent)

    return run(params, x, jnp.asarray(cotangent))


def components(path: Path) -> list[Quantity]:
    """ResAdapter in every weighting, ResGroupAdapter, Upsample."""
    g, found = read(path), []
    for case in sorted({key.split("/")[0] for key in g if "/" in key}):
        held = under(g, f"{case}/")
        params = renamed(to_tree(under(held, "param/")), SWIFT)
        if case.startswith("res_adapter"):
            found += _adapter_case(case, params, held, g)
        elif case.startswith("res_group_adapter"):
            x, cotangent = channels_last(g["x_map"]), channels_last(g["cot_map"])
            out, grads, grad_x = pulled(group_adapter, params, x, cotangent)
            found.append(absolute(f"{case} out", channels_first(out), held["out"], OUT))
            found += _gradients(case, grads, channels_first(grad_x), held)
        elif case.startswith("upsample"):
            for name in (key for key in held if key.startswith("out_")):
                size = held[name].shape[2:] if name != "out_x2" else None
                out = upsample(params, channels_last(g["x_map"]), size)
                found.append(absolute(f"{case} {name}", channels_first(out), held[name], OUT))
        else:
            raise ValueError(f"nobody knows the component '{case}'")
    return found


def _adapter_case(case, params, held, g):
    def apply(p, x):
        return adapter(p, x, weight=weighting(p, case))

    out, grads, grad_x = pulled(apply, params, jnp.asarray(g["x_tokens"]), g["cot_tokens"])
    found = [absolute(f"{case} out", out, held["out_tokens"], OUT), *_gradients(case, grads, grad_x, held)]
    if "out_map" in held:
        out = channels_first(apply(params, channels_last(g["x_map"])))
        found.append(absolute(f"{case} map", out, held["out_map"], OUT))
    return found


def _gradients(case, grads, grad_x, held):
    expected = under(held, "grad/")
    return [
        relative(f"{case} grad x", grad_x, held["grad_x"], GRAD),
        relative_all(f"{case} grad", to_flat(renamed(grads, back(SWIFT))), expected, GRAD),
    ]


def pyramid(path: Path) -> list[Quantity]:
    """The bypass on maps, with upsampling."""
    g = read(path)
    theirs = under(g, "param/")
    tree = renamed(to_tree(theirs), SWIFT)["bypass_blocks"]
    sides = {"lateral_tuner": "lateral", "vertical_tuner": "vertical", "aux_tuner": "aux"}
    template = {i: {sides[s]: tuner["tuner"] for s, tuner in block.items()} for i, block in tree.items()}
    rows = bypass_rows(template, adapter=None)
    params = jax.tree.map(jnp.asarray, names.read(theirs, rows, template))
    stems = [channels_last(g[f"stem{i}"]) for i in range(sum(key.startswith("stem") for key in g))]
    weight = weighting(params["0"].get("lateral", params["0"].get("vertical", {})))
    kinds = ChainKinds(_kind(params, "lateral", stems), _kind(params, "vertical", stems), "sum", weight)

    def run(params, root):
        return run_chain([params[str(i)] for i in range(len(params))], root, stems, kinds)

    out, grads, _ = pulled(run, params, channels_last(g["root"]), channels_last(g["cotangent"]))
    found = [
        absolute("out", channels_first(out), g["out"], OUT),
        exact("dims", [stem.shape[-1] for stem in stems], g["dims"]),
        relative_all("grad", names.write(grads, rows), under(g, "grad/"), GRAD),
    ]
    if "zero_init" in path.name:
        found.append(exact("out = last stem", channels_first(out), g[f"stem{len(stems) - 1}"]))
    return found


def _kind(params, side, stems):
    tuner = params["0"].get(side)
    if tuner is None:
        return "identity"
    return "adapter" if tuner["down"]["kernel"].shape[0] == stems[0].shape[-1] else "group_adapter"


def backbone_of(g, prefix):
    """The tiny ViT of `cfg` = (image, patch, classes, width, depth, heads) and its parameters."""
    image, patch, _, width, depth, heads = (int(n) for n in g["cfg"])
    backbone = vit(Size(width, depth, heads, patch), image_size=image)
    template = backbone.shapes().params
    rows = names.expand(TIMM, depth)
    drop = (r"head\..*", r"restuning_.*")
    params = names.read(under(g, prefix), rows, template, drop=drop, source=prefix)
    return backbone, jax.tree.map(jnp.asarray, params)


def loss_and_grads(backbone, tuner, params, images, labels):
    """Logits, loss and the gradients of the tuner and of the head, of the library's own classifier."""
    state = tuner.init_state(backbone)
    method = classifier(backbone, tuner, num_classes=params["head"]["bias"].shape[0])
    batch = {"image": images, "label": labels}

    def loss(trained):
        tree = {**params, **trained}
        value, _ = method.loss({"params": tree, "state": state}, batch, jax.random.key(0))
        return value, method.predict({"params": tree, "state": state}, batch)

    trained = {"tuner": params["tuner"], "head": params["head"]}
    (value, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(trained)
    return logits, value, grads


def bypass_vit(path: Path) -> list[Quantity]:
    """The released bypass on a ViT, with the head."""
    g = read(path)
    backbone, frozen = backbone_of(g, "param/")
    param, images, labels = under(g, "param/"), channels_last(g["x"]), jnp.asarray(g["y"])
    swift = {key: value for key, value in param.items() if key.startswith("restuning_")}
    adapter_name = next(iter(swift)).split(".")[0].removeprefix("restuning_")
    side = {"lateral_tuner": "lateral", "vertical_tuner": "vertical"}
    blocks = renamed(to_tree(swift), SWIFT)[f"restuning_{adapter_name}"]["bypass_blocks"]
    template = {f"block{i}/out": {side[s]: t["tuner"] for s, t in block.items()} for i, block in blocks.items()}
    rows = bypass_rows(template, adapter=adapter_name)
    params = {
        "backbone": frozen,
        "tuner": jax.tree.map(jnp.asarray, names.read(swift, rows, template)),
        "head": to_tree(under(param, "head.")),
    }
    first = next(iter(template.values()))
    kinds = {name: "adapter" if name in first else "identity" for name in ("lateral", "vertical")}
    tuner = res_tuning_bypass(merge="sum", weight=weighting(next(iter(first.values()))), **kinds)
    logits, loss, grads = loss_and_grads(backbone, tuner, params, images, labels)
    found_grads = names.write(grads["tuner"], rows) | {f"head.{k}": v for k, v in to_flat(grads["head"]).items()}
    only = linear_head().apply(params["head"], jax.jit(backbone.apply)(frozen, images))
    return [
        absolute("logits", logits, g["logits"], OUT),
        absolute("loss", loss, g["loss"], OUT),
        relative_all("grad", found_grads, under(g, "grad/"), GRAD),
        absolute("frozen logits", only, g["logits_backbone_only"], OUT),
        exact("trainable", rules.count(params["tuner"]) + rules.count(params["head"]), g["n_trainable"]),
    ]


def bypass_multitask(path: Path) -> list[Quantity]:
    """Several tasks from one forward pass, in the merge that the file's name ends with."""
    g = read(path)
    backbone, frozen = backbone_of(g, "backbone/")
    images, labels = channels_last(g["x"]), jnp.asarray(g["y"])
    tuner = res_tuning_bypass(merge="lambda" if any(key.endswith("lambda_logit") for key in g) else "sum")
    tasks = [_bypass_task(under(g, f"task{t}/tuner/")) for t in range(_tasks(g))]
    params = {"backbone": frozen, "tuner": tasks[0]["tuner"]}
    reads = jax.jit(lambda params: bypass_reads(backbone, tuner, params, {}, images, None))(params)
    found = [absolute("features", np.stack([reads[p] for p in tuner.reads(backbone)]), g["features"], OUT)]
    together = jax.jit(multitask(backbone, tuner))(frozen, stack_tasks(tasks), images)
    for t, task in enumerate(tasks):
        logits, loss, grads = loss_and_grads(backbone, tuner, {"backbone": frozen, **task}, images, labels)
        classes = logits.shape[-1]
        held = under(g, f"task{t}/")
        found += [
            absolute(f"task{t} logits", logits, held["logits"], OUT),
            absolute(f"task{t} logits together", together[t, :, :classes], held["logits"], OUT),
            absolute(f"task{t} loss", loss, held["loss"], OUT),
        ]
        if under(held, "grad/"):
            found.append(relative_all(f"task{t} grad", _flat_bypass(grads), under(held, "grad/"), GRAD))
    hidden = [leaf.shape[0] for key, leaf in g.items() if key.endswith("down.weight") and "/tuner/" in key]
    return [*found, exact("adapter length", sorted(set(hidden)), np.unique(g["adapter_length"]))]


def _tasks(g):
    return len({key.split("/")[0] for key in g if re.match(r"task\d+/", key)})


def _bypass_task(flat):
    tree = renamed(to_tree(flat), LONG)
    return {"tuner": {f"block{i}/out": block for i, block in tree["blocks"].items()}, "head": tree["head"]}


def _flat_bypass(grads):
    blocks = {re.sub(r"\D", "", path): block for path, block in grads["tuner"].items()}
    return to_flat(renamed({"blocks": blocks, "head": grads["head"]}, back(LONG)))


def unbound(path: Path) -> list[Quantity]:
    """Prefix and prompt, bound and unbound, in float64."""
    g = read(path)
    with jax.enable_x64(True):
        h = int(g["num_heads"])

        def heads(x):
            return x.reshape(*x.shape[:-1], h, x.shape[-1] // h)

        def merged(x):
            return x.reshape(*x.shape[:-2], -1) @ g["Wo"]

        def project(x):
            return [heads(jnp.asarray(x @ g[f"W{n}"] + g[f"b{n}"])) for n in "qkv"]

        q, k, v = project(g["x"])
        k_pre, v_pre = heads(jnp.asarray(g["K_pre"])), heads(jnp.asarray(g["V_pre"]))
        prefix = unbound_prefix(q, k, v, k_pre, v_pre)
        rows, prompts = unbound_prompt(q, k, v, *project(g["x_pro"]))
        prompt_out = jnp.concatenate([rows.out, prompts.out], axis=1)
        found = {
            "attn_original": merged(attend(q, k, v)[0]) + g["bo"][None, None],
            "prefix_branch": merged(attend_shared(q, k_pre, v_pre)[0]),
            "prefix_out": merged(prefix.out) + g["bo"][None, None],
            "prefix_lambda": prefix.weight,
            "prompt_out": merged(prompt_out) + g["bo"][None, None],
            "prompt_lambda": rows.weight,
            "prompt_beta": prompts.weight,
        }
        return [absolute(name, value, g[name], WIDE) for name, value in found.items()]


def in_network(path: Path) -> list[Quantity]:
    """The combination of residual tuners that the file's parameter names spell, in float32 and float64."""
    g = read(path)
    found = _in_network(g, "", OUT)
    if "logits_f64" in g:
        with jax.enable_x64(True):
            wide = {key: value.astype(np.float64) if value.dtype == np.float32 else value for key, value in g.items()}
            # The tolerance of outputs, as the fixtures' notes reserve 1e-10 for unbound_equivalence. A second, separate
            # float64 recomputation from the stored arrays misses these logits by the same 7.5e-8; the cause is unknown.
            found += _in_network(wide, "_f64", OUT)
    return found


def _in_network(g, suffix, limit):
    backbone, frozen = backbone_of(g, "backbone/")
    frozen = jax.tree.map(lambda x: x.astype(g["x"].dtype), frozen)
    tree = to_tree(under(g, "tuner/"))
    parts = _parts(tree["blocks"]["0"])
    tuner = res_tuning(**{place: kind for place, (kind, _) in parts.items()})
    params = {"backbone": frozen, "tuner": _ours(tree["blocks"], parts, int(g["cfg"][5])), "head": tree["head"]}
    images, labels = channels_last(g["x"]), jnp.asarray(g["y"])
    logits, loss, grads = loss_and_grads(backbone, tuner, params, images, labels)
    found = [
        absolute(f"logits{suffix}", logits, g[f"logits{suffix}"], limit),
        absolute(f"loss{suffix}", loss, g[f"loss{suffix}"], limit),
    ]
    if suffix:
        return found
    outs = tuple(f"{block}/out" for block in backbone.blocks)

    @jax.jit
    def read(params):
        context = Context(params["backbone"], tuner.init_state(backbone), None)
        return backbone.read(params["backbone"], images, outs, writers=tuner.writes(params["tuner"], context))

    reads = read(params)
    found += [absolute(f"block{i}_out", reads[path], g[f"block{i}_out"], limit) for i, path in enumerate(outs)]
    theirs = to_flat({"blocks": _theirs(grads["tuner"], parts, len(outs)), "head": grads["head"]})
    found.append(relative_all("grad", theirs, under(g, "grad/"), GRAD))
    kinds = [kind for kind, _ in parts.values() if kind != "none"]
    return found + [exact(f"{kind} length", _length(tree, kind, parts), g[f"{kind}_length"]) for kind in kinds]


LEAVES = {"prefix_key": "key", "prefix_value": "value"}
PORTS = {"mha": "attn_out", "ffn": "mlp_out", "block": "out"}


def _parts(block):
    """Place -> (kind, name of that part in our chain), from the names of one block's parameters."""
    parts: dict = {"mha": ("none", ""), "ffn": ("none", ""), "block": ("none", "")}
    for place in parts:
        if place in block:
            kind = "adapter" if "down" in block[place] else "prompt" if "prompt" in block[place] else "prefix"
            repeats = sum(other == kind for other, _ in parts.values())
            parts[place] = (kind, f"res_{kind}_{repeats + 1}" if repeats else f"res_{kind}")
    return parts


def _port(i, place, kind):
    return f"block{i}/{'attn/core' if place == 'mha' and kind != 'adapter' else PORTS[place]}"


def _ours(blocks, parts, heads):
    def leaves(node, kind):
        if kind == "adapter":
            return node
        return {LEAVES.get(name, name): x.reshape(x.shape[0], heads, -1) for name, x in node.items()}

    return {
        part: {_port(i, place, kind): leaves(block[place], kind) for i, block in blocks.items()}
        for place, (kind, part) in parts.items()
        if part
    }


def _theirs(grads, parts, depth):
    def leaves(node, kind):
        if kind == "adapter":
            return node
        return {back(LEAVES).get(name, name): x.reshape(x.shape[0], -1) for name, x in node.items()}

    return {
        str(i): {
            place: leaves(grads[part][_port(i, place, kind)], kind) for place, (kind, part) in parts.items() if part
        }
        for i in range(depth)
    }


def _length(tree, kind, parts):
    place = next(place for place, (other, _) in parts.items() if other == kind)
    leaf = {"prefix": "prefix_key", "prompt": "prompt", "adapter": "down"}[kind]
    node = tree["blocks"]["0"][place][leaf]
    return node["bias"].shape[0] if kind == "adapter" else node.shape[0]


CHECKERS = (
    ("*components*.npz", components),
    ("*bypass_unet*.npz", pyramid),
    ("*bypass_vit*.npz", bypass_vit),
    ("*bypass_multitask*.npz", bypass_multitask),
    ("*unbound*.npz", unbound),
    ("*restuner_vit*.npz", in_network),
)
