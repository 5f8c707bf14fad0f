"""Cells with a current-voltage curve, against every cell's own current added up in float64."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbar.literal import explicit_codes, stream, tile_of, unfold
from xbm_jax.crossbar import (
    Adc,
    Cell,
    Conv,
    CrossbarSpec,
    Curve,
    Device,
    Gaussian,
    MiloCurve,
    Tiles,
    Wires,
    at_time,
    plan,
    program,
    read,
    reprogram,
)
from xbm_jax.crossbar.devices.milo import milo_current
from xbm_jax.crossbar.writing.cells import effective_levels
from xbm_jax.crossbar.writing.tiles import nominal_weights
from xbm_jax.errors import SpecError

# 67 to 200 uS: inside Milo's range, where the published polynomials stand as they are, with room for errors.
BITS = 3
CELL = Cell(bits=BITS, on_off=3.0, g_max_siemens=200e-6)
SPEC = CrossbarSpec(rows=8, weight_bits=6, input_bits=4, cell=CELL, adc=Adc(bits=None), curve=MiloCurve(0.4))
answer = jax.jit(read)  # once for a spec: outside of it each call of a dense read compiles its loop over the tiles anew

ENCODINGS: list[dict[str, Any]] = [{}, {"subtract": "digital"}, {"encoding": "offset"}]


def milo_amperes(g: np.ndarray, volts: np.ndarray) -> np.ndarray:
    """``I = G V + NL2 V^2 + NL3 V^3`` with the published polynomials in log10 G."""
    decades = np.log10(g)
    second = np.polyval([1.388e-4, 1.541e-3, 5.711e-3, 7.063e-3], decades)
    third = np.polyval([8.871e-5, 6.7919e-4, 1.2968e-3], decades)
    return g * volts + second * volts**2 + third * volts**3


def built(spec: CrossbarSpec, shape: tuple[int, ...], conv: Conv | None = None, *, signed: bool = False) -> Tiles:
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    made = plan(kernel, spec, conv, signed_inputs=signed)
    scale = jnp.max(jnp.abs(kernel), tuple(range(kernel.ndim - 1))) / spec.max_weight
    tiles = program(kernel, made, jax.random.key(0), weight_scale=scale, input_scale=1.0)
    return tiles.replace(weight_scale=jnp.ones(shape[-1]))


def literal(tiles: Tiles, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The read [..., N] cell by cell, and where float32 can be sure of every code."""
    spec, made = tiles.plan.spec, tiles.plan
    full = (2**spec.dac_bits if spec.dac_bits else 2**spec.input_bits) - 1
    full = min(full, 2 ** (spec.input_bits - 1) - 1) if made.signed_inputs else full
    assert spec.curve is not None
    v_unit = spec.curve.v_read_volts / full
    unit = v_unit * CELL.g_max_siemens * (1 - 1 / CELL.on_off) / (2**BITS - 1)
    g = np.asarray(tiles.conductance, np.float64)
    index = tile_of(made.kernel_shape, spec.rows, spec.row_order)
    passes = [(1, codes)]
    if made.signed_inputs and spec.negative_inputs == "two_pass":
        passes = [(1, np.maximum(codes, 0)), (-1, np.maximum(-codes, 0))]
    low_high = spec.adc.range
    adc = explicit_codes(low_high[0], low_high[1], spec.adc.bits or 0) if isinstance(low_high, tuple) else None
    signs = (1, -1) if spec.encoding == "differential" else (1,)
    total, sure = 0.0, True
    for t in range(index.max() + 1):
        for sign, streamed in passes:
            for j, cycle in enumerate(stream(streamed, spec.input_bits, spec.dac_bits)):
                (patches,) = unfold(cycle, made.kernel_shape, made.conv)
                rows = patches.reshape(*patches.shape[: patches.ndim - index.ndim], -1)[..., index.ravel() == t]
                weight = sign * 2.0 ** (j * (spec.dac_bits or 0))
                for s in range(spec.slices):
                    cells = [g[p, s].reshape(-1, g.shape[-1])[index.ravel() == t] for p in range(len(signs))]
                    currents = [(milo_amperes(c, rows[..., None] * v_unit) / unit).sum(-2) for c in cells]
                    if spec.subtract == "analog" and len(signs) == 2:
                        currents, own = [currents[0] - currents[1]], (1,)
                    else:
                        own = signs
                    for polarity, sums in zip(own, currents, strict=True):
                        value, unsure = (sums, np.zeros(1, bool)) if adc is None else adc.convert(sums, 0, 0, 0)
                        total = total + weight * polarity * 2.0 ** (s * BITS) * value
                        sure = sure & ~unsure
        (patches,) = unfold(codes, made.kernel_shape, made.conv)
        inputs = patches.reshape(*patches.shape[: patches.ndim - index.ndim], -1)[..., index.ravel() == t].sum(-1)
        total = total - made.digital_offset * inputs[..., None]
    return np.asarray(total), np.broadcast_to(sure, np.shape(total))


