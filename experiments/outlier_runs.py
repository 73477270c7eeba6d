"""One method on one seed's outliers: find them, judge, add a row to the results file; RCPMOD resumes pair by pair."""

import csv
import dataclasses
import io
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from sklearn.metrics import roc_auc_score

from experiments import outlier_methods, tables
from experiments.outlier_data import Case, Problem, case_of
from experiments.outlier_methods import METHODS
from experiments.running import Setup, content, fingerprint, fit_options
from experiments.runs import begin_folder, plain, previous_of, write_result
from jaxmodels.atomic import write_text
from jaxmodels.outliers.pairs import Coders, PairBatches, Recipe, Scores, check_data, merge_scores, pairs_of, train_pair
from jaxmodels.training.checkpoint import has_checkpoint
from jaxmodels.training.memory import peak_bytes
from jaxmodels.training.metrics import read_metrics
from jaxmodels.training.processes import is_main, wait_for_all
from jaxmodels.training.results import find_result
from jaxmodels.weights.files import read_arrays, write_safetensors

BOOKKEEPING = ("evaluate_every",)  # flags that change no result, beside those of every experiment
SCORES, CODERS = "scores.csv", "autoencoders.safetensors"


def for_method(config: Any, name: str) -> Any:
    """The flags as they apply to a method: RCPMOD's are nobody else's."""
    config = dataclasses.replace(config, method=name)
    return config if name == "rcpmod" else outlier_methods.tuned(config)


def method_folder(setup: Setup[Problem], name: str) -> Path:
    """Where a method's runs lie: data set, its name, and a short hash of all that changes a result."""
    config = for_method(setup.config, name)
    short = fingerprint(config, name, content(setup.problem.data), ignoring=BOOKKEEPING)
    return setup.config.workdir / f"{setup.problem.name}-{name}-{short}"


def run_folder(setup: Setup[Problem], name: str, seed: int) -> Path:
    """The folder of one run."""
    return method_folder(setup, name) / f"seed{seed}"


def run(setup: Setup[Problem], name: str, seed: int) -> dict[str, Any]:
    """The result row of one method and seed: taken from the results file, or computed now."""
    folder, config = run_folder(setup, name, seed), setup.config
    key = {"run": folder.parent.name, "method": name, "dataset": setup.problem.name, "seed": seed}
    results = config.workdir / "results.jsonl"
    known = find_result(results, key)
    if known and (folder / SCORES).exists() and (config.resume or name != config.method):
        return known
    started, case = time.perf_counter(), case_of(config, setup.problem, seed)
    begin_folder(folder, {"flags": plain(for_method(config, name))}, config.resume)
    detect = METHODS[name].scores
    if detect is None:
        scores, more = train(setup, case, seed, folder)
    else:
        scores, more = detect(outlier_methods.concatenated(case.views, case.mask), seed), {}
    row = {**key, **judged(case, scores), **more}
    row |= {"seconds": time.perf_counter() - started, "peak_bytes": peak_bytes(), "outliers": config.outliers}
    if is_main():
        write_scores(folder / SCORES, setup.problem.data.ids, scores, case)
        shutil.rmtree(previous_of(folder), ignore_errors=True)
    write_result(results, row)
    return row


def judged(case: Case, scores: np.ndarray) -> dict[str, Any]:
    """Areas under the ROC curve in percent: of all outliers, and of each kind against the normal objects.

    Args:
        case: who is an outlier; where nobody knows there is nothing to say.
        scores: (N,), higher is more outlying.
    """
    if case.kind is None or not (case.kind > 0).any() or (case.kind > 0).all():
        return {"auc": None, "kinds": {}}
    kinds = {}
    for i, name in enumerate(case.kinds[1:], 1):
        if (case.kind == i).any():
            some = (case.kind == 0) | (case.kind == i)
            kinds[name] = 100 * float(roc_auc_score(case.kind[some] == i, scores[some]))
    return {"auc": 100 * float(roc_auc_score(case.kind > 0, scores)), "kinds": kinds}


