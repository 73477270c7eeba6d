"""TrainState and the train step: one pure function for every method."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels.method import Batch, Mean, Method, StepBatch
from jaxmodels.rules import Rules, label, merge, split
from jaxmodels.training.mesh import Placement, replicated, rows


class TrainState(NamedTuple):
    """Everything that changes while training, and nothing that does not.

    Attributes:
        step: number of optimizer steps done.
        trained: the trained half of the parameters (None where a leaf is frozen).
        opt_state: of the optimizer, over trained leaves only.
        state: the method's state.
        ema: moving average of `trained`, or None.
        key: data of the run's random key; step i uses fold_in(key, i).
    """

    step: jax.Array
    trained: Any
    opt_state: Any
    state: Any
    ema: Any
    key: jax.Array


StepFunction = Callable[[TrainState, Any, StepBatch], tuple[TrainState, dict[str, Mean]]]


def begin(
    method: Method, optimizer: optax.GradientTransformation, variables: Any, *, seed: int, ema: float | None = None
) -> tuple[TrainState, Any]:
    """Fresh state of a run and the frozen parameters beside it.

    The trained leaves are copied, because the step donates them and the caller may keep `variables`.
    """
    trained, frozen = split(variables["params"], method.groups)
    trained, state = jax.tree.map(jnp.array, (trained, variables["state"]))
    average = jax.tree.map(jnp.array, trained) if ema is not None else None
    key = jax.random.key_data(jax.random.key(seed))
    return TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained), state, average, key), frozen


@functools.lru_cache(maxsize=32)  # runs that share method and optimizer (one per task, say) share the compiled step
def train_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    ema: float | None = None,
    placement: Placement | None = None,
    skip: bool = False,
) -> StepFunction:
    """The jitted step (TrainState, frozen, batch) -> (TrainState, metrics); the state's buffers are donated.

    Gradients are taken with respect to the trained leaves; the frozen tree is an argument of the program. A tuple of
    batches is as many optimizer updates in turn, and one step; batches of one tuple may differ in their names and
    shapes (each kind of query structure trains another part of a model, say).

    Args:
        method: what to train.
        optimizer: over the trained leaves.
        accumulate: micro-batches per step; the batch size must be a multiple.
        ema: decay of the moving average of the trained leaves, None for no average.
        placement: where everything lies on a mesh (`mesh.placement`); None leaves it to the arguments.
        skip: leave everything as it was where the loss or a gradient is no finite number, and count it.
    """

    def loss_of(trained, frozen, state, batch, key):
        return method.loss({"params": merge(trained, frozen), "state": state}, batch, key)

    gradient = jax.value_and_grad(loss_of, has_aux=True)

    def gradients(ts: TrainState, frozen, batch, key):
        if accumulate == 1:
            (_, aux), grads = gradient(ts.trained, frozen, ts.state, batch, key)
            return grads, aux.state, aux.metrics
        return accumulated(gradient, accumulate, ts, frozen, batch, key)

    def update(ts: TrainState, frozen, batch, key):
        grads, state, metrics = gradients(ts, frozen, batch, key)
        updates, opt_state = optimizer.update(grads, ts.opt_state, ts.trained)
        trained = optax.apply_updates(ts.trained, updates)
        if method.project is not None:
            trained = method.project(ts.trained, trained, state)
        state = method.after_step(trained, grads, state)
        average = ts.ema if ema is None else optax.incremental_update(trained, ts.ema, 1.0 - ema)
        metrics = {**metrics, **norms(grads, method.groups)}
        new = TrainState(ts.step + 1, trained, opt_state, state, average, ts.key)
        return skipping(ts, new, metrics) if skip else (new, metrics)

    def step(ts: TrainState, frozen, batch):
        key = jax.random.fold_in(jax.random.wrap_key_data(ts.key), ts.step)
        if not isinstance(batch, tuple):
            return update(ts, frozen, batch, key)
        after, metrics = ts, dict[str, Mean]()
        for i, part in enumerate(batch):
            after, found = update(after, frozen, part, jax.random.fold_in(key, i))
            metrics |= {name: metrics[name].merge(mean) if name in metrics else mean for name, mean in found.items()}
        return after._replace(step=ts.step + 1), metrics

    if placement is None:
        return jax.jit(step, donate_argnums=0)
    state, frozen = placement.trees

    def placed_step(ts: TrainState, frozen, batch):
        # The mesh in sight: what sums over rows may then choose where it is reduced (`tuning.row_shards`).
        with jax.sharding.use_abstract_mesh(placement.mesh.abstract_mesh):
            return step(ts, frozen, batch)

    return jax.jit(
        placed_step,
        donate_argnums=0,
        in_shardings=(state, frozen, rows(placement.mesh)),
        out_shardings=(state, replicated(placement.mesh)),
    )


def norms(grads: Any, groups: Rules) -> dict[str, Mean]:
    """Global norm of the gradients, and of each group's where there are several."""
    one = jnp.ones(())
    # On CPUs XLA would write out the squares, as Adam needs them too: a fifth of a step that is bound by memory.
    grads = jax.lax.platform_dependent(grads, cpu=jax.lax.optimization_barrier, default=lambda same: same)
    found = {"gradient_norm": Mean(optax.tree.norm(grads), one)}
    names = label(grads, groups)
    members = sorted(set(jax.tree.leaves(names)))
    for group in members if len(members) > 1 else ():
        part = jax.tree.map(lambda name, leaf: leaf if name == group else None, names, grads)  # noqa: B023
        found[f"gradient_norm/{group}"] = Mean(optax.tree.norm(part), one)
    return found


