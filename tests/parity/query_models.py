"""Checks of the fixtures of GQE, Query2Box and BetaE (official code)."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.reasoning.adam import drop_updates, query_adam
from jaxmodels.reasoning.betae import Beta, betae, divergence, intersect_betas, project_betas
from jaxmodels.reasoning.gqe import gqe, intersect_points
from jaxmodels.reasoning.graph import answers, build_graph
from jaxmodels.reasoning.method import plain, pooled, query_method
from jaxmodels.reasoning.metrics import averages, filtered_ranks, summarize
from jaxmodels.reasoning.metrics import per_query as query_metrics
from jaxmodels.reasoning.query2box import box_score, intersect_offsets, query2box
from jaxmodels.reasoning.query_model import embed, from_published, to_published
from jaxmodels.reasoning.robust_loss import per_query
from jaxmodels.reasoning.structures import has
from tests.parity.compare import Quantity, absolute, exact, read, relative, under

KEY = jax.random.key(0)


def model_of(params, *, entities, relations, dim, gamma, **options):
    """The model whose state dict this is: its tables and networks tell which."""
    sizes = {"dim": dim, "gamma": gamma}
    if "offset_embedding" in params:
        return query2box(entities, relations, **sizes, **options)
    if "projection_net.layer1.weight" in params:
        layers = sum(bool(re.fullmatch(r"projection_net\.layer[1-9]\d*\.weight", key)) for key in params)
        hidden = len(params["projection_net.layer1.weight"])
        return betae(entities, relations, **sizes, hidden=hidden, layers=layers)
    return gqe(entities, relations, **sizes)


def batch_of(file, prefix=""):
    """{structure: columns} of a stored batch, whose positives, negatives and weights follow one another."""
    queries = under(file, f"{prefix}queries/")
    names = [str(name) for name in file.get(f"{prefix}structures", file.get(f"{prefix}groups", list(queries)))]
    batch, at = {}, 0
    for name in names:
        rows = slice(at, at + len(queries[name]))
        columns = {key: jnp.asarray(file[f"{prefix}{key}"][rows]) for key in ("positive", "negative", "weight")}
        batch[name] = {"query": jnp.asarray(queries[name]), **columns}
        at = rows.stop
    return batch


def as_dtype(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def published_gradient(model, params, grads):
    """Gradients under the published names; the two constants have none."""
    return {k: v for k, v in to_published(model, grads).items() if k not in ("gamma", "embedding_range")}


def base_model(path: Path) -> list[Quantity]:
    file = read(path)
    entities, relations, dim, per, negatives = (int(x) for x in file["config/dims"])
    state = under(file, "param/")
    options = {}
    if "config/activation" in file:
        options = {"activation": str(file["config/activation"]), "cen": float(np.round(file["config/cen"], 7))}
    model = model_of(
        state, entities=entities, relations=relations, dim=dim, gamma=float(file["config/gamma"]), **options
    )
    out = [exact("geometry", ["gqe", "query2box", "betae"].index(model.name), file["config/geo"])]
    if "config/beta_mode" in file:
        out.append(exact("mode", [model.config["hidden"], model.config["layers"]], file["config/beta_mode"]))
    batch = batch_of(file)
    out.append(exact("sizes", [len(rows["query"]) for rows in batch.values()], [per] * len(batch)))
    out.append(exact("negatives", [rows["negative"].shape[1] for rows in batch.values()], [negatives] * len(batch)))
    out += state_dict(model, state)
    names = tuple(batch)
    out += at_precision(file, model, state, batch, names, False)
    with jax.enable_x64(True):
        return out + at_precision(file, model, state, as_dtype(batch, np.float64), names, True)


def state_dict(model, state):
    """Reading and writing the published names changes nothing."""
    written = to_published(model, from_published(model, state))
    return [
        exact("names", sorted(written), sorted(state)),
        exact("range", written["embedding_range"], state["embedding_range"]),
        Quantity("written", max(absolute(k, written[k], state[k], 0.0).error for k in state), 0.0),
    ]


def revealing():
    """The plain objective, which also hands out what it is computed from."""
    objective = plain()

    def value(params, score, weights, state):
        scored = score(params, tuple(weights))
        total, state, metrics = objective.value(params, lambda *_: scored, weights, state)
        alone = {n: pooled({n: per_query(*scored[n])}, weights) for n in weights}
        return total, state, metrics | {"scored": scored, "alone": alone}

    return objective._replace(value=value)


def at_precision(file, model, state, batch, names, double):
    """Everything the file holds at one precision, from one compiled program."""
    dtype, suffix = (np.float64, "64") if double else (np.float32, "")
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), from_published(model, state))
    method = query_method(model, names, negatives=1, objective=revealing())
    beta = model.name == "betae"
    limits = {"logit": 5e-4 if beta else 1e-4, "loss": 1e-5, "grad": 5e-4 if beta else 1e-4}
    if double:
        limits = dict.fromkeys(limits, 1e-6)

    def loss(params, batch):
        value, aux = method.loss({"params": params, "state": {}}, batch, KEY)
        parts = {} if double else {n: embed(model, params, n, batch[n]["query"]) for n in names}
        return value, (three(aux.metrics), aux.metrics["scored"], aux.metrics["alone"], parts)

    (_, (losses, scored, alone, parts)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, batch)
    order = [name for name in names if not has(name, "u")] + [name for name in names if has(name, "u")]
    positive, negative = (np.concatenate([scored[name][i] for name in order]) for i in (0, 1))
    out = [
        absolute(f"positive logit{suffix}", positive, file[f"positive_logit{suffix}"], limits["logit"]),
        absolute(f"negative logit{suffix}", negative, file[f"negative_logit{suffix}"], limits["logit"]),
        relative(f"loss{suffix}", losses, file[f"loss{suffix}"], limits["loss"]),
    ]
    expected = under(file, f"grad{suffix}/")
    ours = published_gradient(model, params, grads)
    out.append(exact(f"gradients{suffix}", sorted(ours), sorted(expected)))
    out += [absolute(f"grad{suffix}/{k}", ours[k], expected[k], limits["grad"]) for k in sorted(expected)]
    if not double:
        out += embeddings(file, model, parts) + orders(file, batch, names, order)
        for name, stored in under(file, "loss_per_structure/").items():
            out.append(relative(f"loss/{name}", np.array(alone[name]), stored, limits["loss"]))
    return out


def three(metrics):
    """Loss, positive and negative loss of a step's metrics."""
    return jnp.stack([metrics[n].total / metrics[n].weight for n in ("loss", "positive_loss", "negative_loss")])


