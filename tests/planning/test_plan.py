import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxmodels as jm
from jaxmodels import rules
from jaxmodels.planning.chips import CHIPS
from jaxmodels.planning.collectives import Collective
from jaxmodels.planning.plan import Plan, advice, exhausted, on_mesh, plan, show, slice_mesh
from jaxmodels.planning.roofline import roofline
from jaxmodels.training.state import begin, train_step
from tests.tiny_vit import SIZE

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
WIDTH, CLASSES, ROWS = 128, 8, 32
PARAMS = {"w": jax.ShapeDtypeStruct((WIDTH, CLASSES), jnp.float32), "b": jax.ShapeDtypeStruct((CLASSES,), jnp.float32)}
SPREAD, WHOLE = P("data"), P()
FROZEN = jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32)


def loss_of(params, frozen, x, y):
    out = jnp.tanh(x @ frozen) @ params["w"] + params["b"][None]
    return ((out - y) ** 2).mean()


def step(params, frozen, x, y):
    loss, grads = jax.value_and_grad(loss_of)(params, frozen, x, y)
    return jax.tree.map(lambda p, g: p - g, params, grads), loss


def arguments(mesh, *, spec=SPREAD, kept=WHOLE):
    rows = ROWS * mesh.shape["data"]
    shapes = [jax.ShapeDtypeStruct((rows, width), jnp.float32) for width in (WIDTH, CLASSES)]
    return on_mesh(PARAMS, mesh), on_mesh(FROZEN, mesh, kept), *on_mesh(shapes, mesh, spec)


@pytest.fixture(scope="module")
def planned():
    return plan(
        jax.jit(step, donate_argnums=0), arguments, chips="v5e:2x2", trained=PARAMS, frozen={"backbone": FROZEN}
    )


@needs_libtpu
def test_a_data_parallel_step_reduces_the_gradients_of_what_trains(planned):
    trained, metrics = rules.count(PARAMS), 1
    assert planned.collectives == (Collective("all-reduce", 4, 1, 4 * (trained + metrics)),)
    assert (planned.trained, planned.frozen) == (trained, WIDTH * WIDTH)
    assert planned.mesh == {"data": 4, "fsdp": 1, "model": 1}


@needs_libtpu
def test_figures_are_those_of_one_chip(planned):
    forward = 2 * ROWS * WIDTH * (WIDTH + CLASSES)  # and the gradient of w costs as much as its product
    backward = 2 * ROWS * WIDTH * CLASSES
    assert forward + backward <= planned.flops <= 1.2 * (forward + backward)
    least = 4 * (rules.count(PARAMS) + WIDTH * WIDTH + ROWS * (WIDTH + CLASSES))
    assert least <= planned.arguments < 2 * least + 2**15  # arrays are padded to tiles
    undonated = plan(jax.jit(step), arguments, chips="v5e:2x2")
    assert undonated.outputs - planned.outputs >= 4 * rules.count(PARAMS)  # new parameters reuse the donated ones
    assert planned.needed == planned.arguments + planned.temporaries + planned.outputs + planned.program
    assert planned.memory == CHIPS["v5e"].memory
    assert planned.fits and planned.spare == planned.memory - planned.needed and planned.advice is None
    assert planned.roofline == roofline(planned.flops, planned.accessed, planned.collectives, CHIPS["v5e"])


@needs_libtpu
def test_lowered_steps_and_placed_arguments_plan_the_same(planned):
    placed = arguments(slice_mesh("v5e:2x2"))
    lowered = jax.jit(step, donate_argnums=0).lower(*placed)
    again = plan(lowered, placed, chips="v5e:2x2")
    assert again.trained is None and again.frozen is None
    same = [name for name in Plan._fields if name not in ("trained", "frozen", "seconds")]
    assert {name: getattr(again, name) for name in same} == {name: getattr(planned, name) for name in same}