@pytest.mark.parametrize("changes", [*ENCODINGS, {"dac_bits": 2}, {"device": Gaussian(0.01)}], ids=str)
@pytest.mark.parametrize("conv", [None, Conv(padding="SAME")], ids=["dense", "conv"])
def test_a_read_adds_up_every_cells_current(conv: Conv | None, changes: dict[str, Any]) -> None:
    tiles = built(SPEC.replace(**changes), (21, 3) if conv is None else (3, 3, 2, 3), conv)
    shape = (4, 21) if conv is None else (2, 4, 4, 2)
    codes = np.random.default_rng(1).integers(0, 16, shape).astype(float)
    wanted, _ = literal(tiles, codes)
    got = np.asarray(answer(tiles, jnp.asarray(codes, jnp.float32)))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    linear = built(tiles.plan.spec.replace(curve=None), tiles.plan.kernel_shape, conv)
    straight = np.asarray(answer(linear, jnp.asarray(codes, jnp.float32)))
    assert np.abs(got - straight).max() > 1e-3 * np.abs(wanted).max()  # the curve is seen at all


@pytest.mark.parametrize("negative_inputs", ["bipolar", "two_pass"])
def test_negative_inputs_see_the_curve_of_their_sign(negative_inputs: Any) -> None:
    tiles = built(SPEC.replace(negative_inputs=negative_inputs), (21, 3), signed=True)
    codes = np.random.default_rng(2).integers(-7, 8, (4, 21)).astype(float)
    wanted, _ = literal(tiles, codes)
    got = answer(tiles, jnp.asarray(codes, jnp.float32))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_ideal_converters_clip_no_gradient() -> None:
    passing, zeroing = (built(SPEC.replace(adc=Adc(bits=None, clip_gradient=how)), (21, 3)) for how in ("pass", "zero"))
    codes = jnp.asarray(np.random.default_rng(4).integers(0, 16, (4, 21)), jnp.float32)
    wanted, got = (jax.grad(lambda x, t=t: jnp.sum(answer(t, x)))(codes) for t in (passing, zeroing))
    np.testing.assert_array_equal(got, wanted)


def test_converters_see_the_curved_sums() -> None:
    tiles = built(SPEC.replace(dac_bits=2, adc=Adc(bits=5, range=(-60.0, 64.0))), (21, 3))
    codes = np.random.default_rng(3).integers(0, 16, (30, 21)).astype(float)
    wanted, sure = literal(tiles, codes)
    assert sure.mean() > 0.9
    got = np.asarray(answer(tiles, jnp.asarray(codes, jnp.float32)))
    np.testing.assert_allclose(got[sure], wanted[sure], rtol=0, atol=1e-4 * np.abs(wanted).max())


