"""Fixtures of N2: whole models, ablations and dropout."""

import functools
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.graphs.adjacency import symmetric
from jaxmodels.graphs.graph import batch_graphs, make_graph
from jaxmodels.graphs.graph_method import graph_method
from jaxmodels.graphs.layers import Dropout
from jaxmodels.graphs.n2 import N2
from jaxmodels.graphs.n2_names import from_official, rows
from jaxmodels.graphs.proximity import diffuse
from jaxmodels.weights import names

# The notes' tolerances: outputs rtol and atol, gradients relative to their largest entry; everything in float64.
from tests.parity import n2_parts
from tests.parity.compare import Quantity, exact, read, relative, relative_all, under
from tests.parity.n2_parts import CLIPPED, GRAD, WIDE, close, is_wide, template, worst
from tests.quick import quick


class Case:
    """A model file: its module, parameters and batch."""

    def __init__(self, g, wide=None):
        self.g, self.wide = g, is_wide(g) if wide is None else wide
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
    found = edges(case) + (clipped_steps(case) if "clip" in path.name else steps(case))
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
            f"step{t}/out.pnode_state": state.pseudo.swapaxes(1, 2),  # in the files pieces come first
        }
        for agg, name in (("pnode_agg1", "refine1"), ("pnode_agg2", "refine2")):
            moved, value = kept[name]["__call__"][0]
            compared |= {f"step{t}/{agg}.displacement": moved.swapaxes(1, 2), f"step{t}/{agg}.value": value}
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


def clipped_steps(case):
    """Steps with rows that cancel, which multiplies rounding: in float64 too, where only the file's is left."""
    g = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in case.g.items()}
    with jax.enable_x64(True):
        exactly = [q._replace(name=f"float64 {q.name}") for q in steps(Case(g, wide=case.wide))]
    return exactly + steps(case)


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


CHECKERS = (
    *n2_parts.CHECKERS,
    ("*variants*.npz", variants),
    ("*dropout*.npz", dropout),
    ("node_*.npz", model),
    ("graph_*.npz", model),
)
