"""Converters: how many codes, where they lie, which way ties go, and the ranges that are known without images."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crossbar.literal import Literal, encode, explicit_codes, granular_codes, snapped_codes
from xbm_jax.crossbar import Adc, AdcRange, Cell, Conv, CrossbarSpec, Gaussian, Tiles, clip_rate, plan, program, read
from xbm_jax.crossbar.primitives.adc import clipped, convert, explicit_range, granular_range, snapped_range
from xbm_jax.crossbar.reading.sums import column_sums, input_codes

LIMITS = st.floats(-1e6, 1e6, width=32).map(lambda x: 0.0 if abs(x) < 1e-3 else x)


def converted(sums: np.ndarray, grid: AdcRange, bits: int) -> np.ndarray:
    """Sums [...] through one converter."""
    return np.asarray(convert(jnp.asarray(sums, jnp.float32)[:, None, None], grid.at(0, 0), bits))[:, 0, 0]


def grid_of(kind: str, bits: int) -> AdcRange:
    if kind == "granular":
        return granular_range(bits)
    if kind == "explicit":
        return explicit_range(-3.0, 11.5, bits)
    return jax.tree.map(lambda a: a.reshape(1, 1, 1, 1), snapped_range(-3.0, 11.5, bits))


@pytest.mark.parametrize("kind", ["granular", "explicit", "snapped"])
@pytest.mark.parametrize("bits", [1, 2, 3, 8, 10])
def test_exactly_two_to_the_bits_codes(kind: str, bits: int) -> None:
    """Evenly spaced, and all of them reached from far below to far above."""
    grid = grid_of(kind, bits)
    low, high = (-3.0, 11.5) if kind != "granular" else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
    found = np.unique(converted(np.linspace(low - 20, high + 20, 40 * 2**bits), grid, bits))
    assert len(found) == 2**bits
    step = float(grid.lsb[0, 0, 0, 0])
    np.testing.assert_allclose(np.diff(found), step, rtol=1e-4)
    np.testing.assert_allclose(step, (high - low) / (2**bits - 1), rtol=1e-6)
    assert abs(found[0] - low) <= step / 2 * 1.0001 and abs(found[-1] - high) <= step / 2 * 1.0001


def test_an_ideal_converter_changes_nothing() -> None:
    sums = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 3)), jnp.float32)
    np.testing.assert_array_equal(convert(sums, granular_range(4).at(0, 0), None), sums)


@pytest.mark.parametrize("kind", ["granular", "explicit", "snapped"])
def test_codes_and_ties_equal_the_oracle(kind: str) -> None:
    """Steps of a power of two: every half step is a tie in float32 too, and goes to the even code."""
    bits, low, high = 4, -3.0, 12.0
    if kind == "granular":
        grid, codes = granular_range(bits), granular_codes(bits)
    elif kind == "explicit":
        low = -2.5  # an odd code and an even one either side of every tie, though no code is a whole number
        grid, codes = explicit_range(low, low + 15, bits), explicit_codes(low, low + 15, bits)
    else:
        grid = jax.tree.map(lambda a: a.reshape(1, 1, 1, 1), snapped_range(low, high, bits))
        codes = snapped_codes(np.array(low), np.array(high), bits)
    sums = np.arange(-20, 30, 0.25)
    np.testing.assert_array_equal(converted(sums, grid, bits), codes.convert(sums[:, None], 0, 0, 0)[0][:, 0])
    ties = np.array([-1.5, -0.5, 0.5, 1.5, 2.5]) + (0.5 if kind == "explicit" else 0.0)
    even = {"explicit": [-0.5, -0.5, 1.5, 1.5, 3.5]}.get(kind, [-2.0, 0.0, 0.0, 2.0, 2.0])
    np.testing.assert_array_equal(converted(ties, grid, bits), even)


@given(LIMITS, LIMITS, st.integers(1, 12))
def test_zero_is_a_code_of_a_snapped_range(one: float, other: float, bits: int) -> None:
    """And the shift that makes it one is at most half a step, so that both ends are still within half a step."""
    low, high = min(one, other), max(one, other)
    grid = jax.tree.map(lambda a: a.reshape(1, 1, 1, 1), snapped_range(low, high, bits))
    lsb, first = float(grid.lsb[0, 0, 0, 0]), float(grid.min_code[0, 0, 0, 0])
    assert lsb > 0 and first == round(first) and -(2**bits - 1) <= first <= 0
    assert converted(np.array([0.0]), grid, bits)[0] == 0.0
    ends = np.array([min(low, 0.0), max(high, 0.0)])
    assert (np.abs(converted(ends, grid, bits) - ends) <= lsb / 2 * (1 + 2**bits * 1e-6)).all()


def test_an_empty_range_still_holds_zero() -> None:
    grid = snapped_range(0.0, 0.0, 8)
    assert (float(grid.lsb), float(grid.min_code), float(grid.offset)) == (1.0, 0.0, 0.0)


def test_a_symmetric_explicit_range_is_taken_as_given() -> None:
    """It has no zero: a silent column adds half a step."""
    grid = explicit_range(-8.0, 8.0, 8)
    np.testing.assert_allclose(converted(np.array([-9.0, -8.0, 8.0, 9.0]), grid, 8), [-8, -8, 8, 8], rtol=1e-6)
    np.testing.assert_allclose(np.abs(converted(np.array([0.0]), grid, 8)), 8 / 255, rtol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Ranges of programmed kernels


# Many small compilations: LLVM's optimiser would take most of the time. XLA's own passes all run.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
write = quick_jit(program, static_argnums=1)
answer, rate = quick_jit(read), quick_jit(clip_rate)


@quick_jit
def largest_errors(tiles: Tiles, x: jax.Array) -> jax.Array:
    """Largest ``|converted - analog|`` of every cycle and tile, in steps."""
    assert tiles.adc is not None
    errors = []
    for t, j, sums in column_sums(tiles.plan, input_codes(tiles, x), tiles.effective):
        grid = tiles.adc.at(j, t)
        errors.append(jnp.max(jnp.abs(convert(sums, grid, tiles.plan.spec.adc.bits) - sums) / grid.lsb))
    return jnp.stack(errors)


def programmed(spec: CrossbarSpec, w_int: np.ndarray, signed: bool, conv: Conv | None = None) -> Tiles:
    return write(
        jnp.asarray(w_int, jnp.float32),
        plan(w_int, spec, conv, signed_inputs=signed),
        jax.random.key(0),
        weight_scale=jnp.ones(w_int.shape[-1]),
        input_scale=1.0,
    )


def integers(shape: tuple[int, ...], top: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-top, top + 1, shape)


def grid_leaves(tiles: Tiles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert tiles.adc is not None
    return np.asarray(tiles.adc.lsb), np.asarray(tiles.adc.min_code), np.asarray(tiles.adc.offset)


@pytest.mark.parametrize("per", ["layer", "tile", "column"])
@pytest.mark.parametrize(("signed", "dac_bits"), [(False, None), (True, 3)])
@pytest.mark.parametrize(("shape", "conv"), [((21, 5), None), ((2, 3, 4, 6), Conv(groups=3))])
def test_max_range_is_the_worst_case(per: Any, signed: bool, dac_bits: int | None, shape: tuple, conv: Any) -> None:
    """Neither narrower nor wider than what the frozen weights can add up to, for what shares a range."""
    spec = CrossbarSpec(rows=8, cell=Cell(3), adc=Adc(6, "max", per), dac_bits=dac_bits, input_bits=7, row_order="tap")
    w_int = integers(shape, 127, 3)
    tiles = programmed(spec, w_int, signed, conv)
    levels = encode(w_int, 8, 3)
    literal = Literal((levels[0] - levels[1]).astype(float), 8, 3, 7, dac_bits, "tap", conv)
    top = 7 if dac_bits else 63 if signed else 127
    low, high = literal.worst_case(-top if signed else 0, top)
    shared = {"layer": (2, 3), "tile": (3,), "column": ()}[per]
    low, high = low.min(shared, keepdims=True), high.max(shared, keepdims=True)
    lsb, first, offset = grid_leaves(tiles)
    tile_count = tiles.plan.row_tiles
    assert lsb.shape == (1, 3, 1 if per == "layer" else tile_count, shape[-1] if per == "column" else 1)
    np.testing.assert_allclose(lsb, np.where(high > low, (high - low) / 63, 1.0), rtol=1e-6)
    assert (np.abs(first - low / lsb) <= 0.5 + 1e-4).all()
    assert not offset.any()


@pytest.mark.parametrize(("adc", "lsb", "first", "offset"), [
    (Adc(5, "granular", "column"), 1.0, -16.0, 0.0), (Adc(5, (-10.0, 52.0), "tile"), 2.0, 0.0, -10.0),
])  # fmt: skip
def test_known_ranges_do_not_depend_on_weights(adc: Adc, lsb: float, first: float, offset: float) -> None:
    leaves = grid_leaves(programmed(CrossbarSpec(adc=adc), integers((21, 5), 127, 0), False))
    assert [leaf.shape for leaf in leaves] == [(1, 1, 1, 1)] * 3
    assert [float(leaf[0, 0, 0, 0]) for leaf in leaves] == [lsb, first, offset]


@pytest.mark.parametrize("adc", [Adc(8), Adc(bits=None), Adc(None, "max"), Adc(None, (0.0, 1.0))])
def test_ranges_that_need_images_or_none_are_not_known(adc: Adc) -> None:
    assert programmed(CrossbarSpec(adc=adc), integers((21, 5), 127, 0), False).adc is None


MAX_SPECS = [
    CrossbarSpec(rows=8, adc=Adc(bits, "max", per), cell=Cell(cell_bits), dac_bits=dac_bits)
    for bits, per, cell_bits, dac_bits in [(8, "layer", 7, None), (4, "tile", 3, 3), (6, "column", 7, 1)]
]


@pytest.mark.parametrize("spec", MAX_SPECS)
@pytest.mark.parametrize("signed", [False, True])
def test_max_range_never_clips(spec: CrossbarSpec, signed: bool) -> None:
    """Whatever the weights and inputs, the inputs that drive a column to its very end among them."""

    @given(st.integers(0, 10**6))
    def check(seed: int) -> None:
        rng = np.random.default_rng(seed)
        w_int = integers((13, 3), int(rng.integers(1, 128)), seed)
        top = 127 if signed else 255
        least = -top if signed else 0
        drives = [np.where(w_int.T > 0, top, least), np.where(w_int.T > 0, least, top)]
        x = np.concatenate([*drives, rng.integers(-300, 301, (3, 13))])
        tiles = programmed(spec, w_int, signed)
        assert (np.asarray(largest_errors(tiles, jnp.asarray(x, jnp.float32))) <= 0.5 * (1 + 1e-4)).all()
        assert rate(tiles, jnp.asarray(x, jnp.float32)) == 0.0

    check()


def test_clipped_is_beyond_the_end_by_more_than_half_a_step() -> None:
    """Half a step beyond is still the last code's own, at both ends and for odd and even codes."""
    for low, high in ((-3.0, 12.0), (-4.0, 11.0)):
        grid = snapped_range(low, high, 4)
        sums = jnp.asarray([low - 0.75, low - 0.5, low, high, high + 0.5, high + 0.75])
        np.testing.assert_array_equal(clipped(sums, grid, 4), [True, False, False, False, False, True])


