"""Other ways to hold and read the same integers: offset encoding, digital subtraction, two passes, analog cells."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xbm_jax.crossbar import (
    Adc,
    Cell,
    Conv,
    CrossbarSpec,
    Gaussian,
    PcmJoshi,
    Tiles,
    Wires,
    at_time,
    plan,
    program,
    read,
)
from xbm_jax.crossbar.primitives.wires import fold_wires
from xbm_jax.crossbar.writing.cells import effective_levels

answer = jax.jit(read)

RNG = np.random.default_rng(5)
CONV = Conv((1, 1), ((1, 1), (1, 1)), groups=2)
W_DENSE = RNG.integers(-127, 128, (21, 6))
W_CONV = RNG.integers(-127, 128, (3, 3, 3, 4))
VARIANTS: list[dict[str, Any]] = [
    {"encoding": "offset", "cell": Cell(bits=8)},
    {"encoding": "offset", "cell": Cell(bits=3)},
    {"subtract": "digital"},
    {"subtract": "digital", "cell": Cell(bits=2)},
    {"negative_inputs": "two_pass"},
    {"negative_inputs": "two_pass", "dac_bits": 3, "encoding": "offset", "cell": Cell(bits=4)},
    {"cell": Cell(bits=None), "dac_bits": 4},
]


def built(w_int: np.ndarray, spec: CrossbarSpec, signed: bool, key: int = 0) -> Any:
    conv = CONV if w_int.ndim == 4 else None
    ones = np.ones(w_int.shape[-1], np.float32)
    planned = plan(w_int, spec, conv, signed_inputs=signed, weight_scale=ones)
    scale = jnp.asarray(ones)
    return program(jnp.asarray(w_int, jnp.float32), planned, jax.random.key(key), weight_scale=scale, input_scale=1.0)


def codes_for(w_int: np.ndarray, signed: bool) -> np.ndarray:
    shape = (2, 4, 4, 6) if w_int.ndim == 4 else (3, 21)
    return np.random.default_rng(1).integers(-127 if signed else 0, 128 if signed else 256, shape)


def exact(x: np.ndarray, w_int: np.ndarray) -> np.ndarray:
    """The integer product, in int64."""
    if w_int.ndim == 2:
        return x @ w_int
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((2, 4, 4, 4), np.int64)
    for i in range(3):
        for j in range(3):
            patch = padded[:, i : i + 4, j : j + 4]
            for group in range(2):
                inputs, outputs = slice(3 * group, 3 * group + 3), slice(2 * group, 2 * group + 2)
                y[..., outputs] += patch[..., inputs] @ w_int[i, j, :, outputs]
    return y


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("w_int", [W_DENSE, W_CONV], ids=["dense", "conv"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_encoding_gives_the_integer_product(variant: dict[str, Any], w_int: np.ndarray, signed: bool) -> None:
    """Folded by an ideal converter with a finite on/off ratio, and read conversion by conversion by a fine one."""
    x = codes_for(w_int, signed)
    wanted = exact(x, w_int)
    cell = dataclasses.replace(variant.get("cell", Cell()), on_off=4.0)
    folded = built(w_int, CrossbarSpec(rows=8, **{**variant, "cell": cell}, adc=Adc(bits=None)), signed)
    assert folded.plan.fold
    np.testing.assert_allclose(answer(folded, jnp.asarray(x, jnp.float32)), wanted, atol=0.5)
    span = float(2**19)
    fine = CrossbarSpec(rows=8, **variant, adc=Adc(16, (-span, span)))
    apart = built(w_int, fine, signed)
    assert not apart.plan.fold
    y = answer(apart, jnp.asarray(x, jnp.float32))
    weights = np.abs(np.outer(apart.plan.cycle_weights, apart.plan.conversion_weights)).sum()
    half_step = span / (2**16 - 1)
    assert np.abs(np.asarray(y) - wanted).max() <= apart.plan.row_tiles * weights * half_step * 1.01 + 1


@pytest.mark.parametrize("variant", VARIANTS[:6], ids=str)
def test_lossless_converters_fold_to_the_same_bits(variant: dict[str, Any]) -> None:
    w_int = W_DENSE
    tiles = built(w_int, CrossbarSpec(rows=8, **variant, adc=Adc(16, "granular"), input_bits=4), False)
    top = 15
    x = jnp.asarray(np.random.default_rng(2).integers(0, top + 1, (5, 21)), jnp.float32)
    assert tiles.plan.fold and tiles.plan.fold_reason.startswith("lossless 16-bit")
    unfolded = dataclasses.replace(tiles.plan, fold=False)
    apart = tiles.replace(plan=unfolded, effective=effective_levels(tiles.levels, tiles.conductance, unfolded))
    np.testing.assert_array_equal(answer(tiles, x), np.asarray(x, np.int64) @ w_int)
    np.testing.assert_array_equal(answer(apart, x), answer(tiles, x))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"device": Gaussian(0.01)}, "device errors"),
        ({"wires": Wires(1.0, 0.0)}, "wire resistance"),
        ({"adc": Adc(16, "granular", noise_lsb=0.1)}, "mismatch or noise"),
        ({"encoding": "offset", "cell": Cell(8, on_off=10.0)}, "current of level 0"),
        ({"adc": Adc(4, "granular")}, "leave the converter's"),
        ({"adc": Adc(8, "max")}, "step is not one level"),
    ],
)
def test_what_keeps_a_read_from_folding_is_said(changes: dict[str, Any], why: str) -> None:
    base = CrossbarSpec(rows=8, adc=Adc(16, "granular"), input_bits=4)
    made = plan(W_DENSE, base.replace(**changes))
    assert not made.fold and why in made.fold_reason


def test_fine_tuned_weights_are_not_read_through_a_range_planned_for_others() -> None:
    from xbm_jax.crossbar import reprogram

    small = np.ones((4, 2))
    tiles = built(small, CrossbarSpec(rows=8, adc=Adc(8, "granular"), input_bits=4), False)
    assert tiles.plan.fold
    rewritten = reprogram(tiles, jnp.full((4, 2), 100.0))
    assert not rewritten.plan.fold
    np.testing.assert_array_equal(answer(rewritten, jnp.full((1, 4), 15.0)), [[127.0, 127.0]])


@pytest.mark.parametrize("row_order", ["channel", "tap"])
def test_wires_see_the_array_as_it_stands(row_order: Any) -> None:
    """Effective weights against a fold of arrays that the test lays out cell by cell; spare cells hold g_min."""
    cell = Cell(bits=4, on_off=20.0)
    spec = CrossbarSpec(rows=8, cols=12, cell=cell, wires=Wires(3.0, 7.0), adc=Adc(None), row_order=row_order)
    tiles = built(W_CONV, spec, False)
    plain = np.asarray(tiles.conductance, np.float64)
    seen = np.zeros(plain.shape)
    order = {"channel": [(i, j, c) for c in range(3) for i in range(3) for j in range(3)]}
    order["tap"] = [(i, j, c) for i in range(3) for j in range(3) for c in range(3)]
    for group in range(2):
        for tile in range(4):
            rows = order[row_order][8 * tile : 8 * tile + 8]
            array = np.full((8, 12), cell.g_min_siemens)
            place = {
                (n, s, p): 4 * (n - 2 * group) + 2 * s + p
                for n in (2 * group, 2 * group + 1) for s in (0, 1) for p in (0, 1)
            }  # fmt: skip
            for r, (i, j, c) in enumerate(rows):
                for (n, s, p), m in place.items():
                    array[r, m] = plain[p, s, i, j, c, n]
            folded = np.asarray(fold_wires(jnp.asarray(array, jnp.float32), 3.0, 7.0))
            for r, (i, j, c) in enumerate(rows):
                for (n, s, p), m in place.items():
                    seen[p, s, i, j, c, n] = folded[r, m]
    wanted = (seen[0] - seen[1]) / spec.g_step_siemens
    wanted = wanted[0] + 16 * wanted[1]
    np.testing.assert_allclose(np.asarray(tiles.effective)[0], wanted, atol=2e-3)
    assert np.abs(wanted - W_CONV).max() > 0.05


def test_ages_do_not_add_up_and_compensation_restores_the_mean() -> None:
    spec = CrossbarSpec(rows=8, cell=Cell(g_max_siemens=25e-6), device=PcmJoshi(), adc=Adc(None))
    tiles = built(W_DENSE, spec, False)
    month = at_time(tiles, 2.6e6)
    twice = at_time(at_time(tiles, 1e3), 2.6e6)
    np.testing.assert_array_equal(month.conductance, twice.conductance)
    assert float(month.conductance.mean()) < 0.8 * float(tiles.conductance.mean())
    repaired = at_time(tiles, 2.6e6, compensate=True)
    currents = [np.abs(np.asarray(t.effective).sum((0, 1))).sum() for t in (tiles, month)]
    assert repaired.drift_factor is not None
    np.testing.assert_allclose(repaired.drift_factor, currents[0] / currents[1], rtol=1e-4)
    np.testing.assert_array_equal(repaired.levels, tiles.levels)


def test_converter_mismatch_belongs_to_the_chip() -> None:
    spec = CrossbarSpec(rows=8, adc=Adc(8, (-2e5, 2e5), gain_mismatch=0.1, offset_mismatch_lsb=2.0))
    x = jnp.asarray(codes_for(W_DENSE, False), jnp.float32)
    one, again, other = (built(W_DENSE, spec, False, key) for key in (1, 1, 2))
    np.testing.assert_array_equal(answer(one, x), answer(again, x))
    assert np.abs(np.asarray(answer(one, x)) - np.asarray(answer(other, x))).max() > 4e5 / 255
    many = [np.asarray(built(W_DENSE, spec, False, key).mismatch.gain) for key in range(40)]
    sample = np.concatenate([g.ravel() for g in many])
    assert abs(sample.std() - 0.1) < 4 * 0.1 / np.sqrt(2 * sample.size)


def test_zero_clip_gradient_is_the_sum_over_unclipped_conversions() -> None:
    """A wide range passes everything, so both rules agree; a narrow one stops what clips, tile by tile."""
    x = jnp.asarray(codes_for(W_DENSE, False), jnp.float32)
    gain = jnp.asarray(RNG.integers(0, 2, (3, 6)), jnp.float32)

    @jax.jit
    def dx_of(tiles: Tiles) -> jax.Array:
        return jax.grad(lambda x: read(tiles, x, gain).sum())(x)

    def dx(span: float, rule: Any, cell: Cell) -> np.ndarray:
        spec = CrossbarSpec(rows=8, cell=cell, dac_bits=4, adc=Adc(8, (-span, span), clip_gradient=rule))
        tiles = built(W_DENSE, spec, False)
        return np.asarray(dx_of(tiles))

    for cell in (Cell(bits=7), Cell(bits=3)):
        np.testing.assert_allclose(dx(1e6, "zero", cell), dx(1e6, "pass", cell), rtol=1e-4, atol=1e-2)
    spec = CrossbarSpec(rows=8, adc=Adc(8, (-9000.0, 9000.0), clip_gradient="zero"))
    tiles = built(W_DENSE, spec, False)
    got = np.asarray(dx_of(tiles))
    wanted = np.zeros(x.shape)
    for t in range(3):
        rows = slice(8 * t, min(8 * t + 8, 21))
        free = np.abs(np.asarray(x)[:, rows] @ W_DENSE[rows]) <= 9000 * (1 + 1 / 255)
        wanted[:, rows] = (free * np.asarray(gain)[t]) @ W_DENSE[rows].T
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-2)
