"""Granularity, alphabet and estimator, each by itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xbm_jax.crossbar import Conv, CrossbarSpec, plan, program
from xbm_jax.errors import SpecError
from xbm_jax.masks import (
    Alphabet,
    Binary,
    Column,
    Estimator,
    Filter,
    Granularity,
    Identity,
    Kernel,
    Masked,
    Sigmoid,
    Weight,
)

SPEC = CrossbarSpec(rows=16)
CONV = plan(np.ones((3, 3, 8, 5)), SPEC, Conv())  # 72 rows: 5 tiles
GROUPED = plan(np.ones((3, 3, 2, 6)), SPEC, Conv(groups=3))  # 18 rows a group: 2 tiles
DENSE = plan(np.ones((33, 4)), SPEC)  # 3 tiles


@pytest.mark.parametrize(
    ("granularity", "conv", "grouped", "dense", "on_columns"),
    [
        (Column(), (5, 5), (2, 6), (3, 4), True),
        (Filter(), (1, 5), (1, 6), (1, 4), True),
        (Kernel(), (1, 1, 8, 5), (1, 1, 2, 6), (33, 4), False),
        (Weight(), (3, 3, 8, 5), (3, 3, 2, 6), (33, 4), False),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Granularity) else None,
)
def test_shapes(granularity: Granularity, conv: tuple, grouped: tuple, dense: tuple, on_columns: bool) -> None:
    assert granularity.on_columns is on_columns
    for p, shape in ((CONV, conv), (GROUPED, grouped), (DENSE, dense)):
        assert granularity.shape(p) == shape
        values = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
        spread = granularity.spread(values, p)
        wanted = (p.tiles, p.columns) if on_columns else p.kernel_shape
        np.testing.assert_array_equal(jnp.broadcast_to(spread, wanted), jnp.broadcast_to(values, wanted))
        assert not on_columns or spread.shape == wanted


@given(
    hnp.arrays(np.float32, (7,), elements=st.floats(-1, 1, width=32)),
    st.floats(-0.5, 0.5, width=32),
)
def test_binary_turns_above_its_threshold(logits: np.ndarray, threshold: float) -> None:
    alphabet = Binary(threshold)
    codes = alphabet.encode(jnp.asarray(logits))
    assert codes.dtype == jnp.uint8
    np.testing.assert_array_equal(codes, logits > np.float32(threshold))
    np.testing.assert_array_equal(alphabet.decode(codes), (logits > np.float32(threshold)).astype(np.float32))


def test_binary_at_its_threshold_is_off() -> None:
    """Piggyback's rule, ``m > 5e-3``: neighbours in float32 on both sides tell it from ``>=``."""
    assert Binary().threshold == 5e-3 and Binary().bits == 1
    at = np.float32(5e-3)
    logits = jnp.array([np.nextafter(at, np.float32(0)), at, np.nextafter(at, np.float32(1))])
    np.testing.assert_array_equal(Binary().encode(logits), [0, 0, 1])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_decoding_gives_the_asked_type(dtype: Any) -> None:
    assert Binary().decode(jnp.array([0, 1], jnp.uint8), dtype).dtype == dtype


# ---------------------------------------------------------------------------------------------------------------------
# Gradients of the decision

TILES = program(jnp.ones((33, 4)), DENSE, jax.random.key(0))
LOGITS = 5e-3 + 0.1 * jax.random.normal(jax.random.key(1), (3, 4))
UPSTREAM = jax.random.normal(jax.random.key(2), (3, 4))


def gradient(estimator: Estimator, alphabet: Alphabet) -> jax.Array:
    rule = Masked(Column(), alphabet, estimator)
    return jax.grad(lambda m: jnp.sum(UPSTREAM * rule.values(TILES, m)))(LOGITS)


def test_identity_passes_the_gradient_on() -> None:
    np.testing.assert_array_equal(gradient(Identity(), Binary()), UPSTREAM)


@pytest.mark.parametrize(("beta", "temperature"), [(1200.0, 100.0), (3.0, 0.7)])
@pytest.mark.parametrize("threshold", [5e-3, 0.05])
def test_sigmoid_gradient_in_closed_form(beta: float, temperature: float, threshold: float) -> None:
    """``dp/dm = beta / temperature * p * (1 - p)``."""
    p = 1 / (1 + np.exp(-beta * (np.asarray(LOGITS, np.float64) - threshold) / temperature))
    expected = np.asarray(UPSTREAM) * beta / temperature * p * (1 - p)
    np.testing.assert_allclose(gradient(Sigmoid(beta, temperature), Binary(threshold)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimator", [Identity(), Sigmoid()])
def test_values_are_the_decision_whatever_the_estimator(estimator: Estimator) -> None:
    values = Masked(Column(), Binary(), estimator).values(TILES, LOGITS)
    np.testing.assert_array_equal(values, np.asarray(LOGITS) > np.float32(5e-3))
    assert set(np.unique(values)) == {0.0, 1.0}


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Sigmoid(beta=0.0), "Sigmoid.beta"),
        (lambda: Sigmoid(temperature=-1.0), "Sigmoid.temperature"),
        (lambda: Sigmoid(temperature=float("nan")), "Sigmoid.temperature"),
        (lambda: Binary(threshold=float("inf")), "Binary.threshold"),
        (lambda: Binary(threshold="0"), "Binary.threshold"),  # type: ignore[arg-type]
    ],
)
def test_impossible_settings_are_named(make: Any, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.field == name


@pytest.mark.parametrize(
    "call",
    [
        lambda: Granularity().shape(DENSE),
        lambda: Alphabet().bits,
        lambda: Alphabet().encode(LOGITS),
        lambda: Alphabet().decode(LOGITS),
        lambda: Estimator().carrier(LOGITS, 0.0),
    ],
)
def test_what_a_part_of_ones_own_lacks_is_named(call: Any) -> None:
    with pytest.raises(TypeError, match=r"Granularity|Alphabet|Estimator"):
        call()
