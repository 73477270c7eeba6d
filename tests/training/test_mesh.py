import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxmodels as jm
from jaxmodels.data.source import array_source
from jaxmodels.rules import leaf_names
from jaxmodels.training.mesh import follow, make_mesh, param_shardings, parse_mesh, put_batch
from jaxmodels.training.state import begin
from tests.tiny_vit import BACKBONE, random_like

TUNERS = {
    "full": jm.full,
    "lora": lambda: jm.lora(2, dropout=0.1),
    "snell": lambda: jm.snell(2),
    "res_tuning": lambda: jm.res_tuning(2, length=2),
    "bypass": lambda: jm.res_tuning_bypass(2),
}


class Random:
    """Eight random images a step."""

    def __getitem__(self, step):
        generator = np.random.default_rng(step)
        images = generator.normal(size=(8, 8, 8, 3)).astype(np.float32)
        return {"image": images, "label": generator.integers(0, 5, 8)}


def start(method):
    variables = method.init(jax.random.key(0), None)
    return {**variables, "params": jax.tree.map(lambda x: 0.3 * x, random_like(variables["params"]))}


@pytest.fixture(scope="module", params=TUNERS)
def alone(request):
    method = jm.classifier(BACKBONE, TUNERS[request.param](), num_classes=5)
    optimizer = jm.sgd(method.groups, 1e-2)  # AdamW would blow up the rounding of gradients that are nearly 0
    return method, optimizer, jm.fit(method, Random(), optimizer, steps=5, log_every=1, variables=start(method))


@pytest.mark.parametrize("text", ["data:8", "data:4,fsdp:2", "data:2,fsdp:2,model:2"])
def test_five_steps_equal_those_of_one_device(text, alone):
    method, optimizer, expected = alone
    found = jm.fit(method, Random(), optimizer, steps=5, log_every=1, variables=start(method), mesh=make_mesh(text))
    for mine, theirs in zip(found.history, expected.history, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-5)
    for mine, theirs in zip(jax.tree.leaves(found.variables), jax.tree.leaves(expected.variables), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_parameters_and_moments_lie_where_the_rules_say():
    method = jm.classifier(BACKBONE, jm.full(), num_classes=5)
    mesh = make_mesh("data:2,fsdp:2,model:2")
    found = jm.fit(method, Random(), jm.adamw(method.groups, 1e-3), steps=1, variables=start(method), mesh=mesh)
    block = found.variables["params"]["backbone"]["block0"]
    assert block["mlp"]["fc1"]["kernel"].sharding.spec == P("fsdp", "model")
    assert block["mlp"]["fc2"]["kernel"].sharding.spec == P("model", "fsdp")
    assert block["attn"]["q_proj"]["bias"].sharding.spec == P("model")
    assert block["norm1"]["scale"].sharding.is_fully_replicated
    assert found.variables["params"]["head"]["kernel"].sharding.is_fully_replicated
    shard = block["mlp"]["fc1"]["kernel"].addressable_shards[0].data
    assert shard.shape == (BACKBONE.width // 2, 2 * BACKBONE.width)
    optimizer = jm.adamw(method.groups, 1e-3)
    ts, _ = begin(method, optimizer, start(method), seed=0)
    shardings = param_shardings(ts.trained, method.shardings, mesh)
    moments = follow(ts.opt_state, ts.trained, shardings, mesh)
    named = dict(zip(leaf_names(ts.opt_state), jax.tree.leaves(moments), strict=True))
    fc1 = [s.spec for name, s in named.items() if name.endswith("backbone/block0/mlp/fc1/kernel")]
    assert fc1 == [P("fsdp", "model")] * 2
    assert all(s.is_fully_replicated for name, s in named.items() if name.endswith("count"))


def test_nothing_is_transferred_between_steps():
    method = jm.classifier(BACKBONE, jm.lora(2), num_classes=5)

    class OnDevices:
        def __getitem__(self, step):
            return put_batch(Random()[step], mesh)

    mesh = make_mesh("data:4,fsdp:2")
    optimizer, variables = jm.adamw(method.groups, 1e-3), start(method)
    jm.fit(method, Random(), optimizer, steps=1, variables=variables, mesh=mesh)
    with jax.transfer_guard_device_to_device("disallow"):
        jm.fit(method, Random(), optimizer, steps=3, variables=variables, mesh=mesh)


def test_evaluation_on_a_mesh_is_exact_with_a_ragged_end():
    method = jm.classifier(BACKBONE, jm.lora(2), num_classes=5)
    variables = start(method)
    source = array_source({name: value[:7] for name, value in Random()[0].items()})
    expected = jm.evaluate(method, variables, jm.eval_batches(source, 7))
    mesh = make_mesh("data:4,fsdp:2")
    assert jm.evaluate(method, variables, jm.eval_batches(source, 8), mesh=mesh) == expected


def test_meshes_are_read_from_text():
    assert parse_mesh("data:-1,fsdp:4,model:2", 16) == {"data": 2, "fsdp": 4, "model": 2}
    assert parse_mesh("", 1) == {"data": 1, "fsdp": 1, "model": 1}
    assert make_mesh().shape == {"data": 8, "fsdp": 1, "model": 1}
    for text, message in {
        "dtaa:8": "no axis 'dtaa'; did you mean 'data'",
        "data:x": "data: found 'x'",
        "data:0": "data: found '0'",
        "data:-1,fsdp:-1": "-1 for data and fsdp",
        "data:4": "needs 4 devices, found 8",
        "data:-1,fsdp:3": "needs a multiple of 3 devices, found 8",
    }.items():
        with pytest.raises(ValueError, match=message):
            parse_mesh(text, 8)


def test_a_rule_without_a_parameter_and_an_axis_that_does_not_divide_are_named():
    mesh, params = make_mesh("data:2,model:4"), {"table": jnp.zeros((6, 4)), "bias": jnp.zeros(4)}
    with pytest.raises(ValueError, match="sharding rule 'tabel' matches no parameter; did you mean 'table'"):
        param_shardings(params, (("tabel", ("model",)),), mesh)
    with pytest.raises(ValueError, match=r"parameter 'table': dimension 0 of \(6, 4\) is not divided by model:4"):
        param_shardings(params, (("table", ("model",)),), mesh)
    with pytest.raises(ValueError, match="'bias' has 1 dimensions, its sharding rule 2"):
        param_shardings(params, (("bias", ("model", None)),), mesh)
    with pytest.raises(ValueError, match="'image' has 6 rows on this process, expected a multiple of 8"):
        put_batch({"image": np.zeros((6, 2))}, make_mesh("data:8"))
