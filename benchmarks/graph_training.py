"""Full-graph training for the benchmarks: several epochs of training and evaluation as one compiled program.

An epoch is one Adam step on the training nodes with dropout, and one evaluation of all nodes without. A scan over
epochs hands the host what it needs to stop early and to score: log-probabilities of every node after every epoch. What
only depends on the graph (the order of its edges) is computed once per call.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from benchmarks.graph_data import Nodes
from jaxmodels.graphs import metrics
from jaxmodels.graphs.graph_method import graph_method
from jaxmodels.graphs.n2 import N2
from jaxmodels.graphs.peers import Peer

CHUNK = 10  # epochs per call


def module_of(method: str, outputs: int, config: dict[str, Any]) -> Any:
    """N2 or a peer from a configuration, whose 'lr' and 'decay' belong to the optimizer."""
    options = {key: value for key, value in config.items() if key not in ("lr", "decay")}
    return N2(outputs, linear_order=True, **options) if method == "n2" else Peer(method, outputs, **options)


def optimizer_of(config: dict[str, Any]) -> optax.GradientTransformation:
    """Adam with coupled L2, as PyTorch's `Adam(weight_decay=...)`."""
    adam = optax.scale_by_adam()
    return optax.chain(optax.add_decayed_weights(config["decay"]), adam, optax.scale(-config["lr"]))


def epochs_of(module: Any, optimizer: Any, length: int) -> tuple[Callable, Callable]:
    """(start, run): start(key, batch) -> carry; run(carry, batch) -> (carry, log-probabilities (length, N, c))."""
    method = graph_method(module)

    def start(key: jax.Array, batch: Any) -> Any:
        params = method.init(key, batch)["params"]
        return params, optimizer.init(params), key

    def run(carry: Any, batch: Any) -> tuple[Any, jax.Array]:
        def epoch(carry: Any, _: None) -> tuple[Any, jax.Array]:
            params, moments, key = carry
            key, used = jax.random.split(key)
            grads = jax.grad(lambda p: method.loss({"params": p, "state": {}}, batch, used)[0])(params)
            updates, moments = optimizer.update(grads, moments, params)
            params = optax.apply_updates(params, updates)
            return (params, moments, key), method.predict({"params": params, "state": {}}, batch)

        return jax.lax.scan(epoch, carry, None, length=length)

    return jax.jit(start), jax.jit(run, donate_argnums=0)


def ours(
    nodes: Nodes,
    method: str,
    config: dict[str, Any],
    *,
    split: int = 0,
    seed: int = 0,
    programs: dict | None = None,
) -> Callable[[], np.ndarray]:
    """A function that trains some epochs and returns the log-probabilities (epochs, N, c) after each.

    Args:
        nodes: data set.
        method: 'n2' or a peer.
        config: its configuration.
        split: whose training nodes count.
        seed: with the split, of parameters and dropout.
        programs: holds the compiled program of the last call for the next one.
    """
    programs = {} if programs is None else programs
    key = (nodes.data.x.shape, method, *sorted(config.items()))
    if key not in programs:
        programs.clear()  # one is enough, as runs of a configuration follow each other
        module = module_of(method, nodes.data.num_classes, config)
        programs[key] = epochs_of(module, optimizer_of(config), CHUNK)
    start, epochs = programs[key]
    batch = jax.device_put({**nodes.batch, "mask": nodes.masks(split)["train"]})
    held = [start(jax.random.key(1000 * seed + split), batch)]

    def run() -> np.ndarray:
        held[0], log_probs = epochs(held[0], batch)
        return np.asarray(log_probs)

    return run


def score(metric: str, labels: np.ndarray, log_probs: np.ndarray) -> float:
    """Accuracy or ROC-AUC, in percent."""
    value = metrics.roc_auc(labels, log_probs[:, 1]) if metric == "roc_auc" else metrics.accuracy(labels, log_probs)
    return 100 * value


class History:
    """Validation loss, validation and test score after every epoch."""

    def __init__(self, metric: str, labels: np.ndarray, val: np.ndarray, test: np.ndarray):
        self.metric, self.labels, self.val, self.test = metric, labels, val, test
        self.rows: list[tuple[float, float, float]] = []

    def add(self, log_probs: np.ndarray) -> None:
        """One epoch's log-probabilities (N, c)."""
        if not np.isfinite(log_probs[: len(self.labels)]).all():
            raise FloatingPointError(f"epoch {len(self.rows)}: found scores that are not finite")
        loss = -log_probs[self.val, self.labels[self.val]].mean()
        both = (score(self.metric, self.labels[part], log_probs[part]) for part in (self.val, self.test))
        self.rows.append((float(loss), *both))

    def waited(self) -> int:
        """Epochs since the best validation loss."""
        return len(self.rows) - 1 - int(np.argmin([row[0] for row in self.rows]))

    def summary(self) -> dict[str, float]:
        """Scores at the epoch of the best validation score, and at that of the best validation loss."""
        losses, vals, tests = (np.array(column) for column in zip(*self.rows, strict=True))
        by_score, by_loss = int(vals.argmax()), int(losses.argmin())
        return {
            "epochs": len(losses), "val": vals[by_score], "test": tests[by_score], "epoch": by_score,
            "loss": losses[by_loss], "val_by_loss": vals[by_loss], "test_by_loss": tests[by_loss],
            "epoch_by_loss": by_loss,
        }  # fmt: skip