def test_clip_rate_of_an_ideal_converter_is_zero() -> None:
    tiles = programmed(CrossbarSpec(adc=Adc(bits=None)), integers((21, 5), 127, 0), False)
    assert rate(tiles, jnp.full((2, 21), 1e9)) == 0.0


def test_silent_columns_stay_silent() -> None:
    """Cells that really hold zero, and inputs that are zero, convert to zero in every snapped range."""
    w_int = integers((21, 5), 127, 1)
    w_int[:, 2] = 0
    for per in ("layer", "tile", "column"):
        tiles = programmed(CrossbarSpec(rows=8, adc=Adc(5, "max", per)), w_int, True)
        y = answer(tiles, jnp.asarray(integers((4, 21), 127, 2), jnp.float32))
        np.testing.assert_array_equal(y[:, 2], 0.0)
        np.testing.assert_array_equal(answer(tiles, jnp.zeros((1, 21))), 0.0)


def test_a_lossless_granular_converter_keeps_ideal_cells_and_rounds_errors_away() -> None:
    """One level a step: the sums of ideal cells are codes; a small programming error is rounded off."""
    w_int, x = integers((12, 4), 3, 0), np.random.default_rng(1).integers(0, 4, (5, 12))
    spec = CrossbarSpec(rows=8, weight_bits=3, input_bits=2, cell=Cell(2, 100.0), adc=Adc(8, "granular"))
    for device in (Gaussian(0.0), Gaussian(0.002)):
        tiles = programmed(spec.replace(device=device), w_int, False)
        np.testing.assert_array_equal(answer(tiles, jnp.asarray(x, jnp.float32)), x @ w_int)


@given(st.integers(1, 6), st.floats(-50, 50), st.floats(0.1, 100))
def test_explicit_range_equals_the_oracle(bits: int, low: float, span: float) -> None:
    grid, codes = explicit_range(low, low + span, bits), explicit_codes(low, low + span, bits)
    sums = np.random.default_rng(bits).uniform(low - span, low + 2 * span, 40).astype(np.float32)
    expected, unsure = codes.convert(sums[:, None].astype(float), 0, 0, 0)
    sure = ~unsure[:, 0]
    assume(sure.any())
    ours = converted(sums, grid, bits)
    np.testing.assert_allclose(ours[sure], expected[sure, 0], rtol=0, atol=1e-5 * (span + abs(low)))
