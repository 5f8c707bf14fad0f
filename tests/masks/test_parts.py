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
from xbm_jax.errors import MethodError, SpecError
from xbm_jax.masks import (
    Alphabet,
    Annealed,
    ArrayChoice,
    Binary,
    Column,
    Estimator,
    Filter,
    Granularity,
    Identity,
    Kernel,
    Line,
    LowRank,
    Masked,
    Shift,
    Sigmoid,
    Soft,
    Ternary,
    Weight,
    methods,
)
from xbm_jax.storage.packing import pack, unpack

SPEC = CrossbarSpec(rows=16)
CONV = plan(np.ones((3, 3, 8, 5)), SPEC, Conv())  # 72 rows: 5 tiles
GROUPED = plan(np.ones((3, 3, 2, 6)), SPEC, Conv(groups=3))  # 18 rows a group: 2 tiles
DENSE = plan(np.ones((33, 4)), SPEC)  # 3 tiles


@pytest.mark.parametrize(
    ("granularity", "conv", "grouped", "dense", "on_columns"),
    [
        (Column(), (5, 5), (2, 6), (3, 4), True),
        (Line(), (5, 2, 5), (2, 2, 6), (3, 2, 4), True),
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
        gains = shape if isinstance(granularity, Line) else (p.row_tiles, p.columns)
        wanted = gains if on_columns else p.kernel_shape
        np.testing.assert_array_equal(jnp.broadcast_to(spread, wanted), jnp.broadcast_to(values, wanted))
        assert not on_columns or spread.shape == wanted


def test_lines_need_pairs() -> None:
    with pytest.raises(MethodError) as caught:
        Line().shape(plan(np.ones((33, 4)), SPEC.replace(encoding="offset")))
    assert (caught.value.field, caught.value.value) == ("CrossbarSpec.encoding", "offset")
    assert "'differential'" in caught.value.allowed


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


@given(hnp.arrays(np.float32, (9,), elements=st.floats(-0.125, 0.125, width=32, allow_subnormal=False)))
def test_ternary_keeps_drops_and_negates(logits: np.ndarray) -> None:
    """Above the threshold 1, below zero -1, between them 0."""
    alphabet = Ternary()
    codes = alphabet.encode(jnp.asarray(logits))
    assert codes.dtype == jnp.uint8 and alphabet.bits == 2
    wanted = [1.0 if m > np.float32(5e-3) else -1.0 if m < 0 else 0.0 for m in logits]
    np.testing.assert_array_equal(alphabet.decode(codes), wanted)


@given(
    hnp.arrays(np.float32, (12,), elements=st.floats(-0.125, 0.015625, width=32, allow_subnormal=False)),
    st.sampled_from([2, 8, 16]),
)
def test_soft_masks_are_on_or_grey(logits: np.ndarray, width: int) -> None:
    """``0.5 (a - min a) / (max a - min a)`` on off entries, to half a step of the code; exactly 1 on the others."""
    alphabet = Soft(width=width)
    codes = alphabet.encode(jnp.asarray(logits))
    values = np.asarray(alphabet.decode(codes))
    assert int(codes.max()) < 2**alphabet.bits
    on = logits > np.float32(5e-3)
    np.testing.assert_array_equal(values[on], 1)
    a = np.where(on, 0, logits).astype(np.float64)
    span = a.max() - a.min()
    wanted = np.where(a == 0, 0, (a - a.min()) / (span or 1)) * 0.5
    np.testing.assert_allclose(values[~on], wanted[~on], rtol=0, atol=0.25 / (2**width - 2) + 1e-6)


@pytest.mark.parametrize(("width", "top"), [(2, 0), (3, 0), (3, 1), (4, 1), (5, 3), (8, 4)])
def test_shifts_are_the_nearest_signed_powers_of_two(width: int, top: int) -> None:
    alphabet = Shift(width=width, top=top)
    powers = 2.0 ** (top - np.arange(2 ** (width - 1) - 1))
    assert 1.0 in powers and alphabet.bits == width
    gains = np.random.default_rng(0).normal(size=200).astype(np.float32) * 2
    codes = alphabet.encode(jnp.asarray(gains))
    assert int(codes.max()) < 2**width
    nearest = powers[np.abs(np.abs(gains)[:, None] - powers).argmin(1)] * np.sign(gains)
    dropped = np.abs(gains) <= min(0.25, powers[-1])
    np.testing.assert_array_equal(alphabet.decode(codes), np.where(dropped, 0, nearest))
    # No value is out of reach, however wide the code.
    values = np.unique(alphabet.decode(jnp.arange(2**width, dtype=jnp.uint8)))
    assert len(values) == 2 * len(powers) + 1
    np.testing.assert_array_equal(alphabet.decode(alphabet.encode(jnp.asarray(1.2 * values))), values)


@given(st.sampled_from([Binary(), Ternary(), Soft(), Soft(width=12), Shift(), Shift(width=5, top=2)]), st.data())
def test_every_code_is_a_value_and_none_is_wider_than_said(alphabet: Alphabet, data: st.DataObject) -> None:
    logits = data.draw(hnp.arrays(np.float32, (6,), elements=st.floats(-8, 8, width=32)))
    codes = alphabet.encode(jnp.asarray(logits))
    assert codes.dtype == (jnp.uint8 if alphabet.bits <= 8 else jnp.uint16)
    assert int(codes.max()) < 2**alphabet.bits
    assert bool(jnp.isfinite(alphabet.decode(codes)).all())


@pytest.mark.parametrize("width", range(2, 25))
@pytest.mark.slow
def test_a_soft_code_of_every_width_learned_is_one_value_and_no_wider(width: int) -> None:
    """Also where all entries are off and just below the threshold, so that the largest grey value is met."""
    alphabet, rng = Soft(width=width), np.random.default_rng(width)
    ends = np.arange(16)
    codes = np.concatenate([ends, 2**width - 1 - ends, rng.integers(0, 2**width, 500)])
    codes = np.unique(codes[(codes >= 0) & (codes < 2**width)]).astype(np.uint32)
    values = np.asarray(alphabet.decode(jnp.asarray(codes.astype(np.dtype(alphabet.encode(jnp.zeros(1)).dtype)))))
    back = np.where(values == 1, 2**width - 1, np.rint(values.astype(np.float64) * 2 * (2**width - 2)))
    np.testing.assert_array_equal(back, codes)
    for logits in (rng.uniform(-1, 4e-3, 999), rng.uniform(-1, 0.1, 999), np.full(9, -1.0), [4e-3, -3e-3]):
        encoded = np.asarray(alphabet.encode(jnp.asarray(logits, jnp.float32)))
        np.testing.assert_array_equal(unpack(pack(encoded, width), width, encoded.size), encoded)
    assert int(alphabet.encode(jnp.asarray([4e-3, -3e-3]))[0]) == 2**width - 2


@pytest.mark.parametrize("width", [25, 26, 31, 32])
def test_a_soft_code_wider_than_float32_is_refused_where_it_is_learned_and_read_where_it_is_stored(width: int) -> None:
    alphabet = Soft(width=width)
    with pytest.raises(SpecError, match=f"Soft.width = {width}: at most 24"):
        alphabet.encode(jnp.zeros(3))
    with pytest.raises(SpecError, match=rf"ksm_soft.bits = {width}: an integer from 2 to 24"):
        methods.ksm_soft(bits=width)
    stored = np.array([0, 2 ** (width - 1) - 1, 2**width - 2, 2**width - 1], np.uint32)
    np.testing.assert_allclose(alphabet.decode(jnp.asarray(stored)), [0, 0.25, 0.5, 1], rtol=1e-6)


@pytest.mark.parametrize("alphabet", [Binary(), Ternary(), Soft(), Shift()], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_decoding_gives_the_asked_type(alphabet: Alphabet, dtype: Any) -> None:
    assert alphabet.decode(jnp.array([0, 1], jnp.uint8), dtype).dtype == dtype


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


@pytest.mark.parametrize(("hold", "floor"), [(0.0, 0.0), (0.3, 0.0), (0.3, 0.2)])
def test_annealing_hardens_towards_the_decision(hold: float, floor: float) -> None:
    """``sigmoid(beta (m - threshold))``, beta from 200 to 20,000 in equal ratios after ``hold``, to the start's."""
    estimator = Annealed(soft_until=0.5, beta_start=200.0, beta_end=2e4, hold=hold, floor=floor)
    rule = Masked(Column(), Binary(), estimator)
    logits = np.asarray(LOGITS, np.float64)
    for progress in (0.0, 0.1, 0.25, 0.4):
        r = max(0.0, 2 * progress - hold) / (1 - hold)
        low, slope = floor * (1 - r), 200 * 100**r

        def gain(m: np.ndarray, low: float = low, slope: float = slope) -> np.ndarray:
            return low + (1 - low) / (1 + np.exp(-np.clip(slope * (m - 5e-3), -500, 500)))

        wanted = gain(logits) / gain(np.asarray(rule.start))
        np.testing.assert_allclose(rule.values(TILES, LOGITS, jnp.float32(progress)), wanted, rtol=1e-4, atol=1e-6)
    for progress in (jnp.float32(0.5), jnp.float32(1.0), None):
        np.testing.assert_array_equal(rule.values(TILES, LOGITS, progress), logits > 5e-3)


@pytest.mark.parametrize("estimator", [Annealed(), Annealed(floor=0.2), Identity(soft_until=0.5)])
@pytest.mark.parametrize("progress", [0.0, 0.2, 0.45, 0.7, None])
def test_a_logit_that_never_moves_counts_fully_throughout(estimator: Estimator, progress: float | None) -> None:
    rule = Masked(Column(), Binary(), estimator)
    at = None if progress is None else jnp.float32(progress)
    np.testing.assert_allclose(rule.values(TILES, rule.init(TILES, jax.random.key(0)), at), 1.0, rtol=1e-6)


def test_real_gains_first_then_snapped() -> None:
    rule, gains = Masked(Column(), Shift(), Identity(soft_until=0.5), 1.0), 0.5 + LOGITS
    np.testing.assert_array_equal(rule.values(TILES, gains, jnp.float32(0.49)), gains)
    snapped = Shift().decode(Shift().encode(gains))
    assert float(jnp.abs(snapped - gains).max()) > 0.01
    for progress in (jnp.float32(0.5), None):
        np.testing.assert_array_equal(rule.values(TILES, gains, progress), snapped)


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
        (lambda: Identity(soft_until=1.5), "Identity.soft_until"),
        (lambda: Annealed(soft_until=0.0), "Annealed.soft_until"),
        (lambda: Annealed(beta_start=10.0, beta_end=1.0), "Annealed.beta_end"),
        (lambda: Annealed(hold=1.0), "Annealed.hold"),
        (lambda: Annealed(floor=1.0), "Annealed.floor"),
        (lambda: Sigmoid(temperature=-1.0), "Sigmoid.temperature"),
        (lambda: Sigmoid(temperature=float("nan")), "Sigmoid.temperature"),
        (lambda: Binary(threshold=float("inf")), "Binary.threshold"),
        (lambda: Binary(threshold="0"), "Binary.threshold"),  # type: ignore[arg-type]
        (lambda: Soft(width=1), "Soft.width"),
        (lambda: Soft(width=33), "Soft.width"),
        (lambda: Shift(width=1), "Shift.width"),
        (lambda: Shift(width=9), "Shift.width"),
        (lambda: Shift(threshold=-0.1), "Shift.threshold"),
        (lambda: Shift(width=2, top=1), "Shift.top"),  # one power of two alone: it has to be 1
        (lambda: Shift(top=-1), "Shift.top"),
        (lambda: ArrayChoice(share=1.1), "ArrayChoice.share"),
        (lambda: ArrayChoice(gain_bits=9), "ArrayChoice.gain_bits"),
        (lambda: ArrayChoice(after_epochs=-1), "ArrayChoice.after_epochs"),
        (lambda: ArrayChoice(gain_rate=-1.0), "ArrayChoice.gain_rate"),
        (lambda: LowRank(rank=0), "LowRank.rank"),
        (lambda: LowRank(alpha=0.0), "LowRank.alpha"),
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
        lambda: Estimator().carrier(LOGITS, 0.0, 1.0),
    ],
)
def test_what_a_part_of_ones_own_lacks_is_named(call: Any) -> None:
    with pytest.raises(TypeError, match=r"Granularity|Alphabet|Estimator"):
        call()
