"""Path rules: which pattern decides, and that splitting and merging lose nothing."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels import rules

TREE = {"backbone": {"block0/attn": {"bias": jnp.ones(3)}, "norm": {"scale": jnp.ones(2)}}, "head": [jnp.ones((2, 2))]}
GROUPS = (("head/.*", "head"), (".*/bias", "bias"), ("backbone/.*", "frozen"))

trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from(["a", "b/c", "norm"]), inner, max_size=3), max_leaves=8
)


def test_names_join_every_kind_of_key():
    assert rules.leaf_names(TREE) == ["backbone/block0/attn/bias", "backbone/norm/scale", "head/0"]


def test_none_is_a_gap_and_no_leaf():
    assert rules.leaf_names({"a": None, "b": 1}) == ["b"]


def test_the_first_matching_rule_decides():
    assert rules.label(TREE, GROUPS)["backbone"] == {"block0/attn": {"bias": "bias"}, "norm": {"scale": "frozen"}}
    assert rules.match("backbone/norm/bias", GROUPS[::-1]) == "frozen"


def test_a_pattern_must_match_the_whole_name():
    assert rules.match("norm/bias", (("norm", "part"), ("norm/bias", "whole"))) == "whole"


def test_a_parameter_in_no_group_is_named_with_the_rules():
    with pytest.raises(ValueError, match=r"parameter 'tail/bias' is in no group; rules: head/\.\*, norm/\.\*"):
        rules.split({"tail": {"bias": 1}}, (("head/.*", "head"), ("norm/.*", "frozen")))


def test_split_puts_each_leaf_on_exactly_one_side():
    trained, frozen = rules.split(TREE, GROUPS)
    assert rules.leaf_names(trained) == ["backbone/block0/attn/bias", "head/0"]
    assert rules.leaf_names(frozen) == ["backbone/norm/scale"]


@given(trees, st.sampled_from(["a.*", ".*b/c.*", ".*", "nothing"]))
def test_merge_inverts_split(tree, pattern):
    trained, frozen = rules.split(tree, ((pattern, "frozen"), (".*", "tuner")))
    assert rules.merge(trained, frozen) == tree
    assert len(jax.tree.leaves(trained)) + len(jax.tree.leaves(frozen)) == len(jax.tree.leaves(tree))


def test_an_empty_tuner_survives_split_and_merge():
    tree = {"tuner": {}, "head": 1}
    assert rules.merge(*rules.split(tree, ((".*", "head"),))) == tree


def test_only_the_trained_half_is_differentiated():
    trained, frozen = rules.split(TREE, GROUPS)
    grads = jax.grad(lambda t: sum(x.sum() for x in jax.tree.leaves(rules.merge(t, frozen))))(trained)
    assert rules.leaf_names(grads) == rules.leaf_names(trained)


def test_select_keeps_the_shape_of_the_tree():
    kept = rules.select({"a": 1, "b": {"c": 2}}, lambda name: name == "b/c")
    assert kept == {"a": None, "b": {"c": 2}}


def test_count_takes_abstract_arrays():
    abstract = jax.eval_shape(lambda: TREE)
    assert rules.count(abstract) == rules.count(TREE) == 9


@pytest.mark.parametrize(("name", "hint"), [("norm/weigth", "; did you mean 'norm/weight'?"), ("positional_table", "")])
def test_nearest_hints_only_at_close_names(name, hint):
    assert rules.nearest(name, ["norm/weight", "head/bias"]) == hint
