"""Ports: writing and reading from outside, under every transformation, with errors that name the port."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import ports


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.Dense(4, name="dense")(x)
        return x + ports.Port(name="branch")(y, residual=x)


class Net(nn.Module):
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        layer = nn.remat(Layer) if self.remat else Layer
        return layer(name="second")(layer(name="first")(x))


NET = Net()
X = jax.random.normal(jax.random.key(0), (3, 4))
PARAMS = NET.init(jax.random.key(1), X)["params"]


def run(writers, net=NET, params=PARAMS, x=X):
    with ports.write(writers):
        return net.apply({"params": params}, x)


def add(amount):
    return lambda call, *args, **seen: call(*args, **seen) + amount


def times(factor):
    return lambda call, *args, **seen: factor * call(*args, **seen)


def by_hand(change):
    """The network with `change(branch, residual)` at the first layer's branch."""
    x = X
    for name in ("first", "second"):
        y = x @ PARAMS[name]["dense"]["kernel"] + PARAMS[name]["dense"]["bias"][None]
        x = x + (change(y, x) if name == "first" else y)
    return x


def test_a_port_is_the_identity():
    assert ports.Port().apply({}, X, residual=jnp.zeros(2)) is X


def test_a_writer_wraps_exactly_its_port():
    np.testing.assert_allclose(run({"first/branch": times(3.0)}), by_hand(lambda y, _: 3.0 * y), rtol=1e-6)


def test_a_writer_changes_the_arguments_of_a_layer():
    found = run({"first/dense": lambda call, x: call(2.0 * x)})
    bias = PARAMS["first"]["dense"]["bias"][None]
    np.testing.assert_allclose(found, by_hand(lambda y, _: 2.0 * (y - bias) + bias), rtol=1e-5, atol=1e-6)


def test_a_writer_sees_what_the_port_shows():
    found = run({"first/branch": lambda call, y, *, residual: call(y, residual=residual) + residual})
    np.testing.assert_allclose(found, by_hand(lambda y, x: y + x), rtol=1e-6)


def test_no_writer_no_change():
    np.testing.assert_array_equal(run({}), NET.apply({"params": PARAMS}, X))


def test_the_writers_end_with_the_context():
    run({"first/branch": times(3.0)})
    np.testing.assert_array_equal(NET.apply({"params": PARAMS}, X), run({}))


def test_the_later_writer_wraps_the_earlier():
    both = ports.compose({"first/branch": add(1.0)}, {"first/branch": times(10.0)})
    np.testing.assert_allclose(run(both), by_hand(lambda y, _: 10.0 * (y + 1.0)), rtol=1e-6)
    other = ports.compose({"first/branch": times(10.0)}, {"first/branch": add(1.0)})
    np.testing.assert_allclose(run(other), by_hand(lambda y, _: 10.0 * y + 1.0), rtol=1e-6)


def test_three_writers_compose_and_hand_on_what_is_seen():
    sees = {"first/branch": lambda call, y, *, residual: call(y, residual=residual) + residual}
    three = ports.compose(sees, {"first/branch": add(1.0)}, {"first/branch": times(2.0), "second/branch": times(1.0)})
    np.testing.assert_allclose(run(three), by_hand(lambda y, x: 2.0 * (y + x + 1.0)), rtol=1e-5)


def test_composing_leaves_the_parts_alone():
    first = {"first/branch": add(1.0)}
    ports.compose(first, {"first/branch": times(10.0)})
    np.testing.assert_allclose(run(first), by_hand(lambda y, _: y + 1.0), rtol=1e-6)


def loss(amounts, params, remat):
    writers = {path: add(amount[None]) for path, amount in amounts.items()}
    return (run(writers, Net(remat), params) ** 2).sum()


AMOUNTS = {"first/branch": jnp.arange(4.0), "second/branch": jnp.ones(4)}


def test_gradients_reach_the_writers_and_remat_changes_nothing():
    values = {
        remat: jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)(AMOUNTS, PARAMS, remat)
        for remat in (False, True)
    }
    for plain, rematerialised in zip(*map(jax.tree.leaves, values.values()), strict=True):
        np.testing.assert_allclose(rematerialised, plain, rtol=1e-5)
    assert all(jnp.abs(leaf).min() > 0 for leaf in jax.tree.leaves(values[True][1][0]))


def test_vmap_over_writers_equals_a_loop():
    stacked = jax.tree.map(lambda x: jnp.stack([x, 2 * x, -x]), AMOUNTS)
    found = jax.vmap(lambda amounts: loss(amounts, PARAMS, True))(stacked)
    loop = [loss(jax.tree.map(lambda x, i=i: x[i], stacked), PARAMS, False) for i in range(3)]
    np.testing.assert_allclose(found, np.stack(loop), rtol=1e-5)


def test_shapes_records_inputs_outputs_and_parameters():
    found = ports.shapes(lambda params, x: NET.apply({"params": params}, x), PARAMS, X)
    assert list(found.ports)[:2] == ["first/dense", "first/branch"]
    (given,), out = found.ports["first/dense"]
    assert (given.shape, out.shape, out.dtype) == ((3, 4), (3, 4), jnp.float32)
    assert found.params["first"]["dense"]["kernel"] == jax.ShapeDtypeStruct((4, 4), jnp.float32)


def test_shapes_computes_nothing():
    huge = jax.ShapeDtypeStruct((10**9, 4), jnp.float32)
    found = ports.shapes(lambda params, x: NET.apply({"params": params}, x), PARAMS, huge)
    assert found.ports["second/branch"][1].shape == (10**9, 4)


def test_an_unknown_port_is_named_with_the_nearest():
    known = ports.shapes(lambda params, x: NET.apply({"params": params}, x), PARAMS, X).ports
    ports.check_known(["first/branch"], known, "adapter")
    with pytest.raises(ValueError) as error:
        ports.check_known(["first/branch", "first/brnch"], known, "adapter")
    assert str(error.value) == "adapter: the backbone has no port 'first/brnch'; did you mean 'first/branch'?"


def test_reading_gives_the_activation_after_its_writer():
    with ports.write({"first/branch": add(1.0)}):
        _, sown = NET.apply({"params": PARAMS}, X, capture_intermediates=True, mutable="intermediates")
    expected = X @ PARAMS["first"]["dense"]["kernel"] + PARAMS["first"]["dense"]["bias"][None]
    np.testing.assert_allclose(ports.captured(sown["intermediates"], "first/dense"), expected, rtol=1e-6)
    np.testing.assert_allclose(ports.captured(sown["intermediates"], "first/branch"), expected + 1.0, rtol=1e-6)
