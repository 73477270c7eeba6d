"""Checks of RCPMOD's fixtures, computed with the official code: networks, losses, data protocol and a small run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.metrics import roc_auc_score

from jaxmodels.data.view_masks import view_mask
from jaxmodels.data.view_outliers import add_noise, masked_minmax, swap_views
from jaxmodels.outliers.autoencoder import AutoEncoder
from jaxmodels.outliers.contrastive import contrast_scores, nt_xent, unit
from jaxmodels.outliers.rcpmod import NAMES, Options, rcpmod
from jaxmodels.outliers.scoring import attribute_scores, fused_scores, mean_over_pairs
from jaxmodels.outliers.spreading import distance, largest_dot, ramp, triplet, uniform
from tests.parity.compare import Quantity, absolute, close, exact, read, under


def from_torch(state, batch_norm):
    """(params, stats, widths) of an autoencoder from the official names."""
    params, stats, widths = {}, {}, []
    for side in ("encoder", "decoder"):
        step = 3 if batch_norm else 2
        layers = sum(f"_{side}.{step * i}.weight" in state for i in range(len(state)))
        for i in range(layers):
            at = f"_{side}.{step * i}."
            weight = state[at + "weight"]
            params[f"{side}_{i}"] = {"kernel": jnp.asarray(weight.T), "bias": jnp.asarray(state[at + "bias"])}
            if side == "encoder":
                widths += [weight.shape[1]] * (i == 0) + [weight.shape[0]]
            norm = f"_{side}.{step * i + 1}."
            if batch_norm and i < layers - 1:
                name = f"{side}_norm_{i}"
                params[name] = {
                    "scale": jnp.asarray(state[norm + "weight"]),
                    "bias": jnp.asarray(state[norm + "bias"]),
                }
                stats[name] = {
                    "mean": jnp.asarray(state[norm + "running_mean"]),
                    "variance": jnp.asarray(state[norm + "running_var"]),
                }
    return params, stats, tuple(widths)


def to_torch(params, stats, batch_norm):
    """The official names of parameters (or gradients) and running statistics."""
    out, step = {}, 3 if batch_norm else 2
    for name, leaf in params.items():
        side, *norm, i = name.split("_")
        at = f"_{side}.{step * int(i) + bool(norm)}."
        out[at + "weight"] = np.asarray(leaf["scale"] if norm else leaf["kernel"].T)
        out[at + "bias"] = np.asarray(leaf["bias"])
    for name, leaf in stats.items():
        side, _, i = name.split("_")
        at = f"_{side}.{step * int(i) + 1}."
        out[at + "running_mean"], out[at + "running_var"] = np.asarray(leaf["mean"]), np.asarray(leaf["variance"])
    return out


def check_autoencoder(path):
    file = read(path)
    quantities = []
    for case in sorted({key.split("/")[0] for key in file if "/" in key}):
        arrays = under(file, f"{case}/")
        activation, norm = case.rsplit("_bn", 1)
        with jax.enable_x64(True):
            norm = norm == "1"
            params, stats, widths = from_torch(under(arrays, "param/"), norm)
            model, x = AutoEncoder(widths, activation, norm), jnp.asarray(file["x"])

            def loss(params, model=model, stats=stats, x=x):
                variables = {"params": params, "stats": stats}
                (made, z), moved = model.apply(variables, x, None, True, mutable=["stats"])
                return ((made - x) ** 2).sum(1).mean(), (made, z, moved.get("stats", {}))

            (value, (made, z, moved)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
            found = {"recon_train": made, "latent_train": z, "loss": value}
            if norm:
                made, z = model.apply({"params": params, "stats": moved}, x)
                found |= {"recon_eval": made, "latent_eval": z}
            for name, each in to_torch(grads, moved, norm).items():
                found[("after/" if "running" in name else "grad/") + name] = each
            expected = {key: value for key, value in arrays.items() if not key.startswith("param/")}
            names = sorted(set(found) ^ set(expected))
            quantities.append(Quantity(f"{case} names {names}"[:80] if names else f"{case} names", len(names), 0))
            quantities += [
                close(f"{case} {key}", found[key], expected[key], 1e-9) for key in sorted(expected) if key in found
            ]
    return quantities


def check_losses(path):
    file = read(path)
    quantities = []
    for kind, rtol in (("f64", 1e-10), ("f32", 1e-5)):
        with jax.enable_x64(kind == "f64"):
            arrays = {key: jnp.asarray(value) for key, value in under(file, f"{kind}/").items()}
            quantities += [q._replace(name=f"{kind} {q.name}") for q in _losses(arrays, rtol)]
    return quantities


def _losses(file, rtol):
    w, w2 = file["w"][:, None], file["w2"][:, None]

    def contrastive(i, j, temperature=0.5, a=1.0, b=1.0, **options):
        return nt_xent(unit(i) * a, unit(j) * b, temperature=temperature, **options)

    def outlier_aware(i, j, m_i, m_j):
        return nt_xent(unit(i), unit(j), bank=jnp.concatenate([unit(m_i), unit(m_j)]))

    cases = {
        "contrastive": contrastive,
        "contrastive_weighted": lambda i, j: contrastive(i, j, a=w, b=w),
        "contrastive_weighted_twoview": lambda i, j: contrastive(i, j, a=w, b=w2),
        "contrastive_posweight_only": lambda i, j: contrastive(i, j, positive_weight=file["w"]),
        "contrastive_oa": outlier_aware,
        "triplet": triplet,
        "uniform": lambda z: uniform(z, compat=True),
    }
    inputs = {"triplet": ("anchor", "pos", "neg"), "uniform": ("anchor",)}
    inputs["contrastive_oa"] = ("h_i", "h_j", "mem_i", "mem_j")
    for key in file:
        if key.startswith("contrastive_tau"):
            name = key.split("/")[0]
            tau = float(name.removeprefix("contrastive_tau"))
            cases[name] = lambda i, j, tau=tau: contrastive(i, j, temperature=tau)
    quantities = []
    for name, loss in cases.items():
        names = inputs.get(name, ("h_i", "h_j"))
        value, grads = jax.value_and_grad(loss, argnums=tuple(range(len(names))))(*(file[n] for n in names))
        quantities.append(close(f"{name} loss", value, file[f"{name}/loss"], rtol, rtol * 1e-2))
        for each, grad in zip(names, grads, strict=True):
            quantities.append(close(f"{name} grad {each}", grad, file[f"{name}/grad_{each}"], rtol, rtol))
    found = contrast_scores(unit(file["h_i"]), unit(file["h_j"]), block=4)
    quantities.append(close("contrastive score", found, file["contrastive_score"], rtol))
    z = file["anchor"]
    nearest = largest_dot(z, compat=True)
    quantities.append(exact("uniform nn", nearest, file["uniform/nn_index"]))
    each = -jnp.log(len(z) * distance(z, z[nearest]))
    quantities.append(close("uniform per sample", -each, -file["uniform/per_sample"], rtol, rtol))
    x = file["uniform_selfnn/x"]
    quantities.append(exact("selfnn nn", largest_dot(x, compat=True), file["uniform_selfnn/nn_index"]))
    return [*quantities, close("selfnn loss", uniform(x, compat=True), file["uniform_selfnn/loss"], rtol)]


def check_masks(path):
    file = read(path)
    quantities = []
    for case in sorted({key.split("/")[0] for key in file}):
        arrays = under(file, f"{case}/")
        views, objects, rate = (part.lstrip("VNmr") for part in case.split("_"))
        stream, calls = np.random.RandomState(int(arrays["seed"])), []

        def draw(high, shape, stream=stream, calls=calls):
            calls.append(stream.randint(0, high, size=shape) + (high == 1))
            return calls[-1] - (high == 1)

        mask = view_mask(int(objects), int(views), float(rate), draw)
        again = view_mask(int(objects), int(views), float(rate), np.random.RandomState(int(arrays["seed"])))
        quantities.append(exact(f"{case} mask", mask, arrays["mask"]))
        quantities.append(exact(f"{case} mask by the generator", again, arrays["mask"]))
        quantities.append(exact(f"{case} draw calls", len(calls), arrays["n_draw_calls"]))
        stored = [arrays[f"draw{i}"] for i in range(len(calls)) if f"draw{i}" in arrays]
        quantities += [exact(f"{case} draw {i}", a, b) for i, (a, b) in enumerate(zip(calls, stored, strict=False))]
    return quantities


def check_outliers(path):
    file = read(path)
    quantities = []
    for case in sorted({key.split("/")[0] for key in file}):
        arrays = under(file, f"{case}/")
        count = sum(key.startswith("X") for key in arrays)
        views = [arrays[f"X{v}"].copy() for v in range(count)]
        classes, mask, stream = arrays["Y"], arrays["mask"], np.random.RandomState(int(arrays["seed"]))

        def compare(stage, views, case=case, arrays=arrays):
            return [
                absolute(f"{case} {stage} X{v}", x, arrays[f"{stage}/X{v}"], 1e-12)
                for v, x in enumerate(views)
                if f"{stage}/X{v}" in arrays
            ]

        label = np.zeros(len(classes))
        pairs = swap_views(views, classes, mask, stream, pairs=len(arrays["class_pairs"]))
        label[pairs.ravel()] = 1
        quantities += [exact(f"{case} class pairs", pairs, arrays["class_pairs"]), *compare("after_class", views)]
        quantities.append(exact(f"{case} class labels", label, arrays["after_class/label"]))
        noisy = int((arrays["after_attr/label"] - arrays["after_class/label"]).sum())
        label[add_noise(views, label > 0, stream, count=noisy)] = 1
        quantities.append(exact(f"{case} attribute labels", label, arrays["after_attr/label"]))
        views = list(masked_minmax(views, mask))
        quantities += compare("after_attr_masked_minmax", views)
        expected = arrays["classattr_pairs_in_subset_index"]
        left = np.flatnonzero(label == 0)
        pairs = swap_views(views, classes, mask, stream, pairs=len(expected), free=label == 0, noise=True)
        quantities.append(exact(f"{case} class-attribute pairs", pairs, left[expected]))
        label[pairs.ravel()] = 1
        quantities.append(exact(f"{case} labels", label, arrays["final/label"]))
        quantities += compare("final", masked_minmax(views, mask))
    return quantities


def check_train(path):
    with jax.enable_x64(True):
        return _train(read(path))


def _train(file):
    epochs, rows, k, blocks, negatives, refresh, impute = map(
        int, file["cfg_epochs_batch_nnb_memsize_changeneg_changeknn_impustart"]
    )
    rate, share, peak, *lambdas, weight = map(float, file["cfg_lr_moreratio_warmupmax_lossparas_Rw"])
    options = Options(
        neighbours=k, bank=blocks, refresh_negatives=negatives, refresh_neighbours=refresh, impute_from=impute,
        share=share, warmup_peak=peak, contrast_weight=lambdas[0], neighbour_weight=lambdas[1],
        spreading_weight=lambdas[2], schedule_epochs=len(file["schedule_400"]), compat=True,
    )  # fmt: skip
    made = [from_torch(under(file, f"init/v{v}/"), False) for v in (1, 2)]
    method = rcpmod((made[0][2], made[1][2]), options=options)
    views, has = (jnp.asarray(file["x1"]), jnp.asarray(file["x2"])), jnp.asarray(file["mask"] > 0)
    variables = method.init(jax.random.key(0), {"views": views, "has": has, "batch_size": rows})
    params = {name: each[0] for name, each in zip(NAMES, made, strict=True)}
    state = variables["state"]
    quantities = [exact(f"raw neighbours v{v + 1}", state["lists"].raw[v], file[f"knn_call0/v{v + 1}"]) for v in (0, 1)]
    quantities += [exact(f"raw negative v{v + 1}", state["lists"].far[v], file[f"knn_call1/v{v + 1}"]) for v in (0, 1)]
    quantities.append(close("schedule", _ramp(file["schedule_400"], peak, lambdas[2]), file["schedule_400"], 1e-12))
    quantities.append(
        close(
            "schedule 1000",
            ramp(peak=0.01, end=0.2, epochs=1000)[: len(file["schedule_1000_first200"])],
            file["schedule_1000_first200"],
            1e-12,
        )
    )
    optimizer = optax.adam(rate)

    @jax.jit
    def step(params, state, moments, batch):
        def loss(params):
            return method.loss({"params": params, "state": state}, batch, jax.random.key(0))

        (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(grads, moments)
        return optax.apply_updates(params, updates), aux.state, moments, aux.metrics

    @jax.jit
    def evaluate(params, state):
        return method.predict({"params": params, "state": state}, {"rows": jnp.arange(len(has))})

    moments, objects, calls, calls_at = optimizer.init(params), len(has), file["loss_calls_value"], 0
    logged = {key: [] for key in under(file, "epochlog/")}
    first, searches = [], 2
    for epoch in range(epochs):
        sums = {}
        for start in range(0, objects, rows):
            ids = file["perm_per_epoch"][epoch][start : start + rows]
            size = len(ids)
            if size == 1:  # a last batch of one row is left out
                continue
            padded = np.pad(ids, (0, rows - size))
            batch = {
                "rows": padded, "weight": (np.arange(rows) < size).astype(np.float64),
                "epoch": np.full(rows, epoch), "first": np.full(rows, start == 0),
                "column": file["rank_pos"][epoch][padded],
            }  # fmt: skip
            params, state, moments, metrics = step(params, state, moments, batch)
            values = {name: each.value() for name, each in metrics.items()}
            own = [
                values["contrast"],
                values["neighbours"],
                *(values[f"{n}{v}"] for n in ("triplet", "uniform") for v in (1, 2)),
            ]
            of_batch = calls[calls_at : calls_at + k + 5]
            stored = [of_batch[0], of_batch[1 : k + 1].mean(), *of_batch[k + 1 :]]
            calls_at += k + 5
            if epoch == start == 0:
                first = [close("first batch", own, stored, 1e-9)]
            sums.setdefault("calls", []).append(
                np.max(np.abs(np.array(own) - stored) / np.maximum(np.abs(stored), 1e-3))
            )
            for name, value in values.items():
                sums.setdefault(name, []).append(value)
        quantities.append(Quantity(f"losses of epoch {epoch}", float(max(sums["calls"])), 1e-5))
        for found, count in ((state["lists"].near, refresh), (state["lists"].far, negatives)):
            if epoch % count == 0:
                quantities += [
                    exact(f"search {searches} v{v + 1}", found[v], file[f"knn_call{searches}/v{v + 1}"]) for v in (0, 1)
                ]
                searches += 1
        out = evaluate(params, state)
        attribute = attribute_scores(np.asarray(out["error"]))
        score = fused_scores(attribute, np.asarray(out["contrast"]), weight=weight)
        quantities.append(close(f"attribute score {epoch}", attribute, file["attr_score_per_eval"][epoch], 1e-5, 1e-7))
        quantities.append(close(f"contrast score {epoch}", out["contrast"], file["contr_score_per_eval"][epoch], 1e-5))
        logged["auc"].append(roc_auc_score(file["label"], score))
        log = {
            "training_loss": "loss", "recon_loss1": "reconstruction1", "recon_loss2": "reconstruction2",
            "contrast_loss": "contrast", "Triplet_loss_v1": "triplet1", "Triplet_loss_v2": "triplet2",
            "KeLeo_loss_v1": "uniform1", "KeLeo_loss_v2": "uniform2",
        }  # fmt: skip
        for theirs, ours in log.items():
            logged[theirs].append(sum(sums[ours]))
        logged["K_infoNCE_loss"].append(sums["neighbours"][-1])
        logged["pre_loss"].append(0.0)
        logged["cl_loss"].append(0.0)
    quantities = first + quantities + [exact("loss calls", calls_at, len(calls))]
    for name, values in logged.items():
        quantities.append(close(f"log {name}", values, file[f"epochlog/{name}"], 1e-5, 1e-9))
    quantities.append(close("score", score, file["final_score"], 1e-5, 1e-7))
    quantities.append(close("auc", roc_auc_score(file["label"], score), file["final_auc"], 1e-9))
    for v, name in enumerate(NAMES):
        expected = under(file, f"final/v{v + 1}/")
        found = to_torch(params[name], {}, False)
        quantities += [close(f"final v{v + 1} {key}", found[key], expected[key], 1e-5, 1e-9) for key in expected]
    latents = _latents(method, params, state, made)
    return quantities + [
        close(f"latents v{v + 1}", latents[v], file[f"rep{v + 1}_norm_last"], 1e-5, 1e-9) for v in (0, 1)
    ]


def _ramp(stored, peak, end):
    return ramp(peak=peak, end=end, epochs=len(stored))


def _latents(method, params, state, made):
    found = []
    for v, name in enumerate(NAMES):
        z = AutoEncoder(made[v][2]).apply({"params": params[name]}, state["views"][v], method="encode")
        found.append(unit(jnp.where(state["has"][:, v, None], z, z[state["lists"].near[v]].mean(1))))
    return found


def check_fusion(path):
    file = read(path)
    quantities = []
    for key in file:
        if key.startswith("final_w"):
            score = fused_scores(file["attr"], file["contr"], weight=float(key.removeprefix("final_w")))
            quantities.append(absolute(key, score, file[key], 1e-12))
            auc = key.replace("final", "auc")
            quantities.append(absolute(auc, roc_auc_score(file["y"], score), file[auc], 1e-12))
    quantities.append(absolute("tied auc", roc_auc_score(file["y"], file["ties_score"]), file["ties_auc"], 1e-12))
    mean = mean_over_pairs(file["pair_scores"], compat=True)
    return [*quantities, absolute("mean over pairs", mean, file["pair_mean_ignoring_zero"], 1e-12)]


CHECKERS = (
    ("autoencoder*.npz", check_autoencoder),
    ("losses*.npz", check_losses),
    ("masks*.npz", check_masks),
    ("outliers*.npz", check_outliers),
    ("train*.npz", check_train),
    ("score_fusion*.npz", check_fusion),
)