def embeddings(file, model, parts):
    """Query embeddings; the disjuncts of a query stand in neighbouring rows."""
    out = []
    for name, each in parts.items():
        stacked = jax.tree.map(lambda *x: np.stack(x, 1).reshape(-1, x[0].shape[-1]), *each)
        fields = {"center": stacked} if model.name == "gqe" else stacked._asdict()
        expected = under(file, f"emb/{name}/")
        out.append(exact(f"emb/{name}", sorted(fields), sorted(expected)))
        for field, array in expected.items():
            out.append(relative(f"emb/{name}/{field}", fields[field], array, 1e-5))
    return out


def orders(file, batch, names, order):
    starts, at = {}, 0
    for name in names:
        starts[name] = np.arange(at, at + len(batch[name]["query"]))
        at += len(starts[name])
    weights = np.concatenate([batch[name]["weight"] for name in order])
    return [
        exact("order", np.concatenate([starts[name] for name in order]), file["order"]),
        exact("weights", weights, file["weight_in_order"]),
    ]


# Operators ------------------------------------------------------------------------------------------------------------


def network(params, last="fc2"):
    """Dense layers of a stored network: layer1, layer2 or, for a projection, layer1 .. layerL and layer0."""
    layers = {}
    for key, array in params.items():
        name, kind = key.split(".")
        layers.setdefault(name, {})["kernel" if kind == "weight" else "bias"] = jnp.asarray(
            array.T if kind == "weight" else array
        )
    return layers


def operator(kind, layers, inputs):
    if kind == "proj":
        renamed = {("out" if name == "layer0" else name): layer for name, layer in layers.items()}
        return (project_betas(renamed, *inputs),)
    net = {"fc1": layers["layer1"], "fc2": layers["layer2"]}
    if kind == "beta":
        return tuple(intersect_betas(net, [Beta(a, b) for a, b in zip(*inputs, strict=True)]))
    return ({"center": intersect_points, "offset": intersect_offsets}[kind](net, list(inputs[0])),)


