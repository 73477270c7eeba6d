"""A small recommendation set as files: users with two groups of items."""

import numpy as np


def lists(users=24, items=30, seed=0):
    """The items of each user: mostly of two groups of ten."""
    random, found = np.random.default_rng(seed), []
    for user in range(users):
        near = np.concatenate([np.arange(10) + 10 * ((user + k) % 3) for k in range(2)])
        weight = np.where(np.isin(np.arange(items), near), 1.0, 0.05)
        found.append(random.choice(items, int(random.integers(10, 16)), replace=False, p=weight / weight.sum()))
    return found


def users_dat(folder, **sizes):
    """folder/tiny/users.dat."""
    place = folder / "tiny"
    place.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{len(own)} {' '.join(map(str, own))}\n" for own in lists(**sizes))
    (place / "users.dat").write_text(text)
    return folder


def ratings_csv(folder, name="mine.csv"):
    """The same as rows of user, item, rating, time."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{100 + u},{i},{5 - k % 2},{k}" for u, own in enumerate(lists()) for k, i in enumerate(own)]
    (folder / name).write_text("user,item,rating,time\n" + "\n".join(rows) + "\n")
    return folder
