"""Weight maps: the two lists that reading ends with, and that writing is the inverse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.weights import names
from jaxmodels.weights.names import Row

ROWS = (
    Row("stem.weight", ("stem/kernel",), "o i -> i o"),
    Row("blocks.{}.qkv.weight", ("block{}/q", "block{}/k", "block{}/v"), "(n o) i -> n i o"),
    Row("norm.weight", ("norm/scale",)),
)
PUBLISHED = {
    "stem.weight": np.arange(6.0).reshape(2, 3),
    "blocks.0.qkv.weight": np.arange(18.0).reshape(6, 3),
    "norm.weight": np.ones(3),
}
TEMPLATE = {
    "stem": {"kernel": np.zeros((3, 2))},
    "block0": {name: np.zeros((3, 2)) for name in "qkv"},
    "norm": {"scale": np.zeros(3)},
}


def read(published=PUBLISHED, rows=ROWS, template=TEMPLATE, **options):
    return names.read(published, names.expand(rows, 1), template, source="file", **options)


def test_a_fused_array_is_split_in_the_order_of_its_paths():
    block = read()["block0"]
    for i, name in enumerate("qkv"):
        np.testing.assert_array_equal(block[name], PUBLISHED["blocks.0.qkv.weight"][2 * i : 2 * i + 2].T)


def test_writing_inverts_reading():
    written = names.write(read(), names.expand(ROWS, 1))
    assert written.keys() == PUBLISHED.keys()
    for name in PUBLISHED:
        np.testing.assert_array_equal(written[name], PUBLISHED[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": None, "norm.weigth": np.ones(3)}, "file: has no 'norm.weight'; did you mean 'norm.weigth'?"),
        ({"norm.weights": np.ones(3)}, "file: nothing reads 'norm.weights'; did you mean 'norm.weight'?"),
        ({"a": np.ones(1), "b": np.ones(1)}, "file: nothing reads 'a' and 1 more"),
        ({"norm.weight": np.ones(4)}, r"file: 'norm.weight' gives 'norm/scale' the shape \(4,\), expected \(3,\)"),
        ({"stem.weight": np.ones(4)}, r"file: 'stem.weight' has the shape \(4,\), expected \(o i\)"),
        (
            {"blocks.0.qkv.weight": np.ones((7, 3))},
            r"file: 'blocks.0.qkv.weight' has the shape \(7, 3\), expected \(\(n o\) i, n=3\)",
        ),
    ],
)
def test_what_is_missing_left_over_or_misshaped_names_itself(change, message):
    published = {name: array for name, array in (PUBLISHED | change).items() if array is not None}
    with pytest.raises(ValueError, match=message):
        read(published)


def test_a_path_that_nothing_fills_names_itself():
    with pytest.raises(ValueError, match="file: nothing fills 'head'"):
        read(template=TEMPLATE | {"head": np.zeros(1)})


def test_a_row_into_a_path_the_model_lacks_is_an_error():
    with pytest.raises(ValueError, match="'norm.weight' is read into 'norm/scale', which the model does not have"):
        read(template={key: value for key, value in TEMPLATE.items() if key != "norm"})


def test_dropped_names_are_ignored_and_only_those():
    published = PUBLISHED | {"head.bias": np.ones(1), "header": np.ones(1)}
    with pytest.raises(ValueError, match="nothing reads 'header'"):
        read(published, drop=(r"head\..*",))
    read({key: value for key, value in published.items() if key != "header"}, drop=(r"head\..*",))


def test_a_parameter_that_no_row_writes_is_an_error():
    with pytest.raises(ValueError, match="nothing writes 'norm/scale'"):
        names.write(read(), names.expand(ROWS[:2], 1))


@settings(max_examples=20, deadline=None)
@given(blocks=st.integers(1, 4), heads=st.integers(1, 3), width=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_stack_of_all_blocks_is_read_and_written(blocks, heads, width, seed):
    rows = names.expand([Row("stack/q", ("block{}/q",), "n i heads d -> n i (heads d)")], blocks)
    array = np.random.default_rng(seed).standard_normal((blocks, 2, heads, width))
    template = {f"block{i}": {"q": np.zeros((2, heads * width))} for i in range(blocks)}
    ours = names.read({"stack/q": array}, rows, template, axes={"heads": heads})
    for i in range(blocks):
        np.testing.assert_array_equal(ours[f"block{i}"]["q"], array[i].reshape(2, -1))
    np.testing.assert_array_equal(names.write(ours, rows, axes={"heads": heads})["stack/q"], array)