@given(volts=st.sampled_from([0.05, 0.11, 0.2, 0.37, 0.5]), seed=st.integers(0, 99))  # each voltage is a compilation
def test_at_one_voltage_a_curve_is_a_conductance(volts: float, seed: int) -> None:
    """One input bit a cycle: cells of conductance I(g, v) / v with a linear current read the same."""
    curved = built(SPEC.replace(dac_bits=1, curve=MiloCurve(volts)), (21, 3))
    linear = built(SPEC.replace(dac_bits=1, curve=None), (21, 3))
    unfolded = dataclasses.replace(linear.plan, fold=False)
    at_volts = milo_current(curved.conductance, volts) / volts
    linear = linear.replace(plan=unfolded, effective=effective_levels(linear.levels, at_volts, unfolded))
    codes = jnp.asarray(np.random.default_rng(seed).integers(0, 16, (3, 21)), jnp.float32)
    wanted = np.asarray(answer(linear, codes))
    np.testing.assert_allclose(answer(curved, codes), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_worst_case_ranges_hold_every_curved_sum() -> None:
    spec = SPEC.replace(adc=Adc(bits=8, range="max", per="column"))
    curved, linear = (built(s, (21, 3)) for s in (spec, spec.replace(curve=None)))
    assert curved.adc is not None and linear.adc is not None
    assert (np.asarray(curved.adc.lsb) > 1.01 * np.asarray(linear.adc.lsb)).any()


@dataclass(frozen=True)
class Bent(Curve):
    """``A2 = second g`` and ``A3 = third g^2 / g_max``, so that a pair's curve is not one cell's times a factor."""

    second: float = 0.0
    third: float = 0.0

    def coefficients(self, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.second * g, self.third * g**2 / CELL.g_max_siemens


TWICE = Bent(0.4, -6.0, 10.0)  # between 0 and 0.4 V the cells with much conductance turn twice
BENDS = [
    *((TWICE, changes, False) for changes in (*ENCODINGS, {"dac_bits": 2})),
    *((curve, {}, True) for curve in (TWICE, Bent(0.4, -2.0, 0.0), Bent(0.4, 0.0, -4.0), MiloCurve(0.4))),
]


@pytest.mark.parametrize(("curve", "changes", "signed"), BENDS, ids=str)
def test_worst_case_ranges_are_the_extremes_over_all_codes(curve: Curve, changes: dict[str, Any], signed: bool) -> None:
    """Every cell's part at every code that a cycle streams: a curve may turn between the end codes."""
    spec = SPEC.replace(curve=curve, adc=Adc(bits=8, range="max", per="column"), **changes)
    tiles = built(spec, (21, 3), signed=signed)
    assert tiles.adc is not None and tiles.curvature is not None
    first, last = tiles.plan.cycle_code_limits
    codes = np.arange(first, last + 1, dtype=float)[:, None, None, None]
    e, e2, e3 = (np.asarray(a, np.float64) for a in (tiles.effective, *tiles.curvature))
    parts = codes * e + codes**2 * e2 + codes**3 * e3  # [codes, V, K, N]
    high, low = (np.add.reduceat(end, (0, 8, 16), axis=1) for end in (parts.max(0), parts.min(0)))
    np.testing.assert_allclose(tiles.adc.lsb[0] * 255, high - low, rtol=1e-5)
    np.testing.assert_allclose(tiles.adc.min_code[0] * tiles.adc.lsb[0], low, atol=0.51 * np.max(high - low) / 255)


def test_gradients_pass_through_the_linear_part() -> None:
    curved, linear = (built(spec, (21, 3)) for spec in (SPEC, SPEC.replace(curve=None)))
    x = jnp.asarray(np.random.default_rng(4).integers(0, 16, (4, 21)), jnp.float32)
    dx, wanted = (jax.grad(lambda x, t=t: jnp.sum(read(t, x)))(x) for t in (curved, linear))
    np.testing.assert_allclose(dx, wanted, rtol=0, atol=1e-4 * float(jnp.max(jnp.abs(wanted))))


@dataclass(frozen=True)
class Fades(Device):
    """Loses three tenths of every conductance at once."""

    def drift(self, g: jax.Array, *others: Any) -> jax.Array:
        return 0.7 * g


@pytest.mark.parametrize("changes", ENCODINGS, ids=str)
def test_compensation_reads_through_the_curve(changes: dict[str, Any]) -> None:
    """All DACs at full scale: each cell conducts ``g v + third g^2 v^3 / g_max``, with g and with 0.7 g."""
    third, volts = 5.0, 0.4
    tiles = built(SPEC.replace(curve=Bent(volts, 0.0, third), device=Fades(), **changes), (21, 3))

    def summed(g: np.ndarray) -> float:
        currents = (g * volts + third * g**2 / CELL.g_max_siemens * volts**3).sum(2)  # [P, S, N]
        pairs = currents[:1] - currents[1:] if not changes else currents
        return float(np.abs(pairs).sum())

    g = np.asarray(tiles.programmed, np.float64)
    aged = at_time(tiles, 1.0, compensate=True)
    assert aged.drift_factor is not None
    np.testing.assert_allclose(aged.drift_factor, summed(g) / summed(0.7 * g), rtol=1e-5)
    assert abs(float(aged.drift_factor) - 1 / 0.7) > 0.05  # what the linear part alone would ask for


def test_a_rewrite_moves_no_bit_of_the_other_cells_curves() -> None:
    before = at_time(built(SPEC.replace(device=Gaussian(0.01)), (21, 3)), 1.0)
    weights = np.array(nominal_weights(before))
    weights[3, 1] = -weights[3, 1]
    after = jax.jit(reprogram)(before, jnp.asarray(weights))
    assert before.curvature is not None and after.curvature is not None
    same = np.ones(weights.shape, bool)
    same[3, 1] = False
    np.testing.assert_array_equal(np.asarray(after.curvature)[..., same], np.asarray(before.curvature)[..., same])
    assert (np.asarray(after.curvature)[..., ~same] != np.asarray(before.curvature)[..., ~same]).all()


def test_a_curve_keeps_a_read_from_folding_and_needs_no_converter() -> None:
    tiles = built(SPEC, (21, 3))
    assert not tiles.plan.fold and tiles.plan.fold_reason.startswith("MiloCurve")
    assert tiles.calibrated and tiles.adc is None


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: MiloCurve(0.6), "MiloCurve.v_read_volts"),
        (lambda: MiloCurve(0.0), "MiloCurve.v_read_volts"),
        (lambda: Curve(-0.1), "Curve.v_read_volts"),
        (lambda: SPEC.replace(curve="milo"), "CrossbarSpec.curve"),
        (lambda: SPEC.replace(wires=Wires(1.0, 1.0)), "CrossbarSpec.curve"),
    ],
)
def test_impossible_curves_are_refused(make: Any, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.field == field
