import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.reasoning.adaption import (
    RECENT,
    Adaption,
    balance,
    check_adaption,
    dot,
    lambdas,
    new_track,
    projected,
    shares,
    tracked,
)
from jaxmodels.reasoning.lod import lod
from jaxmodels.reasoning.method import query_method
from jaxmodels.reasoning.robust_loss import Robust
from tests.reasoning.small import MODELS, random_params
from tests.reasoning.test_method import KEY, batch_of

NAMES = ("1p", "2i", "ip")


def run(objective, *, state=None, names=NAMES, model="gqe"):
    """(value, state, metrics, gradient) of one loss; compiled, as every trainer does."""
    base = MODELS[model]()
    method = query_method(base, names, objective=objective)
    state = objective.init(names) if state is None else state
    batch, params = jax.tree.map(jnp.asarray, batch_of(*names)), random_params(base)
    one = jax.jit(jax.value_and_grad(lambda p, s: method.loss({"params": p, "state": s}, batch, KEY), has_aux=True))
    (value, aux), gradient = one(params, state)
    return value, aux.state, aux.metrics, gradient


def close(one, two, **limits):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **{"rtol": 1e-4, "atol": 1e-6} | limits), one, two)


def test_everything_off_is_the_plain_loss():
    base = MODELS["gqe"]()
    batch, params = jax.tree.map(jnp.asarray, batch_of(*NAMES)), random_params(base)
    plain = query_method(base, NAMES).loss({"params": params, "state": {}}, batch, KEY)[0]
    value, state, metrics, _ = run(lod())
    np.testing.assert_allclose(value, plain, rtol=1e-5)
    assert state == {} and metrics["loss"].value() == pytest.approx(float(plain), rel=1e-5)


def test_alpha_zero_is_the_plain_loss_in_both_modes():
    off = run(lod())
    for mode in ("logit", "param"):
        found = run(lod(adaption=Adaption(mode=mode, alpha=0.0)))
        np.testing.assert_allclose(found[0], off[0], rtol=1e-5)
        close(found[3], off[3])


def test_groups_with_large_gradients_weigh_less_and_the_state_remembers():
    objective = lod(adaption=Adaption(mode="param"))
    _, state, metrics, gradient = run(objective)
    sizes = {name: float(track.size) for name, track in state["groups"].items()}
    weight = {name: float(metrics[f"lambda/{name}"].total) for name in NAMES}
    assert sorted(sizes, key=sizes.get) == sorted(weight, key=weight.get, reverse=True)
    assert np.mean(list(weight.values())) == pytest.approx(1.0, rel=1e-5)
    assert all(int(track.count) == 1 for track in state["groups"].values())
    # The gradient that goes on is that of the weighted sum.
    base = MODELS["gqe"]()
    batch, params = jax.tree.map(jnp.asarray, batch_of(*NAMES)), random_params(base)
    method, total = query_method(base, NAMES), sum(float(rows["weight"].sum()) for rows in batch.values())

    @jax.jit
    def by_hand(p):
        each = [
            method.loss({"params": p, "state": {}}, {n: batch[n]}, KEY)[0] * batch[n]["weight"].sum() for n in NAMES
        ]
        return sum(w * x for w, x in zip(weight.values(), each, strict=True)) / total

    close(gradient, jax.jit(jax.grad(by_hand))(params))


@pytest.mark.parametrize("mode", ["param", "logit", "loss"])
def test_two_groups_are_the_seen_and_the_diffused_each_with_one_loss(mode):
    def objective(**options):
        return lod(diffused=("ip",), adaption=Adaption(mode=mode, groups="origin", **options))

    close(run(objective(alpha=0.0))[3], run(lod())[3])
    value, state, metrics, gradient = run(objective(reduce="mean"))
    seen, diffused = (run(lod(adaption=Adaption(reduce="weight")), names=names) for names in (("1p", "2i"), ("ip",)))
    tracks = state["groups"]
    assert set(tracks) == {"seen", "diffused"}
    np.testing.assert_allclose([tracks["seen"].loss, tracks["diffused"].loss], [seen[0], diffused[0]], rtol=1e-5)
    if mode == "param":
        sizes = [np.sqrt(dot(each[3], each[3])) for each in (seen, diffused)]
        np.testing.assert_allclose([tracks["seen"].size, tracks["diffused"].size], sizes, rtol=1e-4)
    weight = [float(metrics[f"lambda/{group}"].value()) for group in ("seen", "diffused")]
    np.testing.assert_allclose(weight, balance(jnp.stack([tracks["seen"].size, tracks["diffused"].size])), rtol=1e-5)
    np.testing.assert_allclose(value, (weight[0] * seen[0] + weight[1] * diffused[0]) / 2, rtol=1e-5)
    expected = jax.tree.map(lambda a, b: (weight[0] * a + weight[1] * b) / 2, seen[3], diffused[3])
    close(gradient, expected)
    state = run(objective(), state=state, names=("1p", "2i"))[1]["groups"]
    assert int(state["seen"].count) == 2 and int(state["diffused"].count) == 1


