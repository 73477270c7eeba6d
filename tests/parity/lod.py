"""Checks of the fixtures of the reconstructed LoD (separate reference)."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.reasoning.adaption import Adaption, dot, mean_of, norm
from jaxmodels.reasoning.diffusion import (
    apply_operation,
    cooccurrence,
    diffusion_matrix,
    incidence,
    relation_histogram,
    surroundings,
    transition,
)
from jaxmodels.reasoning.graph import answers, build_graph
from jaxmodels.reasoning.lod import lod, logit_size
from jaxmodels.reasoning.method import Scored, query_method
from jaxmodels.reasoning.noise import noisy_triples
from jaxmodels.reasoning.query_model import from_published, scores
from jaxmodels.reasoning.robust_loss import Robust, per_query, weighted
from jaxmodels.reasoning.structures import width
from tests.parity import query_models
from tests.parity.compare import Quantity, absolute, exact, read, relative, under
from tests.parity.query_models import KEY, as_dtype, batch_of, model_of, published_gradient


def diffusion_file(path: Path) -> list[Quantity]:
    file = read(path)
    entities, relations = int(file["n_entity"]), int(file["n_relation"])
    graph = build_graph(file["edges"], entities=entities, relations=relations, inverses=False)
    outgoing = incidence(graph)
    counts = cooccurrence(outgoing)
    step = transition(counts, outgoing.any(0))
    out = [
        exact("incidence", outgoing, file["incidence"]),
        exact("cooccurrence", counts, file["cooccurrence"]),
        absolute("transition", step, file["transition"], 1e-10),
    ]
    for key, expected in under(file, "pi/").items():
        beta, hops = re.fullmatch(r"beta([\d.]+)_K(\d+)", key).groups()
        found = file["pi0"] @ diffusion_matrix(step, beta=float(beta), hops=int(hops))
        out.append(absolute(f"pi/{key}", found, expected, 1e-10))
    return out + operations(under(file, "ops/"), graph)


def operations(file, graph) -> list[Quantity]:
    """All attempts of one operation on one structure together."""
    near = surroundings(graph, beta=0.5, hops=2)
    total = len(file["op"])
    ok, names = np.zeros(total, bool), np.full(total, "", file["out_struct"].dtype)
    tokens, positive = np.full_like(file["out_tokens"], -9), np.full_like(file["out_positive"], -1)
    sets, weights = np.zeros_like(file["answers"]), np.zeros_like(file["pi"])
    witnessed = 0
    for operation, name in sorted({(str(o), str(s)) for o, s in zip(file["op"], file["in_struct"], strict=True)}):
        rows = np.flatnonzero((file["op"] == operation) & (file["in_struct"] == name))
        queries = file["in_tokens"][rows][:, : width(name)]
        weights[rows] = relation_histogram(name, queries, graph.relations) @ near.spread
        arguments = (queries, file["in_positive"][rows], file["u"][rows], file["tau"][rows])
        for made in apply_operation(near, operation, name, *arguments):
            at = rows[made.source]
            ok[at], names[at], positive[at] = True, made.name, made.positive
            tokens[at, : made.queries.shape[1]] = made.queries
            sets[at] = answers(graph, made.name, made.queries)
            witnessed += int(sets[at, made.positive].sum())
    return [
        exact("ok", ok, file["ok"]),
        exact("structures", names, file["out_struct"]),
        exact("tokens", tokens, file["out_tokens"]),
        exact("positives", positive, file["out_positive"]),
        exact("answers", sets, file["answers"]),
        exact("witnesses", witnessed, file["ok"].sum()),
        absolute("pi of the queries", weights, file["pi"], 1e-10),
    ]


def robust_file(path: Path) -> list[Quantity]:
    file = read(path)
    out = []
    with jax.enable_x64(True):
        scored = jnp.asarray(file["positive_logit"]), jnp.asarray(file["negative_logit"])
        for case in sorted({key.split("/")[0] for key in file if key.startswith("q")}):
            q, eps = (float(x) for x in re.fullmatch(r"q([\d.]+)_eps([\d.]+)", case).groups())
            robust = Robust(q=q, eps=eps)
            each = per_query(*scored, robust)
            weight = jnp.asarray(file["weight"])
            loss, grads = jax.value_and_grad(lambda s, r=robust, w=weight: weighted(per_query(*s, r), w).total)(scored)
            for name, found in (
                ("per_query_pos", each.positive),
                ("per_query_neg", each.negative),
                ("loss", loss),
                ("grad_positive_logit", grads[0]),
                ("grad_negative_logit", grads[1]),
            ):
                out.append(relative(f"{case} {name}", found, file[f"{case}/{name}"], 1e-6))
    return out


def noise_file(path: Path) -> list[Quantity]:
    file = read(path)
    out = []
    for key, expected in under(file, "noisy_eta").items():
        found = noisy_triples(file["train"], file["perm"], file["u"], eta=float(key), entities=int(file["n_entity"]))
        out.append(exact(f"eta {key}", found, expected))
    return out


def adaption_file(path: Path) -> list[Quantity]:
    file = read(path)
    q, eps, keep, alpha, low, high, gamma = (float(x) for x in file["hyper/q_eps_rho_alpha_lo_hi_gamma"])
    options = Adaption(keep=keep, alpha=alpha, low=low, high=high, reduce="mean")
    out = []
    with jax.enable_x64(True):
        for geometry in sorted({key.split("/")[0] for key in file} - {"hyper"}):
            case = under(file, f"{geometry}/")
            out += adaption_case(geometry, case, Robust(q=q, eps=eps), options, gamma)
    return out


def adaption_case(geometry, file, robust, options, gamma) -> list[Quantity]:
    entities, relations, dim, negatives = (int(x) for x in file["config"])
    state = under(file, "param/")
    model = model_of(state, entities=entities, relations=relations, dim=dim, gamma=gamma)
    params = jax.tree.map(lambda x: jnp.asarray(x, np.float64), from_published(model, state))
    names = tuple(str(name) for name in file["groups"])
    unseen = tuple(name for name, seen in zip(names, file["seen"], strict=True) if not seen)
    objectives = {
        "param": lod(adaption=options._replace(mode="param"), robust=robust),
        "logit": lod(adaption=options._replace(mode="logit"), robust=robust),
        "project": lod(diffused=unseen, adaption=Adaption(mode="project", reduce="mean"), robust=robust),
    }
    methods = {name: query_method(model, names, objective=each) for name, each in objectives.items()}
    states = {name: each.init(names) for name, each in objectives.items()}

    def loss(mode):
        return lambda p, s, b: methods[mode].loss({"params": p, "state": s}, b, KEY)

    def everything(params, states, batch):
        taken = {mode: jax.value_and_grad(loss(mode), has_aux=True)(params, states[mode], batch) for mode in methods}
        alone = [jax.grad(loss_of_group(model, robust))(params, name, batch[name]) for name in names]
        seen, other = (
            mean_of([g for n, g in zip(names, alone, strict=True) if (n in unseen) is b]) for b in (False, True)
        )
        sizes = logit_sizes(model, params, names, batch, robust)
        return (taken, [norm(g) for g in alone], dot(seen, other), dot(seen, seen)), sizes

    steps = sorted({int(m[1]) for key in file if (m := re.match(r"step(\d+)/", key))})
    program, out = None, []
    for i in steps:
        stored = under(file, f"step{i}/")
        batch = as_dtype(batch_of({**stored, "groups": file["groups"]}), np.float64)
        out.append(exact(f"{geometry}{i} negatives", batch[names[0]]["negative"].shape[1], negatives))
        program = program or jax.jit(everything)
        (taken, sizes, product, square), scored = program(params, states, batch)
        states = {mode: aux.state for mode, ((_, aux), _) in taken.items()}
        out += adaption_step(f"{geometry}{i}", stored, model, params, taken, names, batch)
        out += [
            relative(f"{geometry}{i} sizes", np.stack(sizes), stored["grad_norm_param"], 1e-6),
            relative(f"{geometry}{i} proj_dot", product, stored["proj_dot"], 1e-6),
            relative(f"{geometry}{i} proj_seen_sq", square, stored["proj_seen_sq"], 1e-6),
        ]
        out += [
            relative(f"{geometry}{i} group losses", scored[0], stored["group_loss"], 1e-6),
            relative(f"{geometry}{i} logit sizes", scored[1], stored["grad_norm_logit"], 1e-6),
        ]
    return out


def loss_of_group(model, robust):
    def loss(params, name, rows):
        return weighted(per_query(*scored_rows(model, params, name, rows), robust), rows["weight"]).total

    return loss


def scored_rows(model, params, name, rows):
    ids = jnp.concatenate([rows["positive"][:, None], rows["negative"]], 1)
    both = scores(model, params, name, rows["query"], ids)
    return Scored(both[:, :1], both[:, 1:])


def adaption_step(label, stored, model, params, taken, names, batch) -> list[Quantity]:
    out = []
    for mode in ("param", "logit"):
        (value, aux), grads = taken[mode]
        # The method's size of a group in logit mode has a factor sqrt(n) that the stored one lacks.
        scale = np.array([len(batch[name]["query"]) ** 0.5 if mode == "logit" else 1.0 for name in names])
        sizes = np.array([aux.state["groups"][name].size for name in names]) / scale
        out.append(relative(f"{label} ema_{mode}", sizes, stored[f"ema_{mode}"], 1e-6))
        if len(set(scale)) == 1:  # else the factor does not cancel
            weight = np.array([aux.metrics[f"lambda/{name}"].total for name in names])
            out.append(relative(f"{label} lambda_{mode}", weight, stored[f"lambda_{mode}"], 1e-6))
        if mode == "param":
            out.append(relative(f"{label} total", value, stored["total_norm"], 1e-6))
            out += published_close(f"{label} norm", model, params, grads, under(stored, "grad_norm_mode/"))
    (_, _), grads = taken["project"]
    return out + published_close(f"{label} project", model, params, grads, under(stored, "grad_project_mode/"))


def published_close(label, model, params, grads, expected) -> list[Quantity]:
    found = published_gradient(model, params, grads)
    out = [exact(f"{label} names", sorted(found), sorted(expected))]
    return out + [absolute(f"{label} {key}", found[key], expected[key], 1e-6) for key in sorted(expected)]


def logit_sizes(model, params, names, batch, robust):
    """Group losses, and sizes over scores without the factor sqrt(n)."""
    losses, sizes = [], []
    for name in names:
        found = scored_rows(model, params, name, batch[name])

        def loss(found, name=name):
            return weighted(per_query(*found, robust), batch[name]["weight"]).total

        losses.append(loss(found))
        sizes.append(logit_size(found, loss) / len(found.positive) ** 0.5)
    return jnp.stack(losses), jnp.stack(sizes)


CHECKERS = (
    *query_models.CHECKERS,
    ("lod_diffusion*.npz", diffusion_file),
    ("lod_loss*.npz", robust_file),
    ("lod_noise*.npz", noise_file),
    ("lod_adaption*.npz", adaption_file),
)
