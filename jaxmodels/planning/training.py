"""Plans of a method: its real train step and evaluation step, compiled for a slice from shapes alone."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmodels.method import Method
from jaxmodels.planning.plan import Plan, on_mesh, plan, slice_mesh
from jaxmodels.rules import split
from jaxmodels.training.evaluate import evaluation_step
from jaxmodels.training.mesh import Placement, check_rows, parse_mesh, placement, rows
from jaxmodels.training.precision import Precision, store_frozen
from jaxmodels.training.state import TrainState, begin, train_step, variables_of


class Plans(NamedTuple):
    """Of one method on one slice.

    Attributes:
        train: of the train step.
        evaluate: of the evaluation step.
    """

    train: Plan
    evaluate: Plan

    @property
    def fits(self) -> bool:
        """Whether both steps do."""
        return self.train.fits and self.evaluate.fits


class Steps(NamedTuple):
    """A method on a slice, as shapes: what both of its steps are compiled from.

    Attributes:
        chips: the slice.
        ts: state of training.
        frozen: parameters beside it.
        batch: rows of the global batch.
        placement: where they lie.
    """

    chips: str
    ts: TrainState
    frozen: Any
    batch: Any
    placement: Placement

    def plan(self, step: Any, *arguments: Any) -> Plan:
        """The plan of a step of this method."""
        return plan(step, arguments, chips=self.chips, trained=self.ts.trained, frozen=self.frozen)


def plan_method(
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    chips: str,
    batch_size: int,
    mesh: str = "data:-1",
    precision: Precision | None = None,
    accumulate: int = 1,
    ema: float | None = None,
) -> Plans:
    """Compiles a method's steps for a slice that is not there.

    Args:
        method: one that declares its batch (`Method.batch`).
        optimizer: over the trained leaves.
        chips: such as 'v5e:4x4'.
        batch_size: rows of the global batch.
        mesh: sizes of the axes, as in `parse_mesh`.
        precision: how frozen parameters are stored; as `init` makes them unless given.
        accumulate: micro-batches per step; the loop over them counts once, see `planning.plan`.
        ema: decay of a moving average, None for none.

    Raises:
        ValueError: a method without a batch, an unknown slice, a mesh of another size or one that does not divide the
            batch.
        ImportError: libtpu is not installed.
    """
    steps = placed_on(method, optimizer, chips, batch_size, mesh=mesh, precision=precision, ema=ema)
    trained = _train(steps, method, optimizer, accumulate, ema)
    mask = jax.ShapeDtypeStruct((batch_size,), jnp.float32, sharding=rows(steps.placement.mesh))
    variables = variables_of(steps.ts, steps.frozen)
    return Plans(trained, steps.plan(evaluation_step(method), variables, {**steps.batch, "mask": mask}))


def plan_train(
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    chips: str,
    batch_size: int,
    mesh: str = "data:-1",
    precision: Precision | None = None,
    accumulate: int = 1,
    ema: float | None = None,
) -> Plan:
    """The train step alone, for which half of the compilation is enough; as `plan_method` otherwise."""
    steps = placed_on(method, optimizer, chips, batch_size, mesh=mesh, precision=precision, ema=ema)
    return _train(steps, method, optimizer, accumulate, ema)


def placed_on(
    method: Method,
    optimizer: optax.GradientTransformation,
    chips: str,
    batch_size: int,
    *,
    mesh: str = "data:-1",
    precision: Precision | None = None,
    ema: float | None = None,
) -> Steps:
    """The shapes of a method's state and batch on a slice; see `plan_method`."""
    if method.batch is None:
        raise ValueError("plan: the method does not say what its batch looks like, expected Method.batch")
    whole = slice_mesh(chips)
    devices = slice_mesh(chips, parse_mesh(mesh, whole.size))
    check_rows(devices, batch_size)

    def start(key: jax.Array):
        variables = method.init(key, None)
        if precision is not None:
            variables["params"] = store_frozen(variables["params"], method.groups, precision)
        return begin(method, optimizer, variables, seed=0, ema=ema)

    ts, frozen = jax.eval_shape(start, jax.random.key(0))
    placed = placement(ts, frozen, method.shardings, devices)
    ts, frozen = jax.tree.map(_placed, (ts, frozen), placed.trees)
    return Steps(chips, ts, frozen, on_mesh(method.batch(batch_size), devices, rows(devices).spec), placed)


def _train(
    steps: Steps, method: Method, optimizer: optax.GradientTransformation, accumulate: int, ema: float | None
) -> Plan:
    step = train_step(method, optimizer, accumulate=accumulate, ema=ema, placement=steps.placement)
    return steps.plan(step, steps.ts, steps.frozen, steps.batch)


def trained_bytes(method: Method) -> int:
    """Bytes of a method's trained parameters in float32: what data parallelism has to all-reduce, and no more."""
    params = jax.eval_shape(lambda key: method.init(key, None), jax.random.key(0))["params"]
    trained, _ = split(params, method.groups)
    return 4 * sum(leaf.size for leaf in jax.tree.leaves(trained))


def _placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
