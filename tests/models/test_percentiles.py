"""Percentiles against NumPy's, over all values of any shape."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax.models.percentiles import percentile_range

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
