"""Gains by line, against each line's own current cell by cell: reads, gradients, noise, and what is kept by line."""

from __future__ import annotations

import dataclasses
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crossbar.cell_by_cell import CellByCell
from crossbar.literal import input_codes
from xbm_jax.crossbar import (
    Adc,
    Cell,
    Conv,
    CrossbarSpec,
    Faults,
    Gaussian,
    MiloCurve,
    Tiles,
    Wires,
    plan,
    program,
    read,
)
from xbm_jax.crossbar.writing.cells import seen_through_wires

# Many small compilations: LLVM's optimiser would take most of the time. XLA's own passes all run.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

IDEAL, SCALE = Adc(bits=None), 0.25
SPEC = CrossbarSpec(rows=8, weight_bits=6, input_bits=4, cell=Cell(3, 12.0), adc=IDEAL, device=Gaussian(0.02))
LOSSY = Adc(5, (-155.0, 155.0))
DIGITAL: dict[str, Any] = {"subtract": "digital", "adc": Adc(6, (0.0, 315.0))}
CURVED: dict[str, Any] = {"cell": Cell(3, 3.0, 2e-4), "curve": MiloCurve(0.3)}
SIGNED: dict[str, Any] = {"negative_inputs": "two_pass"}
LOSSLESS: dict[str, Any] = {"adc": Adc(12, "granular"), "device": Gaussian(0.0)}

VARIANTS: dict[str, dict[str, Any]] = {
    "folded": {},
    "folded, digital": {"subtract": "digital"},
    "analog": {"adc": LOSSY, "dac_bits": 2},
    "analog, zero": {"adc": dataclasses.replace(LOSSY, range=(-45.0, 48.0), clip_gradient="zero"), "dac_bits": 2},
    "analog, mismatch": {"adc": dataclasses.replace(LOSSY, gain_mismatch=0.05, offset_mismatch_lsb=0.4)},
    "analog, curve": {"adc": LOSSY, "dac_bits": 2, **CURVED},
    "analog, curve, ideal": {**CURVED, **SIGNED},
    "analog, two passes": {"adc": LOSSY, **SIGNED},
    "analog, wires": {"adc": LOSSY, "wires": Wires(2.0, 1.0), "faults": Faults(0.05, 0.1)},
    "digital": {**DIGITAL, "dac_bits": 2},
    "digital, zero": {"subtract": "digital", "adc": Adc(5, (0.0, 93.0), clip_gradient="zero"), "dac_bits": 2},
    "digital, curve": {**DIGITAL, **CURVED, **SIGNED},
    "digital, wires": {**DIGITAL, "wires": Wires(2.0, 1.0)},
    "lossless": LOSSLESS,
    "lossless, digital": {**LOSSLESS, "subtract": "digital", "cell": Cell(3)},
}
CONV = Conv((2, 1), ((1, 1), (1, 0)))
GROUPED = Conv((1, 1), "SAME", groups=2)
SHAPES = {"dense": (None, (19, 3)), "conv": (CONV, (2, 3, 3, 4)), "grouped": (GROUPED, (3, 3, 2, 4))}


@cache
def built(variant: str, shape: str = "dense", **changes: Any) -> Tiles:
    """A programmed kernel of three tiles."""
    conv, size = SHAPES[shape]
    spec = SPEC.replace(**{**VARIANTS[variant], **changes})
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=size), jnp.float32)
    planned = plan(kernel, spec, conv, signed_inputs=spec.negative_inputs == "two_pass")
    return quick_jit(program, static_argnums=1)(kernel, planned, jax.random.key(0), input_scale=SCALE)


def given(tiles: Tiles, values: tuple[float, ...] = (0.0, 1.0, 1.0, -0.5)) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, some beyond the DAC's range, and gains by line; one column of one tile has both lines off."""
    rng, made = np.random.default_rng(1), tiles.plan
    size = (4, made.rows) if made.conv is None else (2, 4, 4, made.kernel_shape[2] * made.groups)
    low = -18 if made.signed_inputs else -1
    x = rng.integers(low, 18, size) * SCALE
    gain = rng.choice(values, (made.row_tiles, 2, made.columns))
    gain[0, :, 0] = 0.0
    return x, gain


def floats(*arrays: np.ndarray) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(a, jnp.float32) for a in arrays)


@partial(quick_jit, static_argnames="gain_at")
def read_and_gradients(tiles: Tiles, x: Any, gain: Any, dy: Any, key: Any = None, gain_at: Any = "weights") -> Any:
    def loss(x: jax.Array, gain: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = read(tiles, x, gain, key, gain_at=gain_at)
        return jnp.sum(dy * y), y

    (_, y), (dx, dgain) = jax.value_and_grad(loss, (0, 1), has_aux=True)(x, gain)
    return y, dx, dgain


def check(tiles: Tiles, gain_at: str) -> None:
    """Read, and gradients of inputs and gains, against every cell."""
    x, gain = given(tiles)
    shape = jax.eval_shape(read, tiles, *floats(x)).shape
    dy = np.random.default_rng(2).normal(size=shape)
    y, dx, dgain = (np.asarray(a) for a in read_and_gradients(tiles, *floats(x, gain, dy), gain_at=gain_at))

    seen = np.asarray(seen_through_wires(tiles.conductance, tiles.plan), np.float64)
    literal = CellByCell(tiles, seen)
    codes = input_codes(x, SCALE, 4, tiles.plan.signed_inputs)
    wanted = literal.by_line(codes, gain)
    scale = np.asarray(tiles.weight_scale, np.float64) * SCALE
    scale = scale if tiles.drift_factor is None else scale * np.asarray(tiles.drift_factor)
    outer = dy * scale
    sure = wanted.sure.all(0)
    assert sure.mean() > 0.9
    np.testing.assert_allclose((y / scale)[sure], wanted.digital.sum(0)[sure], rtol=0, atol=1e-5 * wanted.size)
    batch = tuple(range(2, wanted.of_gain.ndim - 1))
    slopes = (outer * wanted.of_gain).sum(batch)
    # A code or a clip that float32 takes for its neighbour moves one term of some hundred by a step of some hundred.
    unsure = 0.0 if wanted.sure.all() else 4e-3
    np.testing.assert_allclose(dgain, slopes, rtol=0, atol=(2e-5 + unsure) * np.abs(slopes).max())
    expected = sum(literal.spread(outer * factor, kernel, codes.shape) for factor, kernel in wanted.of_input) / SCALE
    np.testing.assert_allclose(dx, expected, rtol=0, atol=(2e-5 + unsure) * np.abs(expected).max())


QUICK = [(v, "conv" if i % 3 == 0 else "dense", "columns" if i % 2 else "weights") for i, v in enumerate(VARIANTS)]
ALL = [(v, s, at) for v in VARIANTS for s in SHAPES for at in ("weights", "columns")]
SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in QUICK]


@pytest.mark.parametrize(("variant", "shape", "gain_at"), [*QUICK, *SLOW])
def test_reads_and_gradients_are_those_of_every_lines_current(variant: str, shape: str, gain_at: str) -> None:
    check(built(variant, shape), gain_at)
