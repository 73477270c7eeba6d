import numpy as np
import pytest

from jaxmodels.data.family import SYMMETRIC, family_tree


def edges(tree, splits=("train", "valid", "test")):
    rows = np.concatenate([getattr(tree, split) for split in splits])
    return {(tree.entities[h], tree.relations[r // 2], tree.entities[t]) for h, r, t in rows}


def test_rules_hold_over_all_edges():
    found = edges(family_tree(families=4))
    parents = {(h, t) for h, r, t in found if r == "parent_of"}
    assert {(a, c) for a, b in parents for x, c in parents if x == b} == {
        (h, t) for h, r, t in found if r == "grandparent_of"
    }
    siblings = {(h, t) for h, r, t in found if r == "sibling_of"}
    assert siblings == {(b, d) for a, b in parents for c, d in parents if a == c and b != d}
    aunts = {(h, t) for h, r, t in found if r == "aunt_or_uncle_of"}
    assert {(s, c) for s, p in siblings for x, c in parents if x == p} <= aunts


def test_held_out_edges_are_new_and_everyone_is_known():
    tree = family_tree()
    assert sorted(np.unique(tree.train[:, [0, 2]])) == list(range(len(tree.entities)))
    total = sum(len(getattr(tree, split)) for split in ("train", "valid", "test"))
    assert 200 < len(tree.entities) < 400 and 0.08 < len(tree.test) / total < 0.13
    assert len(edges(tree)) == total
    train = edges(tree, ("train",))
    held = edges(tree, ("valid", "test"))
    assert not any((t, r, h) in train for h, r, t in held if r in SYMMETRIC)


def test_the_seed_decides():
    assert np.array_equal(family_tree(seed=1).train, family_tree(seed=1).train)
    assert family_tree(seed=1).entities != family_tree(seed=2).entities
    with pytest.raises(ValueError, match="families: found 40, expected 2 to 16"):
        family_tree(families=40)
