"""Fixtures of N2's parts: proximity, communicator, one step, encoders, metrics and losses."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.graphs import losses, metrics
from jaxmodels.graphs.adjacency import Adjacency
from jaxmodels.graphs.blocks import Blocks
from jaxmodels.graphs.encoders import RRWP, LapPE, sign_of
from jaxmodels.graphs.links import link_scores
from jaxmodels.graphs.n2_names import DEAD, communicator_rows, step_rows
from jaxmodels.graphs.n2_step import Communicator, Layout, State, Step
from jaxmodels.graphs.proximity import proximity
from jaxmodels.graphs.schedule import warmup_power
from jaxmodels.graphs.splits import quantile_labels, random_split
from jaxmodels.weights import names
from tests.parity.compare import Quantity, exact, read, relative, relative_all, under
from tests.quick import quick

# The notes' tolerances: outputs rtol and atol, gradients relative to their largest entry; everything in float64.

RTOL, ATOL, GRAD, CLIPPED, WIDE = 1e-4, 1e-5, 1e-3, 1e-2, 1e-9


def is_wide(g):
    return any(value.dtype == np.float64 and value.ndim > 1 for value in g.values())


def close(name, found, expected, wide=False) -> Quantity:
    """Worst deviation in units of atol + rtol |expected|; in float64, 1e-9.

    Values beyond 1e3 only come from clipped rows; they reach 1e6 and cancel, so a few units of float32 resolution of
    the largest entry belong to atol there. The fixture itself is no more exact, as float64 arithmetic shows.
    """
    if wide:
        return relative(name, found, expected, WIDE, floor=1.0)
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return Quantity(f"{name}: {found.shape} for {expected.shape}", float("nan"), 1.0)
    largest = np.abs(expected).max(initial=0.0)
    resolution = 8 * np.finfo(np.float32).eps * largest if largest > 1e3 else 0.0
    error = np.abs(found.astype(np.float64) - expected) / (ATOL + resolution + RTOL * np.abs(expected))
    return Quantity(name, float(error.max(initial=0.0)), 1.0)


def worst(name, quantities):
    """The one of many quantities of the same limit that deviates most, under its own name."""
    found = max(quantities, key=lambda q: float("inf") if np.isnan(q.error) else q.error)
    return found._replace(name=f"{name} ({found.name})")


def pulled(function, arguments, cotangent):
    """Output and the gradients of sum(output * cotangent), for trees."""

    @quick
    def run(arguments, cotangent):
        out, pullback = jax.vjp(function, *arguments)
        return out, pullback(cotangent)

    return run(arguments, jax.tree.map(jnp.asarray, cotangent))


def path_integral(path: Path) -> list[Quantity]:
    """psi in every combination of pieces."""
    g, found = read(path), []
    for case in sorted({key.split("/")[0] for key in g}):
        held = under(g, f"{case}/")
        out, (to_weights, to_a, to_b) = pulled(
            lambda weights, a, b, shape=held["out"].shape: _with_batch(weights, a, b).reshape(shape),
            (held["lambda"].reshape(-1), held["a"], held["b"]),
            held["cotangent"],
        )
        limit = CLIPPED if "clip" in case else GRAD
        found += [
            close(f"{case} out", out, held["out"]),
            close(f"{case} row sum", np.abs(np.asarray(out).sum(-1)).max(), held["abs_row_sum_max"]),
            relative(f"{case} grad lambda", to_weights.reshape(-1, 1, 1), held["grad_lambda"], limit),
            relative(f"{case} grad a", to_a, held["grad_a"], limit),
            relative(f"{case} grad b", to_b, held["grad_b"], limit),
        ]
    return found


def _with_batch(weights, a, b):
    """Both sides with a batch axis; a parameter has none. In the files pieces come before nodes."""
    a, b = (x if x.ndim == 4 else x[None] for x in (a, b))
    size = max(len(a), len(b))
    return proximity(weights, *(jnp.broadcast_to(x, (size, *x.shape[1:])).swapaxes(1, 2) for x in (a, b)))


def template(module, *arguments):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments))["params"]


def communicator(path: Path) -> list[Quantity]:
    """Pseudo nodes among themselves, from one piece and from k."""
    g, found = read(path), []
    theirs, table = under(g, "param/"), communicator_rows()
    for case in sorted({key.split("/")[0] for key in g} - {"param"}):
        held = under(g, f"{case}/")
        module = Communicator(theirs["pnode_agg.lambda_copies"].size, theirs["glob2value.0.bias"].size)
        state, shape = jnp.asarray(held["state"]), (*held["glob"].shape[:1], -1, *held["state"].shape[-2:])

        def apply(params, state, glob, module=module, shape=shape):
            state = state if state.ndim == 4 else state[None]
            pseudo = jnp.broadcast_to(state, (shape[0], *state.shape[1:])).swapaxes(1, 2)
            moved, value = module.apply({"params": params}, pseudo, glob)
            return moved.swapaxes(1, 2), value

        pseudo = jnp.zeros((shape[0], shape[2], state.shape[-3] if state.ndim == 4 else 1, shape[3]))
        params = names.read(theirs, table, template(module, pseudo, jnp.asarray(held["glob"])))
        cotangent = (held["cot_displacement"], held["cot_value"])
        (moved, value), (grads, to_state, to_glob) = pulled(apply, (params, state, held["glob"]), cotangent)
        found += [
            close(f"{case} displacement", moved, held["displacement"]),
            close(f"{case} value", value, held["value"]),
            relative(f"{case} grad state", to_state, held["grad_state"], GRAD),
            relative(f"{case} grad glob", to_glob, held["grad_glob"], GRAD),
            relative_all(f"{case} grad", names.write(grads, table), under(held, "grad/"), GRAD),
        ]
    return found


def _turned(state: State) -> State:
    """Pieces before pseudo nodes, as in the files, or back."""
    return state._replace(pseudo=state.pseudo.swapaxes(1, 2))


def subsystem(path: Path) -> list[Quantity]:
    """One recurrent step from given states."""
    g = read(path)
    state = _turned(State(*(jnp.asarray(g[f"in/{name}"]) for name in ("node_state", "features", "pnode_state"))))
    graphs, size, _ = state.nodes.shape
    mask = jnp.asarray(g["in/mask"], state.nodes.dtype)
    blocks = Blocks(jnp.arange(graphs * size), jnp.arange(graphs), mask, mask.sum((1, 2)))
    receivers, senders = jnp.asarray(g["in/edge_index"])
    weights = jnp.asarray(g["in/edge_weight"])
    layout = Layout(blocks, Adjacency(senders, receivers, weights, jnp.zeros(graphs * size, weights.dtype)))
    theirs = under(g, "param/")
    normed = any("_norm." in key and f"grad/{key}" in g for key in theirs)
    module = Step(pieces=state.pseudo.shape[2], norm=normed)
    table = [row for row in step_rows("", "") if row.theirs in theirs and (normed or "norm_" not in row.ours[0])]
    params = names.read(
        theirs, table, template(module, state, layout), drop=(*DEAD, *(() if normed else (".*_norm.*",)))
    )
    cotangent = _turned(State(*(g[f"cot/{name}"] for name in ("node_state", "features", "pnode_state"))))
    out, (grads, to_state) = pulled(
        lambda params, state: module.apply({"params": params}, state, layout), (params, state), cotangent
    )
    found = [relative_all("grad", names.write(grads, table), under(g, "grad/"), GRAD)]
    out, to_state = _turned(out), _turned(to_state)
    for name, value, grad in zip(("node_state", "features", "pnode_state"), out, to_state, strict=True):
        found.append(close(f"out {name}", value, g[f"out/{name}"]))
        found.append(relative(f"grad {name}", grad, g[f"grad_in/{name}"], GRAD))
    return found


def encoders(path: Path) -> list[Quantity]:
    """LapPE, as in evaluation and with given signs, and RRWP."""
    g = read(path)
    theirs = under(g, "lap/param/")
    nodes = {key: jnp.asarray(g[f"lap/{key}"]) for key in ("x", "eigvecs", "eigvals")}
    second = next(key for key in theirs if key.startswith("pe_encoder.")).rsplit(".", 1)[0]
    params = {
        ours: {"kernel": jnp.asarray(theirs[f"{name}.weight"].T), "bias": jnp.asarray(theirs[f"{name}.bias"])}
        for ours, name in (("first", "linear_A"), ("second", second))
    }
    hidden, features = (params[name]["bias"].size for name in ("first", "second"))
    module = LapPE(features=features, hidden=hidden)

    def given(call, arguments, keywords, context):
        signs = context.method_name == "signs"
        return sign_of(jnp.asarray(g["lap/uniform"])) if signs else call(*arguments, **keywords)

    found = [close("lap eval", module.apply({"params": params}, nodes), g["lap/out_eval"])]
    with nn.intercept_methods(given):
        out = module.apply({"params": params}, nodes, rngs={"sign": jax.random.key(0)})
    rrwp = {"x": jnp.asarray(g["rrwp/x"]), "rrwp": jnp.asarray(g["rrwp/rrwp"])}
    added = RRWP().apply({"params": {"linear": {"kernel": jnp.asarray(g["rrwp/weight"].T)}}}, rrwp)
    return [*found, close("lap train", out, g["lap/out_train"]), close("rrwp", added, g["rrwp/out"])]


def scores(path: Path) -> list[Quantity]:
    """Metrics, losses with gradients, learning rates, labels by quantile, the random split, links."""
    g = read(path)
    values = {
        "acc/value": metrics.accuracy(g["acc/y"], g["acc/out"]),
        "auc2/value": metrics.roc_auc(g["auc2/y"], g["auc2/logprob"]),
        "auc1_ties/value": metrics.roc_auc(g["auc1_ties/y"], g["auc1_ties/score"]),
        "auc_multi/value": metrics.roc_auc(g["auc_multi/y"], g["auc_multi/score"]),
        "ap/micro_flattened_official": metrics.average_precision(g["ap/y"], g["ap/score"], average="micro"),
        "ap/macro_over_tasks_ogb": metrics.average_precision(g["ap/y"], g["ap/score"]),
        "ap/per_task_valid": np.array(_per_task(g["ap/y"], g["ap/score"])),
        "sbm/value_percent": 100 * metrics.balanced_accuracy(g["sbm/y"], g["sbm/out"]),
        "f1/macro": metrics.f1(g["sbm/y"], g["sbm/out"]),
        "f1/micro": metrics.f1(g["sbm/y"], g["sbm/out"], average="micro"),
    }
    found = [close(name, value, g[name]) for name, value in values.items()]
    single, binary = (
        lambda x, y, kind: losses.nll(x, y, jnp.ones(y.shape, bool), kind=kind),
        lambda x, y, kind: losses.bce(x, y.astype(x.dtype), jnp.ones(y.shape, bool), kind=kind),
    )
    for name, function, kind in (
        ("focal", single, "focal"), ("wce", single, "weighted"), ("wce_bin", binary, "weighted"),
        ("bce", binary, "plain"),
    ):  # fmt: skip
        x, y = jnp.asarray(g[f"{name}/{'logprob' if function is single else 'logit'}"]), jnp.asarray(g[f"{name}/y"])

        def loss(x, y=y, function=function, kind=kind):
            entries, weights = function(x, y, kind)
            return (entries * weights).sum() / weights.sum()

        value, grad = quick(jax.value_and_grad(loss))(x)
        found += [close(name, value, g[f"{name}/value"]), relative(f"{name} grad", grad, g[f"{name}/grad"], GRAD)]
    for name in sorted(key for key in g if key.startswith("lr/") and key.count("/") == 1):
        epochs, nbatch, floor, decay = (float(x) for x in g[f"{name}/warmup_nbatch_lb_step"])
        schedule = warmup_power(1.0, warmup=round(epochs * nbatch), decay=decay, floor=floor)
        found.append(close(name, jax.vmap(schedule)(jnp.arange(len(g[name]))), g[name]))
    for key in (key for key in g if key.startswith("quantile/labels")):
        found.append(exact(key, quantile_labels(g["quantile/vals"], int(key.removeprefix("quantile/labels"))), g[key]))
    for name, mask in zip(("train", "val", "test"), random_split(g["split/perm"]), strict=True):
        found.append(exact(f"split {name}", mask, g[f"split/{name}"]))
    for kind, name in (("dot", "link-scale-dot"), ("cosine", "link-cosine")):
        found.append(close(name, link_scores(jnp.asarray(g["link/in"]), kind), g[f"link/{name}"]))
    return found


def _per_task(labels, scores):
    both = [t for t, y in enumerate(labels.T) if {0.0, 1.0} <= set(y[~np.isnan(y)])]
    return [metrics.average_precision(labels[:, t], scores[:, t]) for t in both]


CHECKERS = (
    ("*encoders*.npz", encoders),
    ("*metrics*.npz", scores),
    ("*path_integral*.npz", path_integral),
    ("*communicator*.npz", communicator),
    ("*subsystem*.npz", subsystem),
)