def operators(path: Path) -> list[Quantity]:
    file = read(path)
    out = []
    for name in sorted({key.split("/")[0] for key in file}):
        if name not in ("kl", "boxdist"):
            out += one_operator(name, under(file, f"{name}/"))
    return out + kl(under(file, "kl/")) + box_distance(under(file, "boxdist/"))


def one_operator(name, file):
    kind = name.rstrip("0123456789")
    inputs = [jnp.asarray(file[f"in{i}"]) for i in range(sum(k.startswith("in") for k in file))]
    count = sum(k.startswith("out") for k in file)
    found, pull = jax.vjp(lambda p, x: operator(kind, p, x), network(under(file, "param/")), inputs)
    grads, back = pull(tuple(jnp.asarray(file[f"cotangent{i}"]) for i in range(count)))
    out = [absolute(f"{name} out{i}", found[i], file[f"out{i}"], 1e-4) for i in range(count)]
    out += [absolute(f"{name} grad_in{i}", back[i], file[f"grad_in{i}"], 1e-4) for i in range(len(inputs))]
    for key, expected in under(file, "grad_param/").items():
        layer, part = key.split(".")
        found = grads[layer]["kernel"].T if part == "weight" else grads[layer]["bias"]
        out.append(absolute(f"{name} {key}", found, expected, 1e-4))
    return out


def kl(file):
    """Divergences: float64 to 1e-6, float32 where it does not cancel (the notes give its error elsewhere)."""

    def total(p):
        value = divergence(Beta(p[:, 0], p[:, 1]), Beta(p[:, 2], p[:, 3]))
        return value.sum(), value

    out = []
    with jax.enable_x64(True):
        grads, value = jax.grad(total, has_aux=True)(jnp.asarray(file["params"], jnp.float64))
        out.append(relative("kl64", value, file["value64"], 1e-6))
        out.append(relative("kl64 grad", grads, file["grad64"], 1e-6))
    grads, value = jax.grad(total, has_aux=True)(jnp.asarray(file["params"]))
    scale = np.maximum(np.abs(file["value64"]), 1.0)
    out.append(absolute("kl32", value / scale, file["value64"] / scale, 2e-3))
    near = np.asarray(file["params"]).max(1) <= 10
    out.append(absolute("kl32 near 1", np.asarray(value)[near], file["value"][near], 5e-4))
    scale = np.maximum(np.abs(file["grad64"]), 1.0)
    out.append(absolute("kl32 grad", grads / scale, file["grad"] / scale, 5e-4))
    return out


def box_distance(file):
    gamma, cen = (float(x) for x in file["gamma_cen"])
    inputs = [jnp.asarray(file[name]) for name in ("center", "offset", "entity")]
    logit, pull = jax.vjp(lambda c, o, e: box_score(c, o, e, gamma=gamma, cen=cen), *inputs)
    grads = pull(jnp.asarray(file["cotangent"]))
    out = [absolute("boxdist logit", logit, file["logit"], 1e-4)]
    names = ("grad_center", "grad_offset", "grad_entity")
    return out + [absolute(f"boxdist {n}", g, file[n], 1e-4) for n, g in zip(names, grads, strict=True)]


# Training -------------------------------------------------------------------------------------------------------------


