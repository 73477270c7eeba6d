"""Data of the recommendation experiment: which files a name stands for, how they are read and divided."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.data.interaction_splits import PARTS, read_matrices, split_latest
from jaxmodels.data.interactions import Divided, Interactions, Listed, read_users, split_interactions
from jaxmodels.data.interests import latent_interests
from jaxmodels.data.ratings import LEAST, listed, read_ratings
from jaxmodels.rules import nearest

EMBEDDED = "interests"
RAW = ("ml-100k", "ml-1m")  # whose items keep their numbers, as published
MOVIELENS = (*RAW, "ml-10m", "ml-20m")  # whose ratings count from 4
PUBLISHED = ("steam-200k", "citeulike-t", "citeulike-a", *MOVIELENS)
UNPACKED = {"ml-10m100k": "ml-10m"}  # the folder that GroupLens' archive makes, where it has another name
TABLES = ("ratings.dat", "ratings.csv", "u.data")  # MovieLens'; a users.dat beside the first describes people
FILES = (*TABLES, "users.dat")
ENDINGS = ("csv", "tsv", "txt", "dat", "inter", "csv.gz", "tsv.gz", "txt.gz")


class Loaded(NamedTuple):
    """What a command trains and tests on.

    Attributes:
        name: of the data set.
        about: for people.
        parts: training, validation and test items of each user.
        users: (M,) ids of the file, None where they are 0 to M - 1.
        items: (N,) the same.
        kinds: (N,) categories of the items, where the data tell.
    """

    name: str
    about: str
    parts: Divided
    users: np.ndarray | None = None
    items: np.ndarray | None = None
    kinds: np.ndarray | None = None

    @property
    def num_users(self) -> int:
        """M."""
        return self.parts.train.num_users

    @property
    def num_items(self) -> int:
        """N."""
        return self.parts.train.num_items


def canonical(name: str) -> str:
    """The name under which a data set is known.

    >>> canonical('steam200k'), canonical('ML_1M'), canonical('mine')
    ('steam-200k', 'ml-1m', 'mine')
    """

    def plain(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "")

    name = UNPACKED.get(name.lower(), name)
    return next((known for known in (EMBEDDED, *PUBLISHED) if plain(known) == plain(name)), name)


def load(config: Any) -> Loaded:
    """The data of `--dataset`, `--data_dir` and `--split`.

    Raises:
        ValueError: an unknown name, a missing folder or file, wrong contents, or a split that the data cannot have.
    """
    name = canonical(config.dataset)
    if config.data_dir is None:
        if name not in ("", EMBEDDED):
            if name not in PUBLISHED:
                known = (EMBEDDED, *PUBLISHED)
                raise ValueError(
                    f"--dataset: found '{config.dataset}', expected {EMBEDDED}, or --data_dir with another; published "
                    f"ones are {', '.join(PUBLISHED)}{nearest(config.dataset, known)}"
                )
            raise ValueError(f"--data_dir: --dataset={name} needs the folder that holds it, found none")
        made = latent_interests()
        about = "synthetic (generated: users with one to four interests of unequal size)"
        return _divided(config, Loaded(EMBEDDED, about, Divided(*3 * (made.data,)), kinds=made.kinds), made.data, None)
    folder = Path(config.data_dir)
    if not folder.exists():
        raise ValueError(f"--data_dir: {folder}: no such folder")
    name, file = _file(folder, config.dataset)
    if config.split == "given":
        place = file.parent / "split" if (file.parent / "split").is_dir() else file.parent
        parts = read_matrices(place)
        return Loaded(name, f"{place}, divided as its matrices say", parts)
    found, counted = _read(config, name, file)
    about = f"{file}{counted}"
    loaded = Loaded(name, about, Divided(*3 * (found.data,)), found.users, found.items)
    return _divided(config, loaded, found.data, found.times)


def _file(folder: Path, dataset: str) -> tuple[str, Path]:
    """The name of the data set and the file that holds it."""
    if folder.is_file():
        own = folder.resolve().parent.name if folder.name in FILES else folder.name.partition(".")[0]
        return canonical(dataset or own), folder
    name = canonical(dataset or folder.resolve().name)
    named = [path for path in (*sorted(folder.iterdir()), folder.resolve()) if canonical(path.name) == name]
    for place in (folder / dataset, *named) if dataset else (folder,):
        for file in FILES:
            if (place / file).is_file():
                return name, place / file
    stems = [folder / (dataset or folder.resolve().name), folder / dataset / dataset] if dataset else [folder / name]
    for stem in stems:
        for ending in ENDINGS:
            if (rows := stem.with_name(f"{stem.name}.{ending}")).is_file():
                return name, rows
    here = sorted({path.name.partition(".")[0] if path.is_file() else path.name for path in folder.iterdir()})
    hint = nearest(dataset, here)
    expected = f"{name}/ with {', '.join(TABLES)} or users.dat, or {name}.csv, .tsv, .txt"
    raise ValueError(f"--dataset: {folder} holds no '{dataset or name}', expected {expected}{hint}")


def _read(config: Any, name: str, file: Path) -> tuple[Listed, str]:
    """Interactions, and which rows count, for people."""
    if file.name == "users.dat":
        if config.least_rating is not None:
            raise ValueError(f"--least_rating={config.least_rating:g}: {file} has no ratings")
        return read_users(file, fewest=config.fewest), ""
    ratings = read_ratings(file)
    if config.least_rating is not None and ratings.ratings is None:
        raise ValueError(f"--least_rating={config.least_rating:g}: {file} has no column of ratings")
    least = LEAST if config.least_rating is None and name in MOVIELENS else config.least_rating
    found = listed(ratings, least=least, fewest=config.fewest, raw_items=name in RAW, name=str(file))
    if ratings.ratings is None:
        return found, ""
    return found, ", all rows count" if least is None else f", rows with ratings from {least:g} count"


def _divided(config: Any, loaded: Loaded, data: Interactions, times: np.ndarray | None) -> Loaded:
    if config.split == "given":
        raise ValueError(f"--split=given: {loaded.name} has no matrices of a split, expected --split=random")
    if config.split == "latest":
        if times is None:
            raise ValueError(f"--split=latest: {loaded.name} has no times, expected --split=random")
        return loaded._replace(parts=split_latest(data, times), about=f"{loaded.about}; the newest items are the test")
    parts = split_interactions(data, seed=config.split_seed)
    return loaded._replace(parts=parts, about=f"{loaded.about}; divided 3:1:1 at random, seed {config.split_seed}")


def sizes(loaded: Loaded) -> str:
    """Users, items and interactions, for people."""
    counts = [len(part.items) for part in loaded.parts]
    each = " / ".join(f"{count:,} {name}" for count, name in zip(counts, PARTS, strict=True))
    density = 100 * sum(counts) / (loaded.num_users * loaded.num_items)
    return f"{loaded.num_users:,} users, {loaded.num_items:,} items, {each} interactions ({density:.2g} %)"
