"""Fixtures of N2: proximity, communicator, one step, whole models, ablations, encoders, metrics and losses."""

import functools
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.graphs import losses, metrics
from jaxmodels.graphs.adjacency import Adjacency, symmetric
from jaxmodels.graphs.blocks import Blocks
from jaxmodels.graphs.encoders import RRWP, LapPE, sign_of
from jaxmodels.graphs.graph import batch_graphs, make_graph
from jaxmodels.graphs.graph_method import graph_method
from jaxmodels.graphs.layers import Dropout
from jaxmodels.graphs.links import link_scores
from jaxmodels.graphs.n2 import N2
from jaxmodels.graphs.n2_names import DEAD, communicator_rows, from_official, rows, step_rows
from jaxmodels.graphs.n2_step import Communicator, Layout, State, Step
from jaxmodels.graphs.proximity import diffuse, proximity
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
    """Both sides with a batch axis; a parameter has none."""
    a, b = (x if x.ndim == 4 else x[None] for x in (a, b))
    size = max(len(a), len(b))
    return proximity(weights, *(jnp.broadcast_to(x, (size, *x.shape[1:])) for x in (a, b)))


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
            pseudo = jnp.broadcast_to(state, (shape[0], *state.shape[1:]))
            return module.apply({"params": params}, pseudo, glob)

        pseudo = jnp.zeros((shape[0], state.shape[-3] if state.ndim == 4 else 1, *shape[2:]))
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


def subsystem(path: Path) -> list[Quantity]:
    """One recurrent step from given states."""
    g = read(path)
    state = State(*(jnp.asarray(g[f"in/{name}"]) for name in ("node_state", "features", "pnode_state")))
    graphs, size, _ = state.nodes.shape
    mask = jnp.asarray(g["in/mask"], state.nodes.dtype)
    blocks = Blocks(jnp.arange(graphs * size), jnp.arange(graphs), mask, mask.sum((1, 2)))
    receivers, senders = jnp.asarray(g["in/edge_index"])
    weights = jnp.asarray(g["in/edge_weight"])
    layout = Layout(blocks, Adjacency(senders, receivers, weights, jnp.zeros(graphs * size, weights.dtype)))
    theirs = under(g, "param/")
    normed = any("_norm." in key and f"grad/{key}" in g for key in theirs)
    module = Step(pieces=state.pseudo.shape[1], norm=normed)
    table = [row for row in step_rows("", "") if row.theirs in theirs and (normed or "norm_" not in row.ours[0])]
    params = names.read(
        theirs, table, template(module, state, layout), drop=(*DEAD, *(() if normed else (".*_norm.*",)))
    )
    cotangent = State(*(g[f"cot/{name}"] for name in ("node_state", "features", "pnode_state")))
    out, (grads, to_state) = pulled(
        lambda params, state: module.apply({"params": params}, state, layout), (params, state), cotangent
    )
    found = [relative_all("grad", names.write(grads, table), under(g, "grad/"), GRAD)]
    for name, value, grad in zip(("node_state", "features", "pnode_state"), out, to_state, strict=True):
        found.append(close(f"out {name}", value, g[f"out/{name}"]))
        found.append(relative(f"grad {name}", grad, g[f"grad_in/{name}"], GRAD))
    return found


