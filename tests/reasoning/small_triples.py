"""Small random knowledge graphs with splits, for tests of samplers."""

import numpy as np

from jaxmodels.data.triples import KnowledgeGraph


def random_triples(seed=0, entities=12, relations=3, edges=(40, 12, 12)):
    rng = np.random.default_rng(seed)
    found = [
        np.stack([rng.integers(n, size=count) for n in (entities, relations, entities)], axis=1) * [[1, 2, 1]]
        for count in edges
    ]
    splits = [np.unique(each, axis=0).astype(np.int32) for each in found]
    names = tuple(f"e{i}" for i in range(entities)), tuple(f"r{i}" for i in range(relations))
    return KnowledgeGraph(*names, *splits, dropped={}, duplicates={})


def write_folder(kg, folder):
    for split in ("train", "valid", "test"):
        rows = getattr(kg, split).tolist()
        lines = [f"{kg.entities[h]}\t{kg.relations[r // 2]}\t{kg.entities[t]}\n" for h, r, t in rows]
        (folder / f"{split}.txt").write_text("".join(lines))
