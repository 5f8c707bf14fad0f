"""Percentiles against NumPy's, over all values of any shape."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax.models.percentiles import _places, _traced_places, percentile_range

# Images, tokens, features and a column's sums: shapes in which a stride would stay on one channel are among them.
CASES = [((2, 5, 7, 3), (0, 1, 2, 3)), ((9, 15), (0, 1)), ((40, 3, 24), (0, 2)), ((31, 2, 5), (0,))]
ranges = jax.jit(percentile_range, static_argnums=(1, 2))


def assert_as_numpy(values: np.ndarray, percentile: float, axes: tuple[int, ...]) -> None:
    exact = values.astype(np.float64)
    wanted = [np.percentile(exact, p, axis=axes, keepdims=True) for p in (100 - percentile, percentile, 0, 100)]
    spread = np.abs(exact).max()
    for got, end in zip(ranges(values, percentile, axes), wanted, strict=True):
        np.testing.assert_allclose(got, end, rtol=1e-6, atol=1e-7 * spread)


@given(
    case=st.sampled_from(CASES),
    percentile=st.sampled_from([50.5, 99.9, 100.0]),
    kind=st.sampled_from(["normal", "sparse", "ties", "one value", "wide"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_numpy_agrees(case: tuple, percentile: float, kind: str, seed: int) -> None:
    (shape, axes), rng = case, np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.normal(size=shape),
        "sparse": lambda: rng.exponential(size=shape) * (rng.random(shape) < 0.02),
        "ties": lambda: rng.integers(-3, 4, shape),
        "one value": lambda: np.full(shape, rng.normal()),
        "wide": lambda: rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape),
    }[kind]()
    assert_as_numpy(values.astype(np.float32), percentile, axes)


@pytest.mark.parametrize("shape", [(16, 50, 50, 3), (2, 100, 100, 24), (700, 7 * 96)])
def test_of_many_values_every_one_counts(shape: tuple[int, ...]) -> None:
    """One channel is larger than all others, by more where there are fewer values."""
    values = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    values[..., 1] *= 50
    assert_as_numpy(values, 99.9, tuple(range(len(shape))))


@given(
    case=st.sampled_from(CASES),
    percentile=st.sampled_from([50.5, 99.9, 100.0]),
    ties=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_does_not_count_is_as_if_it_were_not_there(case: tuple, percentile: float, ties: bool, seed: int) -> None:
    """Examples that are left out along the first axis; what stands in them, however large, changes nothing."""
    (shape, axes), rng = case, np.random.default_rng(seed)
    values = (rng.integers(-3, 4, shape) if ties else rng.normal(size=shape)).astype(np.float32)
    counted = rng.random(shape[0]) < 0.6
    counted[0] = True
    values[~counted] = rng.choice([-1e30, 1e30])
    mask = counted.reshape(-1, *(1,) * (len(shape) - 1))
    found = ranges(values, percentile, axes, mask)
    for got, wanted in zip(found, ranges(values[counted], percentile, axes), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=2e-6)


def test_a_rank_among_millions_is_exact() -> None:
    """Float32 has no room for 20 million ranks and their fractions; here on the counts alone."""
    count = 20_000_003
    found = _traced_places(99.99, jnp.int32(count))
    for (rank, part), (wanted, share) in zip(found, _places(99.99, count), strict=True):
        assert int(rank) == wanted
        np.testing.assert_allclose(part, share, atol=1e-3)