@needs_libtpu
def test_two_devices_share_the_memory_of_a_chip():
    found = plan(jax.jit(step), arguments, chips="tpu7x:2x2x1")
    assert (found.devices, found.mesh["data"], found.memory) == (8, 8, CHIPS["tpu7x"].memory // 2)
    assert "device (2 a chip)" in show(found)[1]


@needs_libtpu
def test_what_fsdp_shards_is_gathered_and_smaller():
    def sharded(mesh):
        return arguments(mesh, spec=P(("data", "fsdp")), kept=P("fsdp"))

    found = plan(jax.jit(step), sharded, chips="v5e:2x2", mesh_shape={"data": 2, "fsdp": 2})
    gathered = [each for each in found.collectives if each.kind == "all-gather"]
    assert [each.group for each in gathered] == [2]
    assert sum(each.bytes for each in gathered) in (2 * WIDTH * WIDTH, 4 * WIDTH * WIDTH)  # bfloat16 or float32


@needs_libtpu
def test_the_real_train_step_of_a_tuner(backbone):
    method = jm.classifier(backbone, jm.lora(2), num_classes=3)
    optimizer = jm.adamw(method.groups, 1e-3)
    variables = jax.eval_shape(lambda: method.init(jax.random.key(0), None))
    trained, frozen = rules.split(variables["params"], method.groups)
    fresh = jax.eval_shape(
        lambda t, f, s: begin(method, optimizer, {"params": rules.merge(t, f), "state": s}, seed=0)[0],
        trained,
        frozen,
        variables["state"],
    )
    side = backbone.image_size
    batch = {
        "image": jax.ShapeDtypeStruct((8, side, side, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((8,), jnp.int32),
    }

    def inputs(mesh):
        return on_mesh(fresh, mesh), on_mesh(frozen, mesh), on_mesh(batch, mesh, P("data"))

    found = plan(train_step(method, optimizer), inputs, chips="v5e:2x2", trained=trained, frozen=frozen)
    assert found.trained == rules.count(trained) and found.frozen == rules.count(frozen) > SIZE.width
    (reduced,) = [each for each in found.collectives if each.kind == "all-reduce"]
    metrics = (reduced.bytes - 4 * found.trained) / 4
    assert 0 < metrics <= 4  # totals and weights of loss and accuracy


@needs_libtpu
@pytest.mark.parametrize(
    ("copies", "rows", "axis", "needed"),
    [(9, 8, "fsdp", 18.0), (1, 2**14, "data", 2 + 2 * 16)],  # the batch takes 16 GiB, and so does its product
)
def test_what_does_not_fit_is_planned_with_advice(copies, rows, axis, needed):
    def too_large(mesh):
        kept = [jax.ShapeDtypeStruct((2**15, 2**14), jnp.float32)] * copies
        return on_mesh(kept, mesh), on_mesh(jax.ShapeDtypeStruct((rows, 2**18), jnp.float32), mesh, SPREAD)

    twice = jax.jit(lambda kept, x: ([2 * leaf for leaf in kept], 2 * x), donate_argnums=0)
    found = plan(twice, too_large, chips="v5e:1x1")
    assert not found.fits and found.roofline is None
    assert found.arguments == copies * 2**31 + 4 * rows * 2**18
    assert found.spare == found.memory - found.needed < 0
    assert found.needed == pytest.approx(needed * 2**30, rel=0.02)
    assert found.advice == axis


def test_only_running_out_of_memory_means_that_it_does_not_fit():
    long = "Ran out of memory in memory space hbm. Used 20.00G of 15.75G hbm. Exceeded hbm capacity by 4.25G."
    assert exhausted(f"RESOURCE_EXHAUSTED: {long}") == 20 * 2**30
    assert exhausted("... Ran out of memory on HBM, the total ... (1.00T) exceeds available HBM (94.75G).") == 2**40
    assert exhausted("INVALID_ARGUMENT: Invalid TPU program.") is None


@needs_libtpu
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"data": 3}, "mesh: found data=3, expected sizes whose product is the 4 devices of v5e:2x2"),
        ({"date": 4}, "mesh: found an axis 'date', expected one of data, fsdp, model; did you mean 'data'"),
        ({"data": -4, "model": -1}, "mesh: found data=-4 x model=-1"),
    ],
)
def test_mesh_errors(shape, message):
    with pytest.raises(ValueError, match=message):
        slice_mesh("v5e:2x2", shape)


@needs_libtpu
def test_arguments_elsewhere_are_refused():
    placed = arguments(slice_mesh("v5e:2x2"))
    with pytest.raises(ValueError, match="plan: arguments on 4 x TPU v5 lite, expected 16 x TPU v5 lite"):
        plan(jax.jit(step), placed, chips="v5e:4x4")
    with pytest.raises(ValueError, match="the mesh of the arguments"):
        plan(jax.jit(step), placed, chips="v5e:2x2", mesh_shape={"fsdp": 4})
    here = on_mesh(PARAMS, Mesh(np.array(jax.devices()[:4]), "data"))
    with pytest.raises(ValueError, match="plan: arguments on 2 meshes"):
        plan(jax.jit(step), (here, *placed[1:]), chips="v5e:2x2")