class Case:
    """A model file: its module, parameters and batch."""

    def __init__(self, g):
        self.g, self.wide = g, is_wide(g)
        c = {key: value.item() for key, value in under(g, "cfg/").items()}
        self.level, self.sizes = c["kind"], [int(n) for n in np.atleast_1d(g["in/num_nodes"])]
        self.task = {"single-class": "single", "multi-class": "multilabel", "binary-class": "binary"}[c["task_type"]]
        theirs = under(g, "param/")
        self.module = N2(
            outputs=c["nclass"], level=self.level, steps=c["T"], width=c["d_model"], state_width=c["q_dim"],
            pieces=c["n_q"], pseudo_nodes=c["n_pnode"], class_pieces=theirs["class_neuron"].shape[0],
            dropout=c.get("dropout", 0.0), block=max(self.sizes),
        )  # fmt: skip
        self.batch = self._batch()
        self.rows = sum(self.sizes) if self.level == "node" else len(self.sizes)
        shapes = template(self.module, self.batch["graph"])
        # Flax makes float32 parameters whatever the precision; a float64 file is compared in float64.
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, g["in/x"].dtype), shapes)
        self.params = jax.tree.map(jnp.asarray, from_official(theirs, shapes, level=self.level))

    def _batch(self):
        g, starts = self.g, np.cumsum([0, *self.sizes])
        receivers, senders = g["in/edge_index"]
        graphs = []
        for start, end in zip(starts[:-1], starts[1:], strict=True):
            own = (receivers >= start) & (receivers < end)
            edges = g["in/edge_attr"][own] if "in/edge_attr" in g else None
            graphs.append(make_graph(g["in/x"][start:end], senders[own] - start, receivers[own] - start, edges=edges))
        graph = batch_graphs(graphs)
        total = len(graph.nodes) if self.level == "node" else len(graph.n_node)
        batch = {"graph": graph, "label": padded(g["in/y"], total)}
        return batch | ({"mask": padded(g["in/mask"], total)} if "in/mask" in g else {})

    def loss(self, params, nodes, forward=None):
        """(loss, predictions of real rows), from one forward pass."""
        method = graph_method(Kept(self.module, forward), task=self.task, level=self.level)
        batch = {**self.batch, "graph": self.batch["graph"]._replace(nodes=nodes)}
        variables = {"params": params, "state": {}}
        value, _ = method.loss(variables, batch, jax.random.key(0))
        return value, method.predict(variables, batch)[: self.rows]

    def compare(self, out, loss, grads, to_x, limit=None):
        """Outputs, loss and gradients against the file's."""
        g, limit = self.g, limit or (WIDE if self.wide else GRAD)
        theirs = names.write(grads, rows(self.level))
        held = under(g, "grad/")
        silent = [name for name in theirs if name in g["unused_params"]]
        return [
            close("out", out, g["out"], self.wide),
            close("loss", loss, g["loss"], self.wide),
            relative_all("grad", {k: v for k, v in theirs.items() if k not in silent}, held, limit, 1e-7),
            exact("no grad", [np.abs(theirs[name]).max() for name in silent], [0.0] * len(silent)),
            relative("grad x", to_x[: len(g["in/x"])], g["grad_in/x"], limit),
        ]


class Kept:
    """A module that gives its first outputs again, so that loss and predictions compile as one forward pass."""

    def __init__(self, module, forward=None):
        self.module, self.forward, self.raw = module, forward, None

    def apply(self, variables, graph, rngs=None):
        if self.raw is None:
            self.raw = self.module.apply(variables, graph, rngs=rngs, method=self.forward)
        return self.raw


def padded(x, total):
    """Rows of 0 appended up to `total`."""
    return np.concatenate([x, np.zeros((total - len(x), *x.shape[1:]), x.dtype)])


def in_precision(checker):
    """Runs the checker in float64 where the file is."""

    def run(path: Path) -> list[Quantity]:
        g = read(path)
        with jax.enable_x64(is_wide(g)):
            return checker(path, g)

    return run


@in_precision
def model(path: Path, g) -> list[Quantity]:
    """A whole model: normalised edges, every step, outputs, loss, gradients, training."""
    case = Case(g)
    limit = CLIPPED if "clip" in path.name and not case.wide else None
    found = edges(case) + steps(case)
    nodes = jnp.asarray(case.batch["graph"].nodes)
    gradient = quick(jax.value_and_grad(case.loss, (0, 1), has_aux=True))
    (loss, out), (grads, to_x) = gradient(case.params, nodes)
    found += case.compare(out, loss, grads, to_x, limit)
    return found + (train(case, gradient) if "train/losses" in g else [])