def skipping(old: TrainState, new: TrainState, metrics: dict[str, Mean]) -> tuple[TrainState, dict[str, Mean]]:
    """The new state, or the old one at the next step where a metric is no finite number; 'skipped' tells which."""
    finite = jnp.all(jnp.stack([jnp.isfinite(mean.total) for mean in metrics.values()]))
    kept = jax.tree.map(lambda a, b: jnp.where(finite, b, a), old._replace(step=new.step), new)
    known = {name: Mean(*(jnp.where(finite, x, 0.0) for x in mean)) for name, mean in metrics.items()}
    return kept, {**known, "skipped": Mean(1.0 - finite.astype(jnp.float32), jnp.ones(()))}


def accumulated(gradient: Callable, parts: int, ts: TrainState, frozen: Any, batch: Batch, key: jax.Array):
    """Gradients of the whole batch from `parts` micro-batches in turn, weighted by the examples that count."""
    size = jax.tree.leaves(batch)[0].shape[0]
    if size % parts:
        raise ValueError(f"accumulate: found {parts}, expected a divisor of the batch size {size}")
    micro = jax.tree.map(lambda x: x.reshape(parts, size // parts, *x.shape[1:]), batch)

    def body(carry, inputs):
        total, weight, state = carry
        part, i = inputs
        (_, aux), grads = gradient(ts.trained, frozen, state, part, jax.random.fold_in(key, i))
        examples = part["mask"].sum() if "mask" in part else jnp.float32(size // parts)
        total = jax.tree.map(lambda a, g: a + examples * g, total, grads)
        return (total, weight + examples, aux.state), aux.metrics

    zeros = jax.tree.map(jnp.zeros_like, ts.trained)
    (total, weight, state), metrics = jax.lax.scan(body, (zeros, jnp.zeros(()), ts.state), (micro, jnp.arange(parts)))
    grads = jax.tree.map(lambda g: (g / weight).astype(g.dtype), total)
    return grads, state, jax.tree.map(lambda x: x.sum(0), metrics)


def variables_of(ts: TrainState, frozen: Any, *, average: bool = False) -> dict[str, Any]:
    """The method's variables at a state of training; `average` takes the moving average instead."""
    return {"params": merge(ts.ema if average else ts.trained, frozen), "state": ts.state}
