"""RCPMOD: regularised contrastive partial multi-view outlier detection (Wang et al., ACM MM 2024, arXiv 2408.07819).

One pair of views. Each has an autoencoder; a contrastive loss aligns their latents, with the least agreeing objects of
recent batches as more negatives (`memory`), the neighbours of an object are aligned too, and latents are kept apart
(`spreading`). Latents of missing views are the mean over neighbours that the other view names. The whole data set is in
the method's state, since neighbours are found in it again and again; a batch only says which rows it is about. What is
done here is what the released code does; the paper's own formulas could not be compared.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmodels.method import Aux, Mean, Method
from jaxmodels.outliers.autoencoder import AutoEncoder
from jaxmodels.outliers.contrastive import contrast_scores, nt_xent, unit
from jaxmodels.outliers.distinct import encode_distinct
from jaxmodels.outliers.log_sums import matmul
from jaxmodels.outliers.memory import Bank, new_bank, push
from jaxmodels.outliers.neighbours import neighbours
from jaxmodels.outliers.spreading import ramp, triplet, uniform

CONTRASTS = ("outlier_aware", "plain", "none")
Pair = tuple[jax.Array, jax.Array]


class Options(NamedTuple):
    """What the loss is made of; defaults are those that all released runs share, or LandUse-21's.

    Attributes:
        neighbours: k, of an object in each view.
        temperature: of the contrastive losses and scores.
        contrast: 'outlier_aware', 'plain' (no bank) or 'none'.
        contrast_weight: lambda 1.
        neighbour_weight: lambda 2; 0 leaves the alignment of neighbours out.
        spreading_weight: lambda 3, where the schedule ends, or the weight of every epoch without one.
        schedule_epochs: length of the schedule; None has none.
        warmup_peak: weight after the first 100 epochs of the schedule.
        spread: parts of the spreading: 'triplet' and 'uniform'.
        bank: batches that the bank remembers.
        share: of a batch's rows that go into the bank.
        impute_from: epoch (from 0) from which the contrast takes imputed latents and all rows; None never.
        refresh_neighbours: epochs between searches for neighbours among latents; None searches once, at the start.
        refresh_negatives: epochs between searches for the triplet's negatives.
        negative: which neighbour is the negative, 1 the nearest.
        compat: quirks of the released code: `spreading.largest_dot`; outside of this file also `PairBatches`' order and
            `mean_over_pairs`.
    """

    neighbours: int = 6
    temperature: float = 0.5
    contrast: str = "outlier_aware"
    contrast_weight: float = 1.0
    neighbour_weight: float = 1.0
    spreading_weight: float = 0.2
    schedule_epochs: int | None = 1000
    warmup_peak: float = 0.02
    spread: tuple[str, ...] = ("triplet", "uniform")
    bank: int = 5
    share: float = 0.05
    impute_from: int | None = 50
    refresh_neighbours: int | None = 50
    refresh_negatives: int = 5
    negative: int = 50
    compat: bool = False


class Lists(NamedTuple):
    """Neighbours as object ids; the first axis is the view in which they were found.

    Attributes:
        near: (2, n, k), by latents: for the alignment of neighbours and for imputation.
        raw: (2, n, k), by features, found once: the triplet's positives are drawn from them.
        far: (2, n), the triplet's negatives.
    """

    near: Int[Array, "2 n k"]
    raw: Int[Array, "2 n k"]
    far: Int[Array, "2 n"]


class Others(NamedTuple):
    """Latents, in one view, of the objects that a batch's rows are compared with.

    Attributes:
        near: (k, B, L), of their neighbours.
        raw: (B, L), of the triplet's positives.
        far: (B, L), of its negatives.
        bank: (Q, L), of the bank.
    """

    near: Float[Array, "k b l"]
    raw: Float[Array, "b l"]
    far: Float[Array, "b l"]
    bank: Float[Array, "q l"]


def check_options(options: Options) -> None:
    """Raises ValueError for an option without meaning."""
    least = {"neighbours": 1, "bank": 1, "refresh_negatives": 1, "negative": 1}
    for name, low in least.items():
        if getattr(options, name) < low:
            raise ValueError(f"{name}: found {getattr(options, name)}, expected at least {low}")
    if options.temperature <= 0:
        raise ValueError(f"temperature: found {options.temperature}, expected more than 0")
    if options.contrast not in CONTRASTS:
        raise ValueError(f"contrast: found '{options.contrast}', expected one of {', '.join(CONTRASTS)}")
    if unknown := set(options.spread) - {"triplet", "uniform"}:
        raise ValueError(f"spread: found '{sorted(unknown)[0]}', expected some of triplet, uniform")
    if options.refresh_neighbours is not None and options.refresh_neighbours < 1:
        raise ValueError(f"refresh_neighbours: found {options.refresh_neighbours}, expected at least 1, or None")
    if options.schedule_epochs is not None:
        ramp(peak=options.warmup_peak, end=options.spreading_weight, epochs=options.schedule_epochs)
    if not 0 < options.share <= 1:
        raise ValueError(f"share: found {options.share}, expected more than 0 and at most 1")


def rcpmod(
    widths: tuple[tuple[int, ...], tuple[int, ...]],
    *,
    activation: str = "relu",
    batch_norm: bool = False,
    options: Options | None = None,
) -> Method:
    """Two autoencoders that learn which objects fit together.

    `init` takes {'views': ((n, D1), (n, D2)) in [0, 1], 'has': (n, 2) bool} and, if given, 'batch_size'; so variables
    are made first and handed to `fit`. A training batch has one entry per row: 'rows' object ids, 'weight' 1 or 0 for
    padding, 'epoch' and 'first' (1 in an epoch's first batch); 'column' (below k) says which raw neighbour is the
    triplet's positive, drawn from the key and alike for all objects of an epoch where absent. With batch norm only the
    pass of the batch's own rows moves the running statistics, and scores use these; the released code scores partly by
    the statistics of the data set.

    Args:
        widths: per view D, hidden widths, L.
        activation: see `AutoEncoder`.
        batch_norm: see `AutoEncoder`.
        options: the loss.

    Returns:
        A Method; `predict` gives 'error' (r, 2) squared reconstruction errors (NaN where the view is missing) and
        'contrast' (r,) of the objects 'rows', among all objects. Objects with neither view belong to other pairs: they
        take part in nothing, and both are NaN.

    Raises:
        ValueError: widths or options without meaning.
    """
    chosen = options or Options()
    check_options(chosen)
    if widths[0][-1] != widths[1][-1]:
        raise ValueError(f"widths: latent vectors of {widths[0][-1]} and {widths[1][-1]}, expected equal ones")
    coders = tuple(AutoEncoder(tuple(w), activation, batch_norm) for w in widths)

    def init(key, batch):
        if batch is None or "views" not in batch:
            raise ValueError("batch: found no 'views', expected the data set: 'views' and 'has'")
        views, has = tuple(map(jnp.asarray, batch["views"])), jnp.asarray(batch["has"], bool)
        params, stats = {}, {}
        for v, each in enumerate(jax.random.split(key)):
            made = coders[v].init(each, views[v][:1])
            params[NAMES[v]], stats[NAMES[v]] = made["params"], made.get("stats", {})
        raw = neighbours(views, has, chosen.neighbours)
        lists = Lists(raw, raw, neighbours(views, has, chosen.negative)[:, :, -1])
        rows = int(batch.get("batch_size", 256))
        bank = new_bank(chosen.bank, rows, chosen.share, tuple(x.shape[1] for x in views), views[0].dtype)
        state = {"views": views, "has": has, "lists": lists, "bank": bank, "stats": stats}
        state["key"] = jax.random.key_data(key)  # a checkpoint holds plain numbers
        return {"params": params, "state": state}

    def encode(params, stats, v, x):
        flat = x.reshape(-1, x.shape[-1])
        z = coders[v].apply({"params": params[NAMES[v]], "stats": stats[NAMES[v]]}, flat, method="encode")
        return z.reshape(*x.shape[:-1], -1)

    def refreshed(params, state, epoch, first) -> Lists:
        """The lists, found anew from all latents where it is time."""
        frozen = jax.lax.stop_gradient(params)

        def every(epochs):
            return first & (epoch == 0 if epochs is None else epoch % epochs == 0)

        def search(count):
            latents = tuple(encode(frozen, state["stats"], v, state["views"][v]) for v in (0, 1))
            return neighbours(latents, state["has"], count)

        lists, k = state["lists"], chosen.neighbours
        near = jax.lax.cond(every(chosen.refresh_neighbours), lambda: search(k), lambda: lists.near)
        far = jax.lax.cond(
            every(chosen.refresh_negatives), lambda: search(chosen.negative)[:, :, -1], lambda: lists.far
        )
        return lists._replace(near=near, far=far)

    def loss(variables, batch, key):
        params, state = variables["params"], variables["state"]
        rows, weight = jnp.asarray(batch["rows"]), jnp.asarray(batch["weight"]) > 0
        epoch, first = jnp.asarray(batch["epoch"])[0], jnp.asarray(batch["first"])[0] > 0
        lists = refreshed(params, state, epoch, first)
        column = _columns(state["key"], epoch, len(state["has"]), chosen.neighbours)[rows]
        column = jnp.asarray(batch.get("column", column))
        views = tuple(x[rows] for x in state["views"])
        has = state["has"][rows] & weight[:, None]

        latents, stats, parts = [], {}, {}
        for v in (0, 1):
            count = has[:, v].astype(views[v].dtype) if batch_norm else None
            (made, z), moved = coders[v].apply(
                {"params": params[NAMES[v]], "stats": state["stats"][NAMES[v]]},
                views[v], count, batch_norm, mutable=["stats"],
            )  # fmt: skip
            latents.append(z)
            parts[f"reconstruction{v + 1}"] = _mean(((made - views[v]) ** 2).sum(1), has[:, v])
            stats[NAMES[v]] = jax.lax.stop_gradient(moved.get("stats", {}))
        others = tuple(of_others(params, state, v, lists, rows, column) for v in (0, 1))
        near = tuple(each.near for each in others)

        impute = epoch >= chosen.impute_from if chosen.impute_from is not None else jnp.array(False)
        used = jnp.where(impute, weight, has[:, 0] & has[:, 1])
        filled = tuple(unit(jnp.where((impute & ~has[:, v])[:, None], near[v].mean(0), latents[v])) for v in (0, 1))
        bank = state["bank"]
        if chosen.contrast != "none":
            parts["contrast"] = nt_xent(*filled, counted=used, temperature=chosen.temperature, **of_bank(bank, others))
        if chosen.contrast == "outlier_aware":
            agreement = jax.lax.stop_gradient((filled[0] * filled[1]).sum(1))
            bank = push(bank, views, agreement, used, share=chosen.share)
        if chosen.neighbour_weight:
            # One after another: side by side they would outgrow a core's cache, and compile longer.
            aligned = jax.lax.map(
                lambda pair: nt_xent(*pair, counted=weight, temperature=chosen.temperature),
                (unit(near[0]), unit(near[1])),
            )
            parts["neighbours"] = aligned.mean()
        for v in (0, 1):
            z, count = latents[v], has[:, v]
            if "triplet" in chosen.spread:
                parts[f"triplet{v + 1}"] = triplet(z, others[v].raw, others[v].far, count)
            if "uniform" in chosen.spread:
                parts[f"uniform{v + 1}"] = uniform(z, count, compat=chosen.compat)
        spread = _spread(chosen, epoch)
        factors = {"contrast": chosen.contrast_weight, "neighbours": chosen.neighbour_weight}
        factors |= {"triplet": spread, "uniform": spread, "reconstruction": 1.0}
        total = sum(factors[name.rstrip("12")] * value for name, value in parts.items())
        count = weight.sum().astype(total.dtype)
        metrics = {name: Mean(value * count, count) for name, value in {**parts, "loss": total}.items()}
        after = state | {"lists": lists, "bank": jax.lax.stop_gradient(bank), "stats": stats}
        return total, Aux(after, metrics)

    def of_others(params, state, v, lists, rows, column) -> Others:
        """Latents of all objects that the rows are compared with, and of the bank's."""
        views, bank = state["views"][v], state["bank"].views[v]
        ids = [lists.near[v][rows].T.reshape(-1), lists.raw[v][rows, column], lists.far[v][rows]]
        sizes = [len(each) for each in ids]
        found = encode_distinct(functools.partial(encode, params, state["stats"], v), views, jnp.concatenate(ids))
        near, raw, far = jnp.split(found, np.cumsum(sizes)[:-1].tolist())
        kept = encode(params, state["stats"], v, bank.reshape(-1, bank.shape[-1]))
        return Others(near.reshape(chosen.neighbours, len(rows), -1), raw, far, kept)

    def of_bank(bank: Bank, others: tuple[Others, Others]) -> dict[str, Any]:
        """The bank's objects as options of the contrast."""
        if chosen.contrast == "plain":
            return {}
        there = bank.counted.reshape(-1)
        kept = jnp.concatenate([unit(each.bank) for each in others])
        return {"bank": kept, "bank_counted": jnp.concatenate([there, there])}

    def predict(variables, batch):
        params, state = variables["params"], variables["state"]
        rows, has = jnp.asarray(batch["rows"]), state["has"]
        errors, latents = [], []
        for v in (0, 1):
            coder = {"params": params[NAMES[v]], "stats": state["stats"][NAMES[v]]}
            made, z = coders[v].apply(coder, state["views"][v])
            # A product sums rows faster than XLA's CPU compiler does in one loop with what goes before.
            error = matmul((made - state["views"][v]) ** 2, jnp.ones(made.shape[1], made.dtype))
            errors.append(jnp.where(has[:, v], error, jnp.nan))
            filled = z[state["lists"].near[v]].mean(1)
            latents.append(unit(jnp.where(has[:, v, None], z, filled)))
        there = has.any(1)
        contrast = contrast_scores(*latents, temperature=chosen.temperature, counted=there)
        contrast = jnp.where(there, contrast, jnp.nan)
        return {"error": jnp.stack(errors, 1)[rows], "contrast": contrast[rows]}

    def abstract(rows):
        ids, one = jax.ShapeDtypeStruct((rows,), jnp.int32), jax.ShapeDtypeStruct((rows,), jnp.float32)
        return {"rows": ids, "weight": one, "epoch": ids, "first": ids}

    return Method(init, loss, predict, ((".*", "autoencoders"),), batch=abstract)


NAMES = ("view1", "view2")


def _columns(key, epoch, objects: int, k: int) -> Int[Array, " n"]:
    """Which raw neighbour of each object is the positive of this epoch, in both views."""
    return jax.random.randint(jax.random.fold_in(jax.random.wrap_key_data(key), epoch), (objects,), 0, k)


def _spread(options: Options, epoch) -> jax.Array:
    if options.schedule_epochs is None:
        return jnp.asarray(options.spreading_weight)
    weights = ramp(peak=options.warmup_peak, end=options.spreading_weight, epochs=options.schedule_epochs)
    return weights[jnp.minimum(epoch, options.schedule_epochs - 1)]


def _mean(values: Float[Array, " b"], counted: Bool[Array, " b"]) -> Float[Array, ""]:
    return jnp.where(counted, values, 0.0).sum() / jnp.maximum(counted.sum(), 1)