def trajectory(path: Path) -> list[Quantity]:
    """Updates path, other, path of the official train_step, in float64."""
    file = read(path)
    entities, relations, dim = (int(x) for x in file["config"])
    with jax.enable_x64(True):
        state = under(file, "param0/")
        model = model_of(state, entities=entities, relations=relations, dim=dim, gamma=float(file["gamma"]))
        params = jax.tree.map(jnp.asarray, from_published(model, state))
        updates = len(file["losses"])
        batches = [as_dtype(batch_of(file, f"u{i}/"), np.float64) for i in range(updates)]
        method = query_method(model, tuple(dict.fromkeys(name for batch in batches for name in batch)))
        rate = float(np.format_float_positional(np.float32(file["lr"]), unique=True))
        transform = query_adam(rate, drops=drop_updates(updates // 3))
        gradient = jax.value_and_grad(lambda p, b: method.loss({"params": p, "state": {}}, b, KEY), has_aux=True)

        @jax.jit
        def step(params, opt, batch):
            (_, aux), grads = gradient(params, batch)
            moved, opt = transform.update(grads, opt, params)
            return optax.apply_updates(params, moved), opt, three(aux.metrics)

        opt, losses = transform.init(params), []
        for batch in batches:
            params, opt, found = step(params, opt, batch)
            losses.append(found)
        found, expected = to_published(model, params), under(file, f"param{updates}/")
        out = [absolute("losses", np.stack(losses), file["losses"], 1e-6)]
        out.append(exact("parameters", sorted(found), sorted(expected)))
        return out + [absolute(key, found[key], expected[key], 1e-6) for key in sorted(expected)]


# Graphs and ranking ---------------------------------------------------------------------------------------------------


def graph_queries(path: Path) -> list[Quantity]:
    file = read(path)
    entities, relations = int(file["n_entity"]), int(file["n_relation"])
    splits = ("train", "valid", "test")
    out = []
    for i, split in enumerate(splits):
        triples = np.concatenate([file[name] for name in splits[: i + 1]])
        graph = build_graph(triples, entities=entities, relations=relations)
        out.append(exact(f"{split} edges", graph.edges, file[f"graph_{split}/edges"]))
        names = [key.split("/")[0] for key in file if key.endswith("/queries")]
        for name in names:
            found = answers(graph, name, file[f"{name}/queries"])
            out.append(exact(f"{split} {name}", found, file[f"{name}/answers_{split}"]))
    return out


def evaluation(path: Path) -> list[Quantity]:
    file = read(path)
    entities, relations, dim = (int(x) for x in file["config"])
    state = under(file, "param/")
    model = model_of(state, entities=entities, relations=relations, dim=dim, gamma=float(file["gamma"]))
    params = jax.tree.map(jnp.asarray, from_published(model, state))
    queries = under(file, "queries/")
    limit = 5e-4 if model.name == "betae" else 1e-4
    method = query_method(model, tuple(queries), chunk=-(-entities // 3))
    batch = {name: {"query": jnp.asarray(rows)} for name, rows in queries.items()}
    logits = jax.jit(lambda p, b: method.predict({"params": p, "state": {}}, b))(params, batch)
    out, summaries = [], {}
    for name in queries:
        easy, hard = (jnp.asarray(file[f"{kind}/{name}"]) for kind in ("easy", "hard"))
        out.append(absolute(f"logit/{name}", logits[name], file[f"logit/{name}"], limit))
        ranks = filtered_ranks(jnp.asarray(file[f"logit/{name}"]), easy, hard, ties="optimistic")
        out.append(exact(f"rank/{name}", ranks, file[f"filtered_rank/{name}"]))
        ours = filtered_ranks(logits[name], easy, hard, ties="optimistic")
        clear = unambiguous(file[f"logit/{name}"], np.asarray(easy | hard), 2 * limit)
        out.append(
            exact(f"our rank/{name}", np.where(clear, ours, 0), np.where(clear, file[f"filtered_rank/{name}"], 0))
        )
        each = np.asarray(query_metrics(ranks, hard))
        out.append(absolute(f"per query/{name}", each, file[f"per_query/{name}"], 1e-7))
        summaries[name] = summarize(each, np.asarray(hard), name)
        out.append(absolute(f"metrics/{name}", np.array(summaries[name]), file[f"metrics/{name}"], 1e-7))
    average = averages(summaries)["average"]
    return [*out, absolute("average", np.array(average[:4]), file["metrics/average"], 1e-7)]


def unambiguous(logits, known, gap):
    """Where no entity that counts in the rank is within `gap`, so that rounding cannot move it."""
    apart = np.abs(logits[:, :, None] - logits[:, None, :]) > gap
    return (apart | known[:, None, :]).all(2)


CHECKERS = (
    ("gqe*.npz", base_model),
    ("q2b*.npz", base_model),
    ("betae*.npz", base_model),
    ("operators*.npz", operators),
    ("train_*.npz", trajectory),
    ("graph_queries*.npz", graph_queries),
    ("evaluation*.npz", evaluation),
)
