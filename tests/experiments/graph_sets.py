"""Small graph data sets as files: one graph whose nodes are classified, and forty small graphs."""

import numpy as np


def node_set(folder, nodes=48, classes=3, **changes):
    """tiny.npz in the layout of heterophilous graphs, with two splits; features that nearly tell the class."""
    random = np.random.default_rng(0)
    labels = np.arange(nodes) % classes
    masks = {f"{name}_masks": np.zeros((2, nodes), bool) for name in ("train", "val", "test")}
    for split in range(2):
        for name, members in zip(masks, np.split(random.permutation(nodes), [24, 36]), strict=True):
            masks[name][split, members] = True
    features = np.eye(classes)[labels] + 0.5 * random.normal(size=(nodes, classes))
    found = {
        "node_features": features.astype(np.float32),
        "node_labels": labels,
        "edges": random.integers(0, nodes, (100, 2)),
        **masks,
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "tiny.npz", **found)
    return folder


def graph_set(folder, graphs=40):
    """MUTAG in GIN's text format: cycles (class 0) and stars (class 1) of 3 to 9 nodes, two tags, ten equal folds."""
    random, lines = np.random.default_rng(1), [str(graphs)]
    for i in range(graphs):
        n = int(random.integers(3, 10))
        lines.append(f"{n} {i % 2}")
        for node in range(n):
            cycle = [(node - 1) % n, (node + 1) % n]
            star = [0] if node else list(range(1, n))
            near = star if i % 2 else cycle
            lines.append(f"{int(random.integers(2))} {len(near)} {' '.join(map(str, near))}")
    place = folder / "MUTAG"
    (place / "10fold_idx").mkdir(parents=True)
    (place / "MUTAG.txt").write_text("\n".join(lines) + "\n")
    for fold in range(10):
        test = [i for i in range(graphs) if i // 4 == fold]
        for part, members in (("test", test), ("train", [i for i in range(graphs) if i not in test])):
            (place / "10fold_idx" / f"{part}_idx-{fold + 1}.txt").write_text("\n".join(map(str, members)) + "\n")
    return folder
