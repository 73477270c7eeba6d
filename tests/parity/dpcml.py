"""Checks of DPCML's fixtures: the official models, samplers, evaluator and reader, and quantities of the theory."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.data.interactions import read_users, split_interactions
from jaxmodels.recommendation import theory
from jaxmodels.recommendation.adagrad import adagrad
from jaxmodels.recommendation.cpe import covariance_term, cpe
from jaxmodels.recommendation.crml import co_occurrence, crml, distinct
from jaxmodels.recommendation.diversity import adaptive_counts, pair_regulariser, paper_regulariser, spread
from jaxmodels.recommendation.dpcml import Objective, dpcml
from jaxmodels.recommendation.known import known_of
from jaxmodels.recommendation.lrml import lrml
from jaxmodels.recommendation.metrics import at_k, max_diversity, mean, whole_list
from jaxmodels.recommendation.norms import to_ball, to_sphere
from jaxmodels.recommendation.ranking import ranks_of
from jaxmodels.recommendation.samplers import block_negatives, candidate_weights, single_negatives
from jaxmodels.recommendation.sfcml import sfcml
from jaxmodels.recommendation.transcf import transcf
from tests.parity.compare import Quantity, absolute, close, exact, read, under


def known_from(dense, more=0):
    """Lists of a matrix of zeros and ones, with `more` columns of zeros: a row of ones alone leaves no negative."""
    users, items = np.nonzero(dense)
    return known_of(users, items, num_users=dense.shape[0], num_items=dense.shape[1] + more)


def stepped(method, optimizer):
    """One step as the trainer does it: (params, state, moments, batch) -> the same, and the loss before."""

    @jax.jit
    def step(params, state, moments, batch):
        def loss(params):
            return method.loss({"params": params, "state": state}, batch, jax.random.key(0))

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(grads, moments, params)
        after = optax.apply_updates(params, updates)
        after = after if method.project is None else method.project(params, after, aux.state)
        return after, aux.state, moments, value

    return step


def check_dpcml(path):
    file = read(path)
    double = file[next(key for key in file if key.endswith("user_emb"))].dtype == np.float64
    quantities = []
    with jax.enable_x64(double):
        for case in sorted({key.split("/")[0] for key in file}):
            quantities += [q._replace(name=f"{case} {q.name}") for q in _dpcml(under(file, f"{case}/"), double)]
    return quantities


def _dpcml(file, double):
    rtol, atol, steps_rtol = (1e-9, 1e-12, 1e-9) if double else (1e-5, 1e-6, 1e-3)
    (users, vectors, dim), items = file["user_emb"].shape, len(file["item_emb_before"])
    margin, weight, low, high = map(float, file["cfg_margin_reg_m1_m2"])
    form = "nearest" if file["g"].ndim == 2 else "mean"
    goal = Objective(margin=margin, form=form, diversity=weight, low=low, high=high)
    method = dpcml(users, items, dim=dim, vectors=vectors, objective=goal)
    state = method.init(jax.random.key(0), None)["state"]
    before = {"user": jnp.asarray(file["user_emb"]).reshape(users, -1), "item": jnp.asarray(file["item_emb_before"])}
    batch = {"user": file["u"], "positive": file["p"], "negative": file["g"]}

    @jax.jit
    def loss(params):
        return method.loss({"params": params, "state": state}, batch, jax.random.key(0))

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(before)
    touched = aux.state["touched"]
    item = jnp.where(touched[:, None], to_ball(before["item"]), before["item"])
    params = before | {"item": item}
    found = {
        "loss": value,
        "preference_loss": aux.metrics["preference"].total,
        "dcrs": pair_regulariser(before["user"], vectors, low=low, high=high),
        "grad_user": grads["user"].reshape(users, vectors, dim),
        "grad_item": grads["item"],
        "item_emb_after_lookup": item,
        "predict": method.predict({"params": params, "state": state}, {"user": np.arange(users)}),
    }
    quantities = [close(name, each, file[name], rtol, atol) for name, each in found.items()]
    optimizer = optax.adam(1e-2)
    step, moments, losses = stepped(method, optimizer), optimizer.init(params), []
    for user, positive, negative in zip(file["steps_u"], file["steps_p"], file["steps_g"], strict=True):
        batch = {"user": user, "positive": positive, "negative": negative}
        params, state, moments, value = step(params, state, moments, batch)
        losses.append(float(value))
    quantities.append(close("steps loss", losses, file["steps_loss"], steps_rtol, atol))
    after = params["user"].reshape(users, vectors, dim)
    quantities.append(close("steps users", after, file["steps_user_emb"], steps_rtol, atol))
    return [*quantities, close("steps items", params["item"], file["steps_item_emb"], steps_rtol, atol)]


TABLES = {
    "user": "user_embeddings.weight", "item": "item_embeddings.weight", "key": "user_item_key.weight",
    "memories": "memories.weight", "co_user": "co_user_embeddings.weight", "co_item": "co_item_embeddings.weight",
    "co_user_bias": "co_user_bias", "co_item_bias": "co_item_bias",
}  # fmt: skip


def check_baselines(path):
    file = read(path)
    quantities = []
    for case in sorted({key.split("/")[0] for key in file if "/" in key}):
        found = _baseline(case, under(file, f"{case}/"), file)
        quantities += [q._replace(name=f"{case} {q.name}") for q in found]
    return quantities


def _baseline(case, file, whole):
    interactions = whole["interactions"]
    users, items = interactions.shape
    given = under(file, "param/")
    params = {ours: jnp.asarray(given[theirs]) for ours, theirs in TABLES.items() if theirs in given}
    dim = params["item"].shape[1]
    sizes = {"dim": dim}
    vectors = params["user"].shape[1] // dim
    optimizer, hold = adagrad(0.05, weight_decay=1e-5), to_sphere
    if case.startswith("cpe"):
        method = cpe(users, items, covariance=5e-3 if "cov_loss" in file else 0.0, **sizes)
    elif case.startswith("lrml"):
        method = lrml(users, items, memories=len(params["memories"]), margin=1.0, **sizes)
    elif case.startswith("transcf"):
        method, hold = transcf(users, items, margin=1.0, **sizes), lambda x: x
    elif case.startswith("crml"):
        in_batch = file["g"].ndim == 1
        most = float(next(value for key, value in {**file, **whole}.items() if key.split("/")[-1] == "C_max"))
        method = crml(users, items, most=most, in_batch=in_batch, compat=True, **sizes)
        optimizer = coupled_adam(1e-2)
    elif case.startswith("sfcml"):
        method = sfcml(users, items, margin=float(file["margin"]), **sizes)
    else:
        hard = file["g"].ndim == 2
        goal = Objective(form="nearest" if hard else "mean", low=0.05 if hard else 0.1, high=0.25 if hard else 0.35)
        method = dpcml(users, items, vectors=vectors, norm="none", objective=goal, **sizes)
        optimizer = coupled_adam(1e-3)
    data = {"known": known_from(interactions), "known_items": known_from(interactions.T, more=1)}
    state = method.init(jax.random.key(0), data)["state"]
    batch = {"user": file["u"]} | ({"positive": file["p"], "negative": file["g"]} if "p" in file else {})

    @jax.jit
    def loss(params):
        return method.loss({"params": params, "state": state}, batch, jax.random.key(0))[0]

    value, grads = jax.value_and_grad(loss)(params)
    quantities = [close("loss", value, file["loss"], 1e-4, 1e-6)]
    if "grad_user" in file:
        grad_names = {"user": file["grad_user"], "item": file["grad_item"]}
    else:
        grad_names = {name: file[f"grad/{TABLES[name]}"] for name in params}
    for name, expected in grad_names.items():
        scale = max(1.0, float(np.abs(expected).max()))
        quantities.append(close(f"gradient {name}", grads[name].reshape(expected.shape), expected, 1e-4, 1e-6 * scale))
    scores = method.predict({"params": params, "state": state}, {"user": np.arange(users)})
    quantities.append(close("predict", scores, file["predict"], 1e-4, 1e-5))
    if "cov_loss" in file:
        rows = jnp.concatenate([params["user"], params["item"]])
        quantities.append(close("covariance", covariance_term(rows), file["cov_loss"], 1e-4))
    for side, ids, known in (("user", "u", data["known"]), ("item", "p", data["known_items"])):
        if f"{side}_cooc" in file:
            count = users if side == "user" else items
            unique, there = distinct(jnp.asarray(file[ids]), jnp.ones(len(file[ids]), bool), count)
            count = int(there.sum())
            quantities.append(exact(f"{side}s of the batch", unique[:count], file[f"{side}s_unique"]))
            shared = co_occurrence(known, unique, there, items if side == "user" else users)
            quantities.append(exact(f"{side} co-occurrence", shared[:count, :count], file[f"{side}_cooc"]))
    after = params
    if any(key.startswith("after3/") for key in file):
        step, moments = stepped(method, optimizer), optimizer.init(params)
        for _ in range(3):
            after, state, moments, _ = step(after, state, moments, batch)
        quantities += [
            close(
                f"after {name}",
                after[name].reshape(given[TABLES[name]].shape),
                file[f"after3/{TABLES[name]}"],
                1e-3,
                1e-5,
            )
            for name in params
        ]
    if any(key.startswith("after3clip/") for key in file):
        held = {"user", "item", "co_user", "co_item"}
        for name, table in after.items():
            expected = file[f"after3clip/{TABLES[name]}"]
            vectors_first = table.reshape(len(table), -1, dim) if name in held else table
            found = hold(vectors_first) if name in held else table
            quantities.append(close(f"clipped {name}", found.reshape(expected.shape), expected, 1e-3, 1e-5))
    return quantities


def coupled_adam(rate):
    """Adam with L2 added to the gradient."""
    return optax.chain(optax.add_decayed_weights(1e-5), optax.adam(rate))


def check_samplers(path):
    file = read(path)
    quantities = []
    for name in sorted({key.split("/")[0] for key in file if "/" in key}):
        arrays = under(file, f"{name}/")
        stream, taken = arrays["draws_in_order"], [0]

        def draw(count, stream=stream, taken=taken):
            taken[0] += count
            return stream[taken[0] - count : taken[0]]

        count = int(arrays["n_neg"])
        if name == "uniform":
            found = single_negatives(file["interactions"], draw, count=count)
        else:
            found = block_negatives(file["interactions"], draw, count=count, flat=arrays["g"].ndim == 1)
        quantities += [exact(f"{name} {key}", each, arrays[key]) for key, each in zip("upg", found, strict=True)]
        quantities.append(exact(f"{name} draws", taken[0], len(stream)))
        random, again = np.random.RandomState(int(arrays["seed"])), []
        if "item_popularities" in arrays:
            share = file["interactions"].sum(0) / file["interactions"].sum()
            quantities.append(close("popularity", share, arrays["item_popularities"], 1e-6))
        else:
            again = [random.randint(0, file["interactions"].shape[1]) for _ in stream]
            quantities.append(exact(f"{name} by the generator", again, stream))
    return quantities


def check_two_stage(path):
    file = read(path)
    random = np.random.RandomState(int(file["cand_seed"]))
    drawn = random.choice(len(file["popularity"]), len(file["candidates"]), replace=False, p=file["popularity"])
    rows = ~np.isin(file["p"], file["candidates"])
    weights = candidate_weights(file["item_emb"], file["p"], file["candidates"])
    return [
        exact("candidates", drawn, file["candidates"]),
        exact("distinct", [len(np.unique(drawn))], file["uniq"]),
        close("weights", weights[rows], file["weights"][rows], 1e-6, 1e-12),
    ]


def check_evaluator(path):
    file = read(path)
    train = file["train"]
    quantities = []
    splits = {key.split("/")[0] for key in file if "/" in key}
    for split in sorted(splits):
        own = split == "train_on_train"
        wanted, seen = (train, np.zeros_like(train)) if own else (file[split], train)
        arrays = under(file, f"{split}/")
        tops = sorted({int(key.split("@")[1]) for key in arrays if "@" in key})
        lists = [(np.concatenate([[0], np.cumsum((each > 0).sum(1))]), np.nonzero(each)[1]) for each in (wanted, seen)]
        scores = jnp.asarray(file["scores"])
        ranks, best = ranks_of(
            lambda variables, batch: variables[batch["user"]],
            scores,
            *lists,
            items=train.shape[1],
            top=max(tops, default=1),
            chunk=7,
        )
        starts = lists[0][0]
        each = {k: at_k(ranks, starts, k) for k in tops}
        lengths = train.shape[1] - (seen > 0).sum(1)
        whole = whole_list(ranks, starts, lengths)
        for k in tops:
            found = [mean(each[k][name]) for name in ("precision", "recall", "ndcg")]
            quantities.append(absolute(f"{split} at {k}", found, arrays[f"prn@{k}"], 1e-12))
            if f"prn_maxdiv@{k}" in arrays:
                *same, diversity = arrays[f"prn_maxdiv@{k}"]
                quantities.append(absolute(f"{split} at {k} again", found, same, 1e-12))
                apart = max_diversity(file["item_emb"], best[:, :k], lengths)
                quantities.append(close(f"{split} diversity at {k}", apart, diversity, 1e-6, 1e-6))
        found = [mean(whole[name]) for name in ("map", "mrr", "auc", "ndcg")]
        quantities.append(absolute(f"{split} whole list", found, arrays["map_mrr_auc_ndcg"], 1e-12))
        rows = arrays.get("per_user_cols_user_map_mrr_auc_ndcg_p3_r3_n3")
        if rows is not None:
            three = at_k(ranks, starts, 3)
            columns = [whole[n] for n in ("map", "mrr", "auc", "ndcg")]
            columns += [three[n] for n in ("precision", "recall", "ndcg")]
            users = np.flatnonzero(np.diff(starts) >= 3)
            found = np.stack([np.arange(len(train)), *columns], 1)[users]
            quantities.append(absolute(f"{split} per user", found, rows, 1e-12))
    return quantities


def check_reader(path):
    file = read(path)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "users.dat"
        text.write_bytes(file["users_dat_bytes"].tobytes())
        data = read_users(text).data
    quantities = [exact("users and items", [data.num_users, data.num_items], file["num_users_items"])]
    for seed in sorted({key.split("/")[0] for key in file if key.startswith("seed")}):
        parts = split_interactions(data, seed=int(seed.removeprefix("seed")))
        for name, part in zip(("train", "val", "test"), parts, strict=True):
            dense = np.zeros((part.num_users, part.num_items), np.int8)
            dense[part.users, part.items] = 1
            quantities.append(exact(f"{seed} {name}", dense, file[f"{seed}/{name}"]))
    return quantities


def check_theory(path):
    file = read(path)
    with jax.enable_x64(True):
        users, known = jnp.asarray(file["U"]), file["interactions"]
        far = ((file["U"][:, :, None] - file["V"][None, None]) ** 2).sum(-1).min(1)
        low, high = map(float, file["paper_d1_d2"])
        margin, eta = float(file["margin"]), float(file["eta"])
        table, vectors = users.reshape(len(users), -1), users.shape[1]
        delta = np.asarray(spread(table, vectors))
        paper = float(paper_regulariser(table, vectors, low=low, high=high))
        risk = theory.full_risk(far, known, margin=margin)
        radius, dim, bound_eta = map(float, file["bound_inputs_r_d_eta"])
        held = known.sum(1)
        samples = theory.effective_samples(held, known.shape[1] - held, radius=radius, eta=bound_eta)
        found = {
            "score_s": far,
            "delta_paper": delta,
            "paper_psi": np.maximum(low - delta, 0) + np.maximum(delta - high, 0),
            "paper_dcrs": paper,
            "official_dcrs": pair_regulariser(table, vectors, low=low, high=high),
            "full_risk_per_user": risk,
            "full_risk": risk.mean(),
            "paper_objective": risk.mean() + eta * paper,
            "Ntilde": samples,
            "bound": theory.generalisation_bound(samples, dim=int(dim), radius=radius),
            "preference_diversity": theory.preference_diversity(known, file["item_categories"]),
            "apa_counts_log2floor": adaptive_counts(held, int(file["apa_cmax"])),
        }
    for key in file:
        if key.startswith("opauc_hinge_"):
            found[key] = theory.partial_hinge(far, known, float(key.removeprefix("opauc_hinge_")), margin=margin)
        elif key.startswith("opauc_"):
            found[key] = theory.partial_auc(far, known, float(key.removeprefix("opauc_")))
    given = {"U", "V", "interactions", "item_categories", "margin", "eta", "paper_d1_d2", "bound_inputs_r_d_eta"}
    missing = sorted(set(file) - set(found) - given - {"apa_cmax"})
    quantities = [Quantity(f"not compared {missing}"[:80] if missing else "all compared", len(missing), 0)]
    return quantities + [close(name, each, file[name], 1e-9, 1e-12) for name, each in found.items()]


CHECKERS = (
    ("dpcml_f*.npz", check_dpcml),
    ("libcml*.npz", check_baselines),
    ("evaluator*.npz", check_evaluator),
    ("samplers*.npz", check_samplers),
    ("two_stage*.npz", check_two_stage),
    ("reader*.npz", check_reader),
    ("own_theory*.npz", check_theory),
)