def test_absent_groups_keep_their_track():
    objective = lod(adaption=Adaption(mode="loss", alpha=1.0))
    state = objective.init(NAMES)
    _, after, _, _ = run(objective, state=state, names=("1p", "2i"))
    assert int(after["groups"]["ip"].count) == 0 and int(after["groups"]["1p"].count) == 1


def test_projection_takes_out_what_opposes_the_seen():
    seen, other = {"a": jnp.array([1.0, 0.0])}, {"a": jnp.array([-2.0, 1.0])}
    assert projected(seen, other)["a"].tolist() == [1.0, 1.0]
    assert float(dot(projected(seen, other), seen)) >= float(dot(seen, seen))
    assert projected(seen, {"a": jnp.array([2.0, 1.0])})["a"].tolist() == [3.0, 1.0]


def test_balance_is_normalised_clipped_and_normalised():
    found = balance(jnp.array([1e-6, 1.0, 1.0, 1e6]))
    assert found.mean() == pytest.approx(1.0)
    assert found[0] > found[1] == found[2] >= found[3]
    raw = np.array([1e3, 1.0, 1.0, 1e-3])
    clipped = np.clip(raw / raw.mean(), 0.2, 5.0)
    np.testing.assert_allclose(found, clipped / clipped.mean(), rtol=1e-4)


def test_with_a_rate_a_group_that_lags_gains_weight_after_its_first_losses():
    options = Adaption(mode="param", rate=1.0)
    tracks = [new_track(), new_track()]
    for step in range(RECENT + 10):
        losses = 1.0, 1.0 - 0.03 * step  # only the second one learns
        tracks = [tracked(t, jnp.array(1.0), jnp.array(loss)) for t, loss in zip(tracks, losses, strict=True)]
        weight = lambdas(tracks, options)
        assert (weight.tolist() == [1.0, 1.0]) == (step < RECENT - 1)
    assert weight[0] > 1.1 > 1.0 > weight[1]
    np.testing.assert_allclose(tracks[1].first, np.mean([1.0 - 0.03 * i for i in range(RECENT)]), rtol=1e-5)


def test_shares_of_groups():
    weights = {"1p": jnp.array([1.0, 2.0, 3.0]), "2i": jnp.array([2.0])}
    np.testing.assert_allclose(shares(weights, "weight"), [0.75, 0.25])
    np.testing.assert_allclose(shares(weights, "count"), [0.75, 0.25])
    np.testing.assert_allclose(shares(weights, "mean"), [0.5, 0.5])


def test_q_grows_during_its_warm_up():
    objective = lod(robust=Robust(q=0.5, warm=2))
    log, robust = run(lod())[0], run(lod(robust=Robust(q=0.5)))[0]
    value, state, _, _ = run(objective)
    np.testing.assert_allclose(value, log, rtol=1e-5)
    value, _, _, _ = run(objective, state={"step": jnp.array(7, jnp.int32)})
    np.testing.assert_allclose(value, robust, rtol=1e-5)
    assert int(state["step"]) == 1 and robust < log


def test_sizes_of_the_log_loss_while_the_robust_one_trains():
    robust = Robust(q=0.9)
    logged = run(lod(adaption=Adaption(mode="logit", measure="log"), robust=robust))[1]["groups"]
    plain = run(lod(adaption=Adaption(mode="logit")))[1]["groups"]
    for name in NAMES:
        np.testing.assert_allclose(logged[name].size, plain[name].size, rtol=1e-4)
        assert logged[name].loss < plain[name].loss


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "logits"}, "mode: found 'logits', expected one of off, logit, param, loss, project"),
        ({"reduce": "sum"}, "reduce: found 'sum', expected one of weight, count, mean"),
        ({"measure": "plain"}, "measure: found 'plain'"),
        ({"keep": 1.0}, "keep: found 1.0, expected at least 0 and below 1"),
        ({"low": 2.0}, "low, high: found 2.0, 5.0"),
        ({"alpha": -1.0}, "alpha, rate: found -1.0"),
        ({"rate": 1.0}, "rate: found 1.0, expected 0 in mode off"),
        ({"groups": "two"}, "groups: found 'two', expected one of structure, origin"),
        ({"groups": "origin", "mode": "project"}, "groups: found 'origin', expected 'structure' in mode project"),
    ],
)
def test_options_without_meaning(options, message):
    with pytest.raises(ValueError, match=message):
        check_adaption(Adaption(**options))


def test_diffused_structures_belong_to_projection():
    with pytest.raises(ValueError, match="diffused: found no structure"):
        lod(adaption=Adaption(mode="project"))
    with pytest.raises(ValueError, match="diffused: found no structure, expected at least one with groups of origin"):
        lod(adaption=Adaption(mode="logit", groups="origin"))
    with pytest.raises(ValueError, match="diffused: found ip, which mode off does not tell apart"):
        lod(diffused=("ip",))
    with pytest.raises(ValueError, match="diffused: 'pi' is no structure of the method"):
        lod(diffused=("pi",), adaption=Adaption(mode="project")).init(NAMES)
