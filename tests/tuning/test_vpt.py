"""Visual prompts: where they stand, what deep prompts overwrite, and how they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.tuning.tuner import Context
from jaxmodels.tuning.vpt import vpt
from tests.tiny_vit import BACKBONE, TOKENS
from tests.tuning.tiny import backbone_params, images, largest, tuned

KEY = jax.random.key(0)


def read(tuner, params, path, key=None):
    writers = tuner.writes(params, Context(backbone_params(), {}, key))
    return BACKBONE.read(backbone_params(), images(), (path,), writers=writers)[path]


def test_prompts_stand_between_the_class_token_and_the_patches_without_position():
    tuner = vpt(3, deep=False)
    params = tuner.init(KEY, BACKBONE)
    plain = BACKBONE.read(backbone_params(), images(), ("tokens",))["tokens"]
    found = read(tuner, params, "tokens")
    assert found.shape == (2, TOKENS + 3, 16)
    np.testing.assert_array_equal(found[:, :1], plain[:, :1])
    np.testing.assert_array_equal(found[:, 1:4], np.broadcast_to(params["tokens"], (2, 3, 16)))
    np.testing.assert_array_equal(found[:, 4:], plain[:, 1:])


def test_deep_prompts_overwrite_the_rows_of_the_previous_ones():
    tuner = vpt(3, deep=True)
    params = tuner.init(KEY, BACKBONE)
    shallow = read(vpt(3, deep=False), {"tokens": params["tokens"]}, "block0/out")
    found = read(tuner, params, "block0/out")
    assert found.shape == shallow.shape
    np.testing.assert_array_equal(found[:, 1:4], np.broadcast_to(params["block0/out"], (2, 3, 16)))
    np.testing.assert_array_equal(np.delete(found, (1, 2, 3), 1), np.delete(shallow, (1, 2, 3), 1))


def test_deep_has_prompts_for_every_block_and_shallow_for_the_first():
    assert set(vpt(2, deep=True).init(KEY, BACKBONE)) == {"tokens", "block0/out"}
    assert set(vpt(2, deep=False).init(KEY, BACKBONE)) == {"tokens"}


def test_initial_range():
    bound = (6 / (3 * 4 * 4 + 16)) ** 0.5
    params = vpt(50).init(KEY, BACKBONE)
    for prompts in params.values():
        assert prompts.shape == (50, 16)
        assert 0.95 * bound < float(jnp.abs(prompts).max()) <= bound
    assert largest(params["tokens"] - params["block0/out"]) > 0.1


def test_dropout_differs_between_examples_and_acts_in_training_only():
    tuner = vpt(8, dropout=0.5)
    params = tuner.init(KEY, BACKBONE)
    np.testing.assert_array_equal(tuned(tuner, params), tuned(vpt(8), params))
    rows = read(tuner, params, "tokens", jax.random.key(1))[:, 1:9]
    dropped = np.asarray(rows == 0)
    assert 0.3 < dropped.mean() < 0.7 and (dropped[0] != dropped[1]).any()
    np.testing.assert_allclose(rows, np.where(dropped, 0, 2 * params["tokens"][None]), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": 0}, "prompts: found 0, expected at least 1"),
        ({"dropout": 1.5}, "dropout: found 1.5, expected 0 <= dropout < 1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        vpt(**options)


def test_a_backbone_without_tokens_is_named():
    class NoTokens:
        name, blocks = "cnn", ("stage0",)

        def shapes(self):
            return BACKBONE.shapes()._replace(ports={"token": None})

    with pytest.raises(ValueError, match="vpt on cnn: the backbone has no port 'tokens'; did you mean 'token'"):
        vpt(2).init(KEY, NoTokens())
