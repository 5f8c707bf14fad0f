"""Cells with a current-voltage curve, against every cell's own current added up in float64."""

from __future__ import annotations

import dataclasses
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
    Gaussian,
    MiloCurve,
    Tiles,
    Wires,
    plan,
    program,
    read,
)
from xbm_jax.crossbar.cells import effective_levels
from xbm_jax.crossbar.published_reram import milo_current
from xbm_jax.errors import SpecError

# 67 to 200 uS: inside Milo's range, where the published polynomials stand as they are, with room for errors.
BITS = 3
CELL = Cell(bits=BITS, on_off=3.0, g_max_siemens=200e-6)
SPEC = CrossbarSpec(rows=8, weight_bits=6, input_bits=4, cell=CELL, adc=Adc(bits=None), curve=MiloCurve(0.4))
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
    got = np.asarray(read(tiles, jnp.asarray(codes, jnp.float32)))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    linear = built(tiles.plan.spec.replace(curve=None), tiles.plan.kernel_shape, conv)
    straight = np.asarray(read(linear, jnp.asarray(codes, jnp.float32)))
    assert np.abs(got - straight).max() > 1e-3 * np.abs(wanted).max()  # the curve is seen at all


@pytest.mark.parametrize("negative_inputs", ["bipolar", "two_pass"])
def test_negative_inputs_see_the_curve_of_their_sign(negative_inputs: Any) -> None:
    tiles = built(SPEC.replace(negative_inputs=negative_inputs), (21, 3), signed=True)
    codes = np.random.default_rng(2).integers(-7, 8, (4, 21)).astype(float)
    wanted, _ = literal(tiles, codes)
    got = read(tiles, jnp.asarray(codes, jnp.float32))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_converters_see_the_curved_sums() -> None:
    tiles = built(SPEC.replace(dac_bits=2, adc=Adc(bits=5, range=(-60.0, 64.0))), (21, 3))
    codes = np.random.default_rng(3).integers(0, 16, (30, 21)).astype(float)
    wanted, sure = literal(tiles, codes)
    assert sure.mean() > 0.9
    got = np.asarray(read(tiles, jnp.asarray(codes, jnp.float32)))
    np.testing.assert_allclose(got[sure], wanted[sure], rtol=0, atol=1e-4 * np.abs(wanted).max())


@given(volts=st.floats(0.05, 0.5), seed=st.integers(0, 99))
def test_at_one_voltage_a_curve_is_a_conductance(volts: float, seed: int) -> None:
    """One input bit a cycle: cells of conductance I(g, v) / v with a linear current read the same."""
    curved = built(SPEC.replace(dac_bits=1, curve=MiloCurve(volts)), (21, 3))
    linear = built(SPEC.replace(dac_bits=1, curve=None), (21, 3))
    unfolded = dataclasses.replace(linear.plan, fold=False)
    at_volts = milo_current(curved.conductance, volts) / volts
    linear = linear.replace(plan=unfolded, effective=effective_levels(linear.levels, at_volts, unfolded))
    codes = jnp.asarray(np.random.default_rng(seed).integers(0, 16, (3, 21)), jnp.float32)
    wanted = np.asarray(read(linear, codes))
    np.testing.assert_allclose(read(curved, codes), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_worst_case_ranges_hold_every_curved_sum() -> None:
    spec = SPEC.replace(adc=Adc(bits=8, range="max", per="column"))
    curved, linear = (built(s, (21, 3)) for s in (spec, spec.replace(curve=None)))
    assert curved.adc is not None and linear.adc is not None
    assert (np.asarray(curved.adc.lsb) > 1.01 * np.asarray(linear.adc.lsb)).any()


def test_gradients_pass_through_the_linear_part() -> None:
    curved, linear = (built(spec, (21, 3)) for spec in (SPEC, SPEC.replace(curve=None)))
    x = jnp.asarray(np.random.default_rng(4).integers(0, 16, (4, 21)), jnp.float32)
    dx, wanted = (jax.grad(lambda x, t=t: jnp.sum(read(t, x)))(x) for t in (curved, linear))
    np.testing.assert_allclose(dx, wanted, rtol=0, atol=1e-4 * float(jnp.max(jnp.abs(wanted))))


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
