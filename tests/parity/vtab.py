"""Checks the VTAB fixtures: preprocessing, computed labels, metric. Names and sizes come from the files."""

from pathlib import Path

import numpy as np

from jaxmodels.data.images import normalise, resize_pil, resize_tf_bilinear
from jaxmodels.data.vtab import TASKS, clevr_count_label, clevr_distance_label, dsprites_label, kitti_label
from jaxmodels.data.vtab_metric import Summary, summarise, top1_percent
from tests.parity.compare import Quantity, absolute, exact, read

_METHODS = ("bicubic", "bilinear")
_STATISTICS = ("imagenet", "inception")


def check_preprocess(file: Path) -> list[Quantity]:
    """Pillow's resizes are exact; normalised arrays within 1e-5, TensorFlow's bilinear within 1e-4 of 0..255."""
    arrays = read(file)
    unread = set(arrays) - {"size"}
    size = int(arrays["size"])
    found = []
    for key in (key for key in arrays if key.endswith("_image")):
        name, image = key.removesuffix("_image"), arrays[key]
        unread.discard(key)
        for method in _METHODS:
            if (stored := f"{name}_pil_{method}") not in arrays:
                continue
            unread.discard(stored)
            found.append(exact(stored, resize_pil(image, size, size, method), arrays[stored]))
            for statistics in _STATISTICS:
                if (normalised := f"{stored}_{statistics}") in arrays:
                    unread.discard(normalised)
                    ours = normalise(arrays[stored], statistics)
                    found.append(absolute(normalised, ours, arrays[normalised], 1e-5))
        if (stored := f"{name}_tf_bilinear") in arrays:
            unread.discard(stored)
            found.append(absolute(stored, resize_tf_bilinear(image, size, size), arrays[stored], 1e-4))
    return [*found, _all_read(unread)]


def check_labels(file: Path) -> list[Quantity]:
    """Every computed label, exactly."""
    arrays = read(file)
    depths = arrays["clevr_min_pixel_depth"]
    far = np.full_like(depths, 50.0)
    coordinates = [np.stack([[1, 2, z], [3, 4, z + e]]) for z, e in zip(depths, far, strict=True)]
    kitti = zip(arrays["kitti_type"], arrays["kitti_z"], arrays["kitti_count"], strict=True)
    positions, turns = arrays["dsprites_label_x_position"], arrays["dsprites_label_orientation"]
    ours = {
        "clevr_count_label": [clevr_count_label(n) for n in arrays["clevr_num_objects"]],
        "clevr_dist_label": [clevr_distance_label(c) for c in coordinates],
        "kitti_label": [kitti_label(types[:n], z[:n]) for types, z, n in kitti],
        "dsprites_loc_label": [dsprites_label(a, 32) for a in positions],
        "dsprites_ori_label": [dsprites_label(a, 40) for a in turns],
    }
    inputs = {"clevr_min_pixel_depth", "clevr_num_objects", "kitti_type", "kitti_z", "kitti_count"}
    inputs |= {"dsprites_label_x_position", "dsprites_label_orientation"}
    return [*(exact(k, v, arrays[k]) for k, v in ours.items()), _all_read(set(arrays) - inputs - set(ours))]


def check_metric(file: Path) -> list[Quantity]:
    """Means of every stored row of accuracies, and top-1 with its rule for ties."""
    arrays = read(file)
    tasks = [str(name) for name in arrays["task_names"]]
    groups = [TASKS[name].group for name in tasks]
    found = [exact("task_names", np.asarray(list(TASKS)), arrays["task_names"])]
    read_keys = {"task_names", "logits", "labels", "top1_percent"}
    for key in (key for key in arrays if key == "acc" or key.endswith("_acc")):
        prefix = key.removesuffix("acc")
        summary = summarise(arrays[key], groups)
        quantities = _means(prefix, summary, arrays)
        read_keys |= {key, *(f"{prefix}{name}" for name in ("groups", "mean_of_groups", "mean_of_tasks"))}
        read_keys |= {f"{prefix}{group}" for group in summary.groups}
        found += quantities
    top1 = top1_percent(arrays["logits"], arrays["labels"])
    found.append(absolute("top1_percent", top1, arrays["top1_percent"], 1e-9))
    return [*found, _all_read(set(arrays) - read_keys)]


def _means(prefix: str, summary: Summary, arrays: dict) -> list[Quantity]:
    ours = {
        **summary.groups,
        "groups": list(summary.groups.values()),
        "mean_of_groups": summary.mean_of_groups,
        "mean_of_tasks": summary.mean_of_tasks,
    }
    stored = {name: arrays[prefix + name] for name in ours if prefix + name in arrays}
    return [absolute(prefix + name, ours[name], value, 1e-9) for name, value in stored.items()]


def _all_read(unread: set[str]) -> Quantity:
    names = f" ({', '.join(sorted(unread)[:4])})" if unread else ""
    return Quantity(f"arrays not compared{names}", float(len(unread)), 0.0)


CHECKERS = (("preprocess*.npz", check_preprocess), ("labels*.npz", check_labels), ("metric*.npz", check_metric))