def train(setup: Setup[Problem], case: Case, seed: int, folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Trains RCPMOD on all pairs of views; finished pairs of an interrupted run are read."""
    config, recipe = setup.config, outlier_methods.recipe_of(setup.config, setup.problem.name)
    check_data(case.views, case.mask, recipe)
    coders: Coders = {}
    found: list[Scores] = []
    all_pairs = pairs_of(len(case.views))
    for i, pair in enumerate(all_pairs):
        inner = folder if len(all_pairs) == 1 else folder / f"pair{pair[0]}-{pair[1]}"
        if config.resume and (inner / CODERS).exists():
            found.append(_read_pair(inner / CODERS, pair, coders))
            continue
        name = f"seed {seed}" if len(all_pairs) == 1 else f"seed {seed}, views {pair[0]} and {pair[1]}"
        per_epoch = PairBatches(case.mask[:, pair] > 0, recipe.batch_size, seed=None).per_epoch
        log = tables.progress(setup.console, f"rcpmod on {setup.problem.name}, {name}", per_epoch * recipe.epochs)
        made = train_pair(
            case.views,
            case.mask,
            pair,
            coders,
            recipe=recipe,
            seed=seed,
            evaluate=lambda scores: _moment(case, [*found, scores], recipe),
            evaluate_every=config.evaluate_every,
            workdir=inner,
            resume=config.resume and has_checkpoint(inner),
            log_every=per_epoch * max(1, config.evaluate_every),
            mesh=setup.mesh,
            **fit_options(config),
            on_log=log,
        )
        setup.clocks.append(made.fitted.clock)
        found.append(made.scores)
        if is_main():
            _write_pair(inner / CODERS, made.scores, coders, pair)
            if i + 1 < len(all_pairs):  # the autoencoders go on; the moments of Adam do not
                shutil.rmtree(inner / "checkpoints", ignore_errors=True)
        wait_for_all(f"pair {pair[0]} and {pair[1]} is written")
    rows = [row for part in sorted({*folder.glob("**/metrics.jsonl")}) for row in read_metrics(part)]
    rates = [row["steps_per_second"] for row in rows if "steps_per_second" in row]
    total = merge_scores(found, recipe)
    more = {
        "pairs": len(all_pairs),
        "epoch_seconds": per_epoch_seconds(case, recipe, rates),
        "auc_error": judged(case, merge_scores([s._replace(total=s.error) for s in found], recipe))["auc"],
        "auc_contrast": judged(case, merge_scores([s._replace(total=s.contrast) for s in found], recipe))["auc"],
        "trained": sum(leaf.size for each in coders.values() for leaf in jax.tree.leaves(each["params"])),
        "settings": recipe._asdict() | {"options": recipe.options._asdict()},
    }
    return total, more


def per_epoch_seconds(case: Case, recipe: Recipe, rates: list[float]) -> float:
    """Median seconds per epoch, searches for neighbours and evaluations included; 0 without rates."""
    steps = -(-len(case.mask) // recipe.batch_size)
    return statistics.median([steps / rate for rate in rates]) if rates else 0.0


def _moment(case: Case, found: list[Scores], recipe: Recipe) -> dict[str, float]:
    """Metrics of a moment of training: of the pairs so far, the current one included."""
    row = judged(case, merge_scores(found, recipe))
    return {} if row["auc"] is None else {"auc": row["auc"], **{f"auc_{k}": v for k, v in row["kinds"].items()}}


def _write_pair(file: Path, scores: Scores, coders: Coders, pair: tuple[int, int]) -> None:
    arrays = flatten_dict({f"view{v}": coders[v] for v in pair}, sep="/")
    kept = {name: np.asarray(leaf) for name, leaf in arrays.items() if not isinstance(leaf, dict)}
    write_safetensors(file, {**kept, **{f"scores/{name}": value for name, value in scores._asdict().items()}})


def _read_pair(file: Path, pair: tuple[int, int], coders: Coders) -> Scores:
    tree = unflatten_dict(read_arrays(file), sep="/")
    for v in pair:
        coders[v] = {"params": tree[f"view{v}"]["params"], "stats": tree[f"view{v}"].get("stats", {})}
    return Scores(**tree["scores"])


def write_scores(file: Path, ids: tuple[str, ...], scores: np.ndarray, case: Case) -> None:
    """A table of all objects, the most outlying first: id, score, and what is known about it."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    write.writerow(["id", "score", *(["kind"] if case.kind is not None else [])])
    for i in np.argsort(-scores, kind="stable"):
        write.writerow([ids[i], f"{scores[i]:.6g}", *([case.kinds[case.kind[i]]] if case.kind is not None else [])])
    write_text(file, out.getvalue())


def read_scores(setup: Setup[Problem], name: str, seed: int) -> np.ndarray:
    """The scores of a finished run, in the order of the objects."""
    lines = (run_folder(setup, name, seed) / SCORES).read_text(encoding="utf-8").splitlines()
    found = {row["id"]: float(row["score"]) for row in csv.DictReader(lines)}
    return np.array([found[each] for each in setup.problem.data.ids])


def history(setup: Setup[Problem], seed: int) -> Sequence[Mapping[str, Any]]:
    """Logged rows of a run of RCPMOD, its pairs one after another."""
    folder, views = run_folder(setup, "rcpmod", seed), len(setup.problem.data.views)
    if views == 2:
        return read_metrics(folder / "metrics.jsonl")
    return [row for a, b in pairs_of(views) for row in read_metrics(folder / f"pair{a}-{b}" / "metrics.jsonl")]
