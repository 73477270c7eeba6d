"""Checks of SNELL's kernels, sparsifiers, schedules and allocation (official code; the paper's kernels apart)."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.rules import split
from jaxmodels.training.schedule import epoch_cosine
from jaxmodels.tuning import allocation, kernels
from jaxmodels.tuning.snella import snella
from jaxmodels.tuning.sparsify import sparsify, threshold
from tests.parity import snell_models
from tests.parity.compare import Quantity, absolute, exact, read, relative, under
from tests.parity.snell_models import (
    FACTORS,
    OFF,
    SCALARS,
    assemble,
    optimizer,
    our_path,
    survivors,
    trainer,
    vit_model,
)

# Kernels --------------------------------------------------------------------------------------------------------------


def official_kernels(path: Path) -> list[Quantity]:
    """Cases {case}_{scale}_{f32,f64}_{tag}_..., f64 cases on the f32 inputs cast up."""
    file = read(path)
    out: list[Quantity] = []
    cases = sorted({m.groups() for key in file if (m := re.fullmatch(r"(.+)_(f32|f64)_(.+)_W", key))})
    for case, precision, tag in cases:
        with jax.enable_x64(precision == "f64"):
            out += official_case(file, case, precision, tag)
    return out


def official_case(file, case, precision, tag):
    dtype = np.float32 if precision == "f32" else np.float64
    inputs = {n: jnp.asarray(file[f"{case}_f32_{n}"].astype(dtype)) for n in ("In_Qs", "Out_Qs", "cotangent")}
    mixed = tag.startswith(("mixk", "snella"))
    norm = float(m[1]) if (m := re.search(r"_p([\d.]+)", tag)) else 2.0
    level = float(m[1]) if (m := re.search(r"_s([\d.]+)", tag)) else None
    kernel = kernels.kernel("mixture" if mixed else "piecewise_linear", norm=norm, pieces=len(inputs["In_Qs"]))
    params = {"in_q": inputs["In_Qs"], "out_q": inputs["Out_Qs"]}
    if mixed:
        values = {"alpha": 0.7, "gamma": 0.3, "beta": -0.05}
        params |= {n: jnp.asarray(file.get(f"{case}_f32_{n}", [values[n]]), dtype).reshape(1) for n in SCALARS}

    def update(params):
        merged = kernel.merge(params)
        return merged if level is None else sparsify(merged, level)

    prefix, name = f"{case}_{precision}_{tag}_", f"{case}_{precision}_{tag}"
    f64 = precision == "f64"
    merged = kernel.merge(params)
    out = [relative(f"{name}_W", merged, file[f"{prefix}W"], 1e-10 if f64 else 1e-6)]
    out += survivors(f"{name}_Ws", merged, update(params), level, file[f"{prefix}Ws"], 1e-10 if f64 else 1e-5)
    if f"{prefix}thres" in file:
        error = absolute("", threshold(jnp.abs(merged), level), file[f"{prefix}thres"], 0.0).error
        out.append(Quantity(f"{name}_thres", error / np.abs(merged).max(), 1e-10 if f64 else 1e-6))
    grads = jax.grad(lambda p: (update(p) * inputs["cotangent"]).sum())(params)
    limit = 1e-10 if f64 else 1e-3 if case.endswith("init") else 1e-4
    for key in under(file, f"{prefix}grad_"):
        out.append(relative(f"{name}_grad_{key}", grads[FACTORS.get(key, key)], file[f"{prefix}grad_{key}"], limit))
    return out


def paper_kernels(path: Path) -> list[Quantity]:
    """The paper's kernels and sparsifiers, in float64."""
    file = read(path)
    with jax.enable_x64(True):
        return paper_merges(file) + paper_sparsifiers(file)


def piecewise(file):
    pieces = len(file["alpha_p"])

    def split_columns(x):
        return x.reshape(len(x), pieces, -1).transpose(1, 0, 2)

    return lambda a, b: kernels.piecewise_linear(split_columns(a), split_columns(b), jnp.asarray(file["alpha_p"]))


def paper_merges(file):
    scaled = {name: float(file[name]) for name in SCALARS}
    functions = {
        "linear": kernels.linear,
        "piecewise_linear": piecewise(file),
        "sigmoid": functools.partial(kernels.sigmoid, **scaled),
        "rbf": functools.partial(kernels.rbf, **scaled),
    }
    a, b, g = (jnp.asarray(file[name]) for name in ("A", "B", "cotangent"))
    out = []
    for key in sorted(file):
        if key.endswith("_W"):
            name = key[:-2]
            merged, pull = jax.vjp(functions[name], a, b)
            grad_a, grad_b = pull(g)
            out.append(absolute(key, merged, file[key], 1e-10))
            out.append(absolute(f"{name}_gradA", grad_a, file[f"{name}_gradA"], 1e-10))
            out.append(absolute(f"{name}_gradB", grad_b, file[f"{name}_gradB"], 1e-10))
            out.append(exact(f"{name}_rank", np.linalg.matrix_rank(np.asarray(merged)), file[f"{name}_rank"]))
    return out