def edges(case):
    """Edges with the missing self loops and their weights, in the padded numbering of the file."""
    if "edge_index_norm" not in case.g:
        return []
    graph, adjacency = case.batch["graph"], symmetric(case.batch["graph"])
    real, size = sum(case.sizes), max(case.sizes)
    number = np.concatenate([np.arange(n) + i * size for i, n in enumerate(case.sizes)])
    kept = np.asarray(graph.receivers) < real
    loops = np.asarray(adjacency.loops)[:real]
    receivers = np.concatenate([number[graph.receivers[kept]], number[loops > 0]])
    senders = np.concatenate([number[graph.senders[kept]], number[loops > 0]])
    weights = np.concatenate([np.asarray(adjacency.weights)[kept], loops[loops > 0]])
    theirs, held = case.g["edge_index_norm"], case.g["edge_weight_norm"]
    order, expected = np.lexsort((weights, senders, receivers)), np.lexsort((held, theirs[1], theirs[0]))
    return [
        exact("edges", np.stack([receivers, senders])[:, order], theirs[:, expected]),
        close("edge weights", weights[order], held[expected], case.wide),
    ]


def steps(case):
    """Everything the file holds of every step."""
    g, found = case.g, []
    if not under(g, "step0/"):
        return []
    graphs, size = len(case.sizes), max(case.sizes)
    module = case.module.clone(shared=True)

    @quick
    def start(params, graph):
        return module.apply({"params": params}, graph, method="encode")

    @quick
    def move(params, state, layout):
        bound = {"params": params}
        return module.apply(bound, state, layout, method="advance", capture_intermediates=True, mutable="intermediates")

    state, layout = start(case.params, case.batch["graph"])
    compared = {"step0/in.node_state": state.nodes, "step0/in.features": state.messages}
    for t in range(case.module.steps):
        state, kept = move(case.params, state, layout)
        kept = kept["intermediates"]["step"]
        compared |= {
            f"step{t}/collection1": kept["diffuse1_matrix"][0].mT,
            f"step{t}/inspection": kept["inspect_matrix"][0],
            f"step{t}/collection2": kept["diffuse2_matrix"][0].mT,
            f"step{t}/dispatch": kept["dispatch_matrix"][0],
            f"step{t}/hstate_interface": kept["state_update"]["__call__"][0],
            f"step{t}/feat_ff": kept["message_update"]["__call__"][0],
            f"step{t}/out.node_state": state.nodes,
            f"step{t}/out.features": state.messages,
            f"step{t}/out.pnode_state": state.pseudo,
        }
        for agg, name in (("pnode_agg1", "refine1"), ("pnode_agg2", "refine2")):
            moved, value = kept[name]["__call__"][0]
            compared |= {f"step{t}/{agg}.displacement": moved, f"step{t}/{agg}.value": value}
    held = {key: value for key, value in g.items() if key.startswith("step")}
    if set(held) != set(compared):
        return [Quantity(f"steps: keys differ: {sorted(set(held) ^ set(compared))[:3]}", float("nan"), 0.0)]
    for key, value in compared.items():
        value = value[:graphs]
        if not any(name in key for name in ("pnode_agg", "pnode_state")):
            value = value[:, :size]  # (blocks, nodes, ...)
        value = value.mT if "collection" in key else value
        found.append(close(key, value, held[key], case.wide))
    return [worst(f"{len(found)} step arrays", found)]


def train(case, gradient):
    """Full-batch Adam with coupled L2; `gradient` is compiled already, and only the update is new."""
    g, nodes = case.g, jnp.asarray(case.batch["graph"].nodes)
    decay, rate = float(g["train/weight_decay"]), float(g["train/lr"])
    optimizer = optax.chain(optax.add_decayed_weights(decay), optax.scale_by_adam(), optax.scale(-rate))

    @quick
    def move(params, moments, grads):
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments

    params, moments, losses = case.params, optimizer.init(case.params), []
    for _ in g["train/losses"]:
        (loss, _), (grads, _) = gradient(params, nodes)
        params, moments = move(params, moments, grads)
        losses.append(float(loss))
    after, held = names.write(params, rows(case.level)), under(g, "train/param_after/")
    dead = sorted(set(held) - set(after))
    found = []
    for name, value in after.items():
        # Where the gradient is nearly 0 Adam's direction is rounding noise.
        limit = np.where(np.abs(g[f"grad/{name}"]) < 1e-6, 2e-3, 1e-5) if f"grad/{name}" in g else 2e-3
        error = np.abs(value.astype(np.float64) - held[name]) / limit
        found.append(Quantity(name, float(error.max()), 1.0))
    return [
        close("train losses", losses, g["train/losses"]),
        worst("train params", found),
        exact("dead", [np.abs(held[k] - g[f"param/{k}"]).max() for k in dead], [0.0] * len(dead)),
    ]


