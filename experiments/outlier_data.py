"""The data of the outliers experiment: real digits in two views, or files; and the outliers that a seed puts in."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

from jaxmodels.data.view_files import ViewData, read_views
from jaxmodels.data.view_masks import view_mask
from jaxmodels.data.view_outliers import KINDS, check_views, global_minmax, inject_outliers, masked_minmax
from jaxmodels.rules import nearest

VIEWS = {"landuse21": (1, 2), "scene15": (0, 1), "fashion": (0, 1)}  # of the published protocol; else all
LABELLED = (  # of normal objects and of outliers; with -1 scikit-learn's outlier detectors answer
    ("0", "1"), ("1", "-1"), ("normal", "outlier"), ("inlier", "outlier"), ("normal", "anomaly"), ("no", "yes"),
    ("false", "true"),
)  # fmt: skip
KNOWN = ("digits", "landuse21", "scene15", "handwritten", "bdgp", "fashion")


class Problem(NamedTuple):
    """A data set before any outlier is put in.

    Attributes:
        name: as known.
        data: views as read, classes, mask.
        about: one sentence.
    """

    name: str
    data: ViewData
    about: str


class Case(NamedTuple):
    """What one seed makes of a data set.

    Attributes:
        views: per view (N, D) in [0, 1], zeros where missing.
        mask: (N, V).
        kind: (N,) index into `kinds`, or None where nobody knows.
        kinds: names; the first is that of normal objects.
    """

    views: tuple[np.ndarray, ...]
    mask: np.ndarray
    kind: np.ndarray | None
    kinds: tuple[str, ...]


def plain(name: str) -> str:
    """A name without case and hyphens.

    >>> plain('LandUse-21')
    'landuse21'
    """
    return name.lower().replace("-", "").replace("_", "")


def load(config: Any) -> Problem:
    """The problem that `--dataset`, `--data_dir` and `--views` name.

    Raises:
        ValueError: an unknown name, a folder that is missing or does not hold it, wrong files, or views that are not
            there.
    """
    if config.data_dir is None:
        if plain(config.dataset) not in ("", "digits"):
            if plain(config.dataset) not in KNOWN:
                hint = nearest(plain(config.dataset), KNOWN) or f"; known are {', '.join(KNOWN)}"
                raise ValueError(
                    f"--dataset: found '{config.dataset}', expected a known name, or --data_dir with it{hint}"
                )
            raise ValueError(f"--data_dir: --dataset={config.dataset} needs the folder that holds it, found none")
        return chosen(config, Problem("digits", digits(), ABOUT))
    folder = Path(config.data_dir)
    if not folder.exists():
        raise ValueError(f"--data_dir: {folder}: no such file or folder")
    place = find(folder, config.dataset)
    data = read_views(place)
    name = plain(config.dataset or data.name)
    widths = ", ".join(str(x.shape[1]) for x in data.views)
    return chosen(config, Problem(name, data, f"{place.name}: {len(data.mask)} objects, views of {widths} features"))


def find(folder: Path, dataset: str) -> Path:
    """The file, or folder of tables, that holds a data set: by its name up to two folders down, or the path itself."""
    if folder.is_file() or (not dataset and any(folder.glob("*.csv"))):
        return folder
    name = plain(dataset or folder.name)
    for each in (*sorted(folder.glob("*")), *sorted(folder.glob("*/*"))):
        table = each.is_dir() and any(each.glob("*.csv"))
        if plain(each.stem) == name and (table or each.suffix in (".mat", ".npz")):
            return each
    if any(folder.glob("*.csv")) and plain(folder.name) == name:
        return folder
    raise ValueError(
        f"--data_dir: {folder} holds no '{dataset or folder.name}', expected {name}.mat, {name}.npz or a folder "
        f"{name} of .csv files; case and hyphens do not matter"
    )


def chosen(config: Any, problem: Problem) -> Problem:
    """The problem with the views that `--views` names, or that the published protocol takes."""
    data = problem.data
    views = config.views or VIEWS.get(problem.name, tuple(range(len(data.views))))
    for v in views:
        if not 0 <= v < len(data.views):
            raise ValueError(f"--views: found {v}, expected some of 0 to {len(data.views) - 1} ({problem.name})")
    if len(set(views)) != len(views) or len(views) < 2:
        raise ValueError(f"--views: found {' '.join(map(str, views))}, expected at least two different ones")
    if len(views) < len(data.views):
        used = f"{problem.about}; views {', '.join(map(str, views))} are used"
        problem = problem._replace(about=used)
    picked = [data.views[v] for v in views]
    mask = data.mask[:, views]
    kept = mask.any(1)
    if not kept.all():
        about = f"{problem.about}; {int((~kept).sum())} objects have none of them and are left out"
        problem = problem._replace(about=about)
    data = data._replace(
        views=tuple(x[kept] for x in picked),
        mask=mask[kept],
        classes=None if data.classes is None else data.classes[kept],
        ids=tuple(np.array(data.ids)[kept].tolist()),
        names=tuple(data.names[v] for v in views),
    )
    check_views(data.views, data.mask, len(data.mask))
    if config.outliers != "unknown" and data.classes is None:
        raise ValueError(f"--outliers={config.outliers}: {problem.name} has no classes, expected --outliers=unknown")
    if config.outliers == "labelled":
        data = data._replace(classes=outlying(data, problem.name).astype(np.int64), labels=("normal", "outlier"))
    return problem._replace(data=data)


def outlying(data: ViewData, name: str) -> np.ndarray:
    """Who is an outlier by the data's own two classes (N,).

    Raises:
        ValueError: other classes than those of `LABELLED`.
    """
    assert data.classes is not None  # `chosen` has asked for them
    labels = [_label(data.labels[i]) for i in np.unique(data.classes)]
    for normal, outlier in LABELLED:
        if sorted(labels) == sorted((normal, outlier)):
            return np.array([_label(label) == outlier for label in data.labels])[data.classes]
    known = ", ".join(f"{normal} and {outlier}" for normal, outlier in LABELLED)
    found = f"{len(labels)} classes" if len(labels) > 4 else f"classes {', '.join(labels)}"
    raise ValueError(f"--outliers=labelled: {name} has {found}, expected two of normal objects and outliers: {known}")


def _label(text: str) -> str:
    """A label in lower case; of 1.0 and 1 the same.

    >>> _label('1.0'), _label('Outlier')
    ('1', 'outlier')
    """
    try:
        return f"{float(text):g}"
    except ValueError:
        return text.lower()


def case_of(config: Any, problem: Problem, seed: int) -> Case:
    """The objects that a seed's run is about: the published protocol, or the data as they are.

    The protocol draws from NumPy's legacy generator of the seed: a mask of missing views, unless the data lack some
    already, then the outliers. Rows stay in their order.
    """
    data = problem.data
    if config.outliers != "inject":
        kind = data.classes if config.outliers == "labelled" else None
        return Case(masked_minmax(data.views, data.mask), data.mask, kind, ("normal", "outlier"))
    assert data.classes is not None  # `chosen` has asked for them
    random = np.random.RandomState(seed)
    mask = data.mask
    if mask.all():
        mask = view_mask(len(mask), len(data.views), config.missing_rate, random)
    found = inject_outliers(
        [global_minmax(x) for x in data.views],
        data.classes,
        mask,
        random,
        attribute=config.attribute_rate,
        classwise=config.class_rate,
        both=config.both_rate,
    )
    return Case(found.views, found.mask, found.kind, KINDS)


def digits() -> ViewData:
    """1,797 scanned digits (scikit-learn's, real) in two views: 64 pixels, and 40 Fourier magnitudes.

    The second is computed from the first, by `rfft2`; magnitudes do not change when a digit is shifted round the edges.
    """
    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels / 16
    fourier = np.abs(np.fft.rfft2(pixels.reshape(-1, 8, 8))).reshape(len(pixels), -1)
    mask = np.ones((len(pixels), 2), np.int32)
    ids = tuple(map(str, range(len(pixels))))
    return ViewData(
        (pixels, fourier), labels.astype(np.int64), mask, ids, ("pixels", "fourier"), "digits", tuple("0123456789")
    )


ABOUT = (
    "digits: 1797 real scanned digits (scikit-learn) in two views: 64 pixels, and 40 Fourier magnitudes computed from "
    "them here"
)


def inject_flags(config: Any) -> Mapping[str, float]:
    """The rates of the protocol."""
    names = ("missing_rate", "attribute_rate", "class_rate", "both_rate")
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in names}