def paper_sparsifiers(file):
    modes = {"eq5_detach": "eq5_detach", "eq5_full": "eq5", "hardmask": "hard"}
    a, b, g = (jnp.asarray(file[name]) for name in ("A", "B", "cotangent"))
    merge_pieces, out = piecewise(file), []
    for key in sorted(file):
        found = re.fullmatch(r"(eq5_detach|eq5_full|hardmask)_s([\d.]+)_Ws", key)
        if found:
            mode, level = modes[found[1]], float(found[2])
            pruned, pull = jax.vjp(lambda a, b, m=mode, s=level: sparsify(merge_pieces(a, b), s, mode=m), a, b)
            grad_a, grad_b = pull(g)
            out.append(absolute(key, pruned, file[key], 1e-10))
            out.append(absolute(f"{key[:-2]}gradA", grad_a, file[f"{key[:-2]}gradA"], 1e-10))
            out.append(absolute(f"{key[:-2]}gradB", grad_b, file[f"{key[:-2]}gradB"], 1e-10))
        found = re.fullmatch(r"eq5_s([\d.]+)_thres", key)
        if found:
            magnitudes = jnp.abs(merge_pieces(a, b))
            t = threshold(magnitudes, float(found[1]), mode="eq5")
            out.append(absolute(key, t, file[key], 1e-10))
            k = int((np.asarray(magnitudes) <= float(t)).sum())
            out.append(exact(f"{key[:-6]}_k", k, file[f"{key[:-6]}_k"]))
    return out


# Schedules and allocation ---------------------------------------------------------------------------------------------


def lr_schedule(path: Path) -> list[Quantity]:
    file = read(path)
    out = []
    for key, expected in file.items():
        epochs, peak = re.fullmatch(r"e(\d+)_lr(.+)_lr_used_in_epoch", key).groups()
        with jax.enable_x64(True):
            schedule = epoch_cosine(float(peak), epochs=int(epochs), steps_per_epoch=3)
            found = jax.vmap(schedule)(3 * jnp.arange(len(expected)) + 2)
        out.append(relative(key, found, expected, 1e-10))
    return out


def allocator(path: Path) -> list[Quantity]:
    file = read(path)
    out = training_with_allocation(file) if "losses" in file else []
    for key in sorted(file):
        if found := re.fullmatch(r"(alloc\d+)_out", key):
            case = {n: file[f"{found[1]}_{n}"] for n in ("scores", "max", "volume")}
            kept = allocation.allocate(case["scores"], case["max"], float(case["volume"]))
            out.append(absolute(key, kept, file[key], 1.0))
    if "sched_warm" in file:
        # Warm-ups, interval and length are in the fixtures' notes only; the budgets are the first and last rows'.
        rows = file["sched_warm"]
        schedule = allocation.Schedule(100, 10, 20, 5)
        found = [(e, *allocation.budget(int(e), rows[0, 1], rows[-1, 1], schedule)) for e in rows[:, 0]]
        out.append(exact("sched_warm", np.array(found, np.float64), rows))
    return out


def training_with_allocation(file) -> list[Quantity]:
    """The official run: AdamW 1e-2 with decay 0.05 on one batch, allocation at the start of each epoch."""
    epochs, layers = int(file["total_step"]), [our_path(f"{n}.In_Qs")[1] for n in file["names"]]
    steps = len(file["losses"]) // len(file["thres_per_epoch"])
    tuner = snella(
        2 * file[f"param/{file['names'][0]}.In_Qs"].shape[-1],
        steps_per_epoch=steps,
        epochs=epochs,
        sparsity=float(file["target_ratio"]),
        init_sparsity=float(file["init_thres"]),
        beta1=float(file["beta1"]),
        beta2=float(file["beta2"]),
        **OFF,
    )
    method, variables, batch = assemble(file, tuner, vit_model(file))
    transform = optimizer(float(file.get("lr", 1e-2)), float(file.get("weight_decay", 0.05)))
    trained, frozen = split(variables["params"], method.groups)
    step, opt, state = trainer(method, transform), transform.init(trained), variables["state"]
    sizes = allocation.capacities(state["importance"])
    losses, levels, shares, budgets = [], [], [], []
    ends = float(file["init_nonzero"]), float(file["target_nonzero"])
    for i in range(len(file["losses"])):
        if i % steps == 0:
            score = allocation.scores(state["importance"])
            shares.append([score[path] if i else np.nan for path in layers])
            budgets.append(allocation.budget(i // steps, *ends, allocation.Schedule(epochs)))
        state = method.before_step(state, i) or state
        if i % steps == 0:
            levels.append([state["sparsity"][path] for path in layers])
        value, _, trained, state, opt = step(trained, frozen, state, opt, batch)
        losses.append(value)
    levels, shares = np.array(levels), np.array(shares)
    average = state["importance"][layers[0]]["in_q"]
    total = sum(sizes.values())
    return [
        exact("max_alloc", [sizes[path] for path in layers], file["max_alloc"]),
        relative(
            "nonzero",
            [(1 - float(file["init_thres"])) * total, (1 - float(file["target_ratio"])) * total],
            [file["init_nonzero"], file["target_nonzero"]],
            1e-9,
        ),
        absolute("volumes", np.array(budgets, np.float64), file["volumes"], 1e-6),
        absolute("thresholds of two epochs", levels[:2], file["thres_per_epoch"][:2], 1e-3),
        absolute("thresholds", levels, file["thres_per_epoch"], 0.02),
        absolute("scores", shares, file["score_per_epoch"], 0.02),
        relative("losses", np.array(losses), file["losses"], 1e-4),
        relative("final mean", average["mean"], file["final_exp_avg_ipt_In"], 1e-2),
        relative("final spread", average["spread"], file["final_exp_avg_unc_In"], 1e-2),
    ]


CHECKERS = (
    *snell_models.CHECKERS,
    ("kernels_paper*.npz", paper_kernels),
    ("kernels*.npz", official_kernels),
    ("allocator*.npz", allocator),
    ("lr_schedule*.npz", lr_schedule),
)
