"""Draws for reads: the normal's quantiles, as SciPy has them, each as likely as the next, none tied to another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from xbm_jax.crossbar.primitives import draws


def test_coarse_normal_draws_the_quantiles_of_midpoints():
    """Every value that can be drawn, seen: 2**21 draws leave out one of 65,536 with a chance of 1e-9."""
    drawn = np.asarray(draws.coarse_normal(jax.random.key(0), (2**21,)))
    wanted = special.ndtri((np.arange(2**16) + 0.5) / 2**16)
    np.testing.assert_allclose(np.unique(drawn), wanted, rtol=2e-5, atol=2e-7)


def test_coarse_normal_is_normal():
    """Kolmogorov's distance at the 0.1 % level, four moments at four standard errors."""
    drawn = np.asarray(draws.coarse_normal(jax.random.key(1), (1_000, 1_001)), np.float64).ravel()
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    for order, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = 4 * np.sqrt(variance / drawn.size) + (1e-3 if order == 4 else 2e-5)
        assert abs(np.mean(drawn**order) - moment) < error


def test_halves_of_a_word_are_independent():
    """The two draws that share a word, and neighbours."""
    drawn = np.asarray(draws.coarse_normal(jax.random.key(2), (2**20,)), np.float64)
    first, second = drawn[: 2**19], drawn[2**19 :]
    for a, b in ((first, second), (first**2, second**2), (drawn[1:], drawn[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 4)])
def test_shapes_and_dtypes(shape):
    drawn = draws.coarse_normal(jax.random.key(3), shape, jnp.float32)
    assert drawn.shape == shape
    assert drawn.dtype == jnp.float32
    assert jnp.isfinite(drawn).all()


def test_one_key_one_draw_under_jit_and_vmap():
    keys = jax.random.split(jax.random.key(4), 3)
    alone = jnp.stack([draws.coarse_normal(key, (7,)) for key in keys])
    together = jax.jit(jax.vmap(lambda key: draws.coarse_normal(key, (7,))))(keys)
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    assert not np.array_equal(alone[0], alone[1])
