"""Contrastive terms all at once and row by row, and objects that are encoded once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.outliers.contrastive import contrast_scores, nt_xent, terms, unit
from jaxmodels.outliers.distinct import SHARE, encode_distinct

COUNTED = jnp.arange(9) % 3 != 1
KEPT = jnp.arange(6) < 4


def rows(seed, count, scale=1.0):
    return scale * unit(jax.random.normal(jax.random.key(seed), (count, 5)))


@pytest.mark.parametrize("counted", [None, COUNTED, jnp.zeros(9, bool)], ids=["all", "some", "none"])
@pytest.mark.parametrize("banked", [None, "all", "some"])
@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_all_rows_at_once_equal_blocks_of_rows(counted, banked, scale):
    options = {"counted": counted, "temperature": 0.3}
    options |= {"bank_counted": KEPT} if banked == "some" else {}

    def loss(block, a, b, bank):
        return nt_xent(a, b, block=block, bank=bank if banked else None, **options)

    given = rows(0, 9, scale), rows(1, 9, scale), rows(2, 6)
    at_once = jax.value_and_grad(loss, argnums=(1, 2, 3))(None, *given)
    in_blocks = jax.value_and_grad(loss, argnums=(1, 2, 3))(4, *given)
    for found, expected in zip(jax.tree.leaves(at_once), jax.tree.leaves(in_blocks), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert counted is not None and not counted.any() or float(at_once[0]) != 0


def test_a_term_by_its_definition():
    a, b, bank = rows(0, 9), rows(1, 9), rows(2, 6)
    found = terms(a, b, temperature=0.5, counted=COUNTED, bank=bank, bank_counted=KEPT)
    x, y, more = (np.asarray(each, np.float64) for each in (a, b, bank))
    for i in np.flatnonzero(np.asarray(COUNTED)):
        for own, other, at in ((x, y, 0), (y, x, 1)):
            others = [own[j] for j in range(9) if j != i and COUNTED[j]] + [other[j] for j in range(9) if COUNTED[j]]
            others += [more[q] for q in range(6) if KEPT[q]]
            expected = np.log(sum(np.exp(own[i] @ each / 0.5) for each in others)) - own[i] @ other[i] / 0.5
            assert float(found[at, i]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 0.04])
@pytest.mark.parametrize("counted", [None, COUNTED], ids=["all", "some"])
def test_scores_are_the_mean_of_the_terms_whatever_the_block(temperature, counted):
    a, b = rows(0, 9), rows(1, 9)
    expected = terms(a, b, temperature=temperature, counted=counted).mean(0)
    there = slice(None) if counted is None else np.flatnonzero(counted)
    for block in (1, 2, 4, 5, 128):  # of 9, 5, 3, 3 blocks and one; the second is padded
        found = contrast_scores(a, b, temperature=temperature, counted=counted, block=block)
        np.testing.assert_allclose(found[there], expected[there], rtol=2e-5)


def test_a_low_temperature_neither_overflows_nor_vanishes():
    a, b = jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.array([[-1.0, 0.0], [-1.0, 0.0]])
    # Logits of -200 and 200; all those of a's first row are -200.
    expected = np.array([[np.log(3), np.log(2)], [400 + np.log(2), np.log(2)]])
    np.testing.assert_allclose(terms(a, b, temperature=0.005), expected, atol=1e-4)
    np.testing.assert_allclose(contrast_scores(a, b, temperature=0.005), expected.mean(0), atol=1e-4)


@pytest.mark.parametrize(("distinct", "short"), [(10, True), (11, False)])
def test_objects_are_encoded_once_where_that_spares_enough(distinct, short):
    table, named = rows(3, 40), jnp.arange(16) % distinct  # at most 10 of 16 rows
    weights = jax.random.normal(jax.random.key(4), (5, 3))

    def told(x):
        return x @ weights + len(x)  # tells how many rows it was given

    count = int(SHARE * 16) if short else 16
    np.testing.assert_allclose(encode_distinct(told, table, named), table[named] @ weights + count, rtol=1e-5)

    def total(encoder, weights):
        return (encoder(lambda x: jnp.tanh(x @ weights), table, named) ** 2).sum()

    found = jax.grad(lambda w: total(encode_distinct, w))(weights)
    np.testing.assert_allclose(found, jax.grad(lambda w: total(lambda e, t, r: e(t[r]), w))(weights), rtol=1e-5)


def test_a_small_table_is_encoded_whole():
    table, named = rows(3, 7), jnp.arange(16) % 7
    found = encode_distinct(lambda x: x + len(x), table, named)
    np.testing.assert_allclose(found, table[named] + 7, rtol=1e-6)