@contextmanager
def dropout_masks(masks):
    """Every `Dropout` multiplies by the next of these arrays, grown by ones to the layout's size."""
    queue = list(masks)

    def intercept(call, arguments, keywords, context):
        if not isinstance(context.module, Dropout):
            return call(*arguments, **keywords)
        (x,), mask = arguments, queue.pop(0)
        grown = np.pad(mask, [(0, a - b) for a, b in zip(x.shape, mask.shape, strict=True)], constant_values=1.0)
        return x * jnp.asarray(grown)

    with nn.intercept_methods(intercept):
        yield
    if queue:
        raise ValueError(f"{len(queue)} dropout masks were left over")


@in_precision
def dropout(path: Path, g) -> list[Quantity]:
    """Training mode with the file's masks."""
    case = Case(g)
    masks = [g[key] for key in sorted(key for key in g if key.startswith("dropmask/"))]

    def looped(module, graph):
        state, layout = module.encode(graph)
        for _ in range(module.steps):
            state = module.advance(state, layout)
        return module.decode(state, layout)

    @quick
    def run(params, nodes):
        with dropout_masks(masks):
            return jax.value_and_grad(functools.partial(case.loss, forward=looped), (0, 1), has_aux=True)(params, nodes)

    (loss, out), (grads, to_x) = run(case.params, jnp.asarray(case.batch["graph"].nodes))
    return case.compare(out, loss, grads, to_x)


VARIANTS = {
    "uniform": dict(pathway="uniform"), "attention": dict(pathway="attention"), "wo_pa": dict(adaptation=False),
    "wo_local": dict(local=False), "wo_global": dict(exchange=False),
}  # fmt: skip


def variants(path: Path) -> list[Quantity]:
    """Ablations on the model of another file of the folder, of the same level and in float64."""
    g, found = read(path), []
    level = "graph" if "graph" in path.name else "node"
    names_of_model = {"graph": "graph_single_class*f64.npz", "node": "node_undirected*f64.npz"}
    base = read(sorted(path.parent.glob(names_of_model[level]))[0])
    with jax.enable_x64(True):
        for name in sorted({key.split("/")[0] for key in g}):
            found += _variant(name, base, under(g, f"{name}/"))
    return found


@contextmanager
def padding_counts(graphs):
    """Empty slots of each graph's block count as nodes in softmax and mean over nodes, as in the files.

    There the last axis is the padded number of nodes, so a graph's result depends on the largest graph beside it. The
    library leaves padding out; here it is told that the slots are nodes, and runs as it is.
    """

    def padded(weights, pseudo, states, blocks, **options):
        count, size, _ = blocks.mask.shape
        if graphs > 1:
            real = (jnp.arange(count) < graphs)[:, None, None]
            mask = jnp.broadcast_to(real, blocks.mask.shape).astype(blocks.mask.dtype)
            blocks = blocks._replace(mask=mask, nodes=jnp.full_like(blocks.nodes, size))
        return diffuse(weights, pseudo, states, blocks, **options)

    with mock.patch("jaxmodels.graphs.n2_step.diffuse", padded):
        yield


def _variant(name, base, held):
    case = Case(base)  # all parameters; those that the ablation leaves out are never read
    case.module = case.module.clone(**VARIANTS[name])
    nodes = jnp.asarray(case.batch["graph"].nodes)
    with padding_counts(len(case.sizes)):
        (loss, out), (grads, to_x) = quick(jax.value_and_grad(case.loss, (0, 1), has_aux=True))(case.params, nodes)
    expected = under(held, "grad/")
    theirs = {key: value for key, value in names.write(grads, rows(case.level)).items() if key in expected}
    return [
        close(f"{name} out", out, held["out"], True),
        close(f"{name} loss", loss, held["loss"], True),
        relative_all(f"{name} grad", theirs, expected, WIDE),
        relative(f"{name} grad x", to_x[: len(base["in/x"])], held["grad_in/x"], WIDE),
    ]


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
    ("*variants*.npz", variants),
    ("*dropout*.npz", dropout),
    ("node_*.npz", model),
    ("graph_*.npz", model),
)