@needs_libtpu
def test_leaves_without_sharding_are_replicated():
    found = plan(jax.jit(lambda x: 2 * x), (jax.ShapeDtypeStruct((1024, 1024), jnp.float32),), chips="v5e:2x2")
    assert found.arguments == 4 * 1024 * 1024


GB = 2**30


@pytest.mark.parametrize(
    ("kept", "rows", "temporaries", "expected"),
    [
        ((4, 2**16), 64, 10, "data"),  # activations of several examples
        ((4, 2**16), 8, 10, "model"),  # of one example on each device
        ((2**14, 2**16), 64, 1, "fsdp"),
        ((2**15, 2**16), 64, 10, "model"),  # one parameter of 8 GiB of 15
    ],
)
def test_advice(kept, rows, temporaries, expected):
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(8, 1, 1), ("data", "fsdp", "model"))
    weights = jax.ShapeDtypeStruct(kept, jnp.float32, sharding=NamedSharding(mesh, P()))
    batch = jax.ShapeDtypeStruct((rows, 4), jnp.float32, sharding=NamedSharding(mesh, P(("data", "fsdp"))))
    assert advice((weights, batch), temporaries * GB, 15 * GB) == expected


@pytest.mark.parametrize(("temporaries", "expected"), [(1, "model"), (30, "data")])
def test_tables_that_are_spread_over_model_take_more_of_it(temporaries, expected):
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 1, 2), ("data", "fsdp", "model"))
    table = jax.ShapeDtypeStruct((2**15, 2**15), jnp.float32, sharding=NamedSharding(mesh, P("model")))
    batch = jax.ShapeDtypeStruct((64, 4), jnp.float32, sharding=NamedSharding(mesh, P(("data", "fsdp"))))
    assert advice((table, batch), temporaries * GB, 15 * GB) == expected


def example(**changes):
    sent = (Collective("all-reduce", 16, 2, 3 * 2**20),)
    fields = dict(
        chips="v5e:4x4", devices=16, mesh={"data": 8, "fsdp": 2, "model": 1}, arguments=2**30, temporaries=2**31,
        outputs=0, program=2**20, needed=3 * 2**30 + 2**20, memory=15 * 2**30, spare=12 * 2**30 - 2**20, fits=True,
        advice=None, flops=1.97e12, accessed=2.0**30, collectives=sent,
        roofline=roofline(1.97e12, 2.0**30, sent, CHIPS["v5e"]), trained=1234, frozen=56789, seconds=1.5,
    )  # fmt: skip
    return Plan(**{**fields, **changes})


def test_show():
    assert show(example()) == [
        "v5e:4x4: 16 devices as data 8, fsdp 2",
        "parameters  1,234 trained, 56,789 frozen",
        "per chip  arguments 1.0 GiB, temporaries 2.0 GiB, outputs 0 B, program 1.0 MiB",
        "fits: 3.0 GiB of 15.0 GiB, 12.0 GiB to spare",
        "computes  1.97 TFLOP, moves 1.0 GiB to and from memory",
        "sends  2 x all-reduce among 16: 3.0 MiB",
        "at best 10 ms a step, bound by compute (compute 10 ms, memory 1.31 ms, network 0.0295 ms)",
    ]


@pytest.mark.parametrize("axis", ["data", "fsdp", "model"])
def test_show_names_the_axis_to_enlarge(axis):
    lines = show(example(fits=False, spare=-(2**30), advice=axis, trained=None, frozen=None))
    assert "does not fit: 3.0 GiB of 15.0 GiB, 1.0 GiB too much" in lines
    assert [line for line in lines if line.startswith(f"enlarge '{axis}': ")]
    assert not [line for line in lines if line.startswith("parameters")]


def test_what_did_not_compile_shows_and_goes_through_json():
    unknown = dict.fromkeys(("flops", "accessed", "collectives", "roofline"))
    found = example(fits=False, spare=-(2**30), advice="data", **unknown)
    assert show(found)[-1] == "what it computes and sends is not known: the compiler ran out of memory"
    back = json.loads(json.dumps(found.to_json()))
    assert [back[name] for name in unknown] == [None] * 4


def test_to_json_goes_through_json():
    found = example()
    back = json.loads(json.dumps(found.to_json()))
    assert set(back) == set(Plan._fields)
    assert back["mesh"] == {"data": 8, "fsdp": 2, "model": 1} and back["spare"] == found.spare
    assert back["collectives"] == [{"kind": "all-reduce", "group": 16, "number": 2, "bytes": 3 * 2**20}]
    assert back["roofline"]["bound"] == "compute"
