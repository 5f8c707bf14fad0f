"""Whatever specification is accepted is also computed, and rightly: read, gradients, age, rewrites, against every cell.

What a chip cannot have is refused where it is said (``CrossbarSpec``, ``plan``), never in a read.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crossbar.cell_by_cell import CellByCell
from crossbar.literal import input_codes
from xbm_jax.crossbar import (
    PUBLISHED,
    Adc,
    Cell,
    Conv,
    CrossbarSpec,
    Faults,
    FunctionDevice,
    Gaussian,
    MiloCurve,
    TableDevice,
    Tiles,
    Wires,
    at_time,
    plan,
    program,
    read,
    reprogram,
    with_signed_inputs,
)
from xbm_jax.crossbar.reading import loops
from xbm_jax.crossbar.writing.cells import seen_through_wires
from xbm_jax.errors import XbmError

# Every example has its own shapes: LLVM's optimiser would take most of the time. XLA's own passes all run.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

TABLE = TableDevice(
    (0.0, 1e-4, 2e-4), ((1e-6, 1e-4, 2e-4), (2e-6, 9e-5, 1.8e-4)), ((1e-6,) * 3, (2e-6,) * 3), (0.0, 1e3)
)
FUNCTIONS = FunctionDevice(
    program_sigma=lambda g, g_max: 0.01 * g_max + 0.0 * g,
    drifted=lambda g, target, g_max, t_seconds, key: g * (1.0 + t_seconds) ** -0.01,
    reading_sigma=lambda g, g_max, t_seconds: 0.02 * g,
)
DEVICES = [*PUBLISHED.values(), Gaussian(0.02), Gaussian(0.02, "g", read_noise=0.01), TABLE, FUNCTIONS]
HISTORIES = ["new", "aged", "compensated", "rewritten", "rewritten, aged", "other inputs", "other inputs, rewritten"]


def few(examples: int) -> settings:
    """Fewer examples than the profile's, unless it asks for a thorough search."""
    return settings() if settings().max_examples > 100 else settings(max_examples=examples)


@st.composite
def converters(draw: st.DrawFn) -> Adc:
    bits = draw(st.sampled_from([None, 1, 4, 6, 8, 16]))
    if bits is None:
        return Adc(None, clip_gradient=draw(st.sampled_from(["pass", "zero"])))
    step, low = draw(st.sampled_from([1.0, 3.0, 37.0])), draw(st.sampled_from([-0.5, 0.0, -0.125, -0.3]))
    start = round(low * (2**bits - 1)) * step
    explicit = (start, start + step * (2**bits - 1))
    wrong = draw(st.sampled_from([{}, {}, {"gain_mismatch": 0.05, "offset_mismatch_lsb": 0.4}, {"noise_lsb": 0.3}]))
    return Adc(
        bits,
        draw(st.sampled_from(["max", "granular", explicit])),
        draw(st.sampled_from(["layer", "tile", "column"])),
        clip_gradient=draw(st.sampled_from(["pass", "zero"])),
        **wrong,
    )


@st.composite
def specs(draw: st.DrawFn) -> CrossbarSpec:
    rows = draw(st.sampled_from([8, 10, 16, 27]))
    dac_bits, most = draw(st.sampled_from([(None, 8), (1, 3), (2, 8), (3, 8), (8, 8)]))
    try:
        return CrossbarSpec(
            rows=rows,
            active_rows=draw(st.sampled_from([None, 8])) if rows % 8 == 0 else None,
            cols=draw(st.sampled_from([8, 16, 30])),
            weight_bits=draw(st.integers(2, 8)),
            input_bits=draw(st.integers(dac_bits or 1, most)),
            dac_bits=dac_bits,
            encoding=draw(st.sampled_from(["differential", "differential", "offset"])),
            subtract=draw(st.sampled_from(["analog", "digital"])),
            negative_inputs=draw(st.sampled_from(["bipolar", "two_pass"])),
            cell=Cell(
                draw(st.sampled_from([None, 1, 2, 3, 7])),
                draw(st.sampled_from([math.inf, 100.0, 3.0, 1.2])),
                draw(st.sampled_from([25e-6, 2e-4])),
                draw(st.sampled_from([None, None, 1, 2])),
            ),
            adc=draw(converters()),
            device=draw(st.sampled_from(DEVICES)),
            faults=draw(st.sampled_from([Faults(), Faults(0.1, 0.2)])),
            wires=draw(st.sampled_from([Wires(), Wires(), Wires(2.0, 0.0), Wires(1.0, 3.0)])),
            curve=draw(st.sampled_from([None, None, MiloCurve(0.3)])),
            row_order=draw(st.sampled_from(["channel", "tap"])),
        )
    except XbmError:
        assume(False)
        raise


@dataclass(frozen=True)
class Case:
    """A kernel on a chip of some specification, and what happened to it."""

    spec: CrossbarSpec
    conv: Conv | None
    shape: tuple[int, ...]
    signed: bool
    history: str
    gain_at: Any
    looped: bool
    seed: int

    @property
    def image(self) -> tuple[int, ...]:
        return (3, self.shape[0]) if self.conv is None else (2, 4, 5, self.shape[2] * self.conv.groups)

    def tiles(self) -> Tiles:
        rng = np.random.default_rng(self.seed)
        kernel, other = (jnp.asarray(rng.normal(size=self.shape), jnp.float32) for _ in range(2))
        planned = plan(kernel, self.spec, self.conv, signed_inputs=self.signed)

        @quick_jit
        def chip(kernel: jax.Array) -> Tiles:
            return program(kernel, planned, jax.random.key(self.seed), input_scale=0.25)

        tiles = chip(kernel)
        if "inputs" in self.history:
            tiles = with_signed_inputs(tiles, not self.signed)
        if "rewritten" in self.history:
            tiles = quick_jit(reprogram)(tiles, other)
        if "aged" in self.history or self.history == "compensated":
            tiles = quick_jit(partial(at_time, compensate=self.history == "compensated"))(tiles, 1e4)
        return tiles


@st.composite
def cases(draw: st.DrawFn, kind: str) -> Case:
    conv, shape = None, (draw(st.integers(1, 40)), draw(st.integers(1, 4)))
    if kind == "conv":
        conv = Conv(draw(st.sampled_from([(1, 1), (2, 1)])), draw(st.sampled_from(["SAME", ((1, 0), (0, 1))])))
        shape = (*draw(st.sampled_from([(3, 3), (1, 1), (1, 2)])), draw(st.integers(1, 9)), draw(st.integers(1, 3)))
    if kind == "grouped":
        conv = Conv((1, 1), "SAME", draw(st.sampled_from([(1, 1), (1, 2)])), groups=draw(st.sampled_from([2, 3])))
        shape = (3, 3, draw(st.integers(1, 3)), conv.groups * draw(st.integers(1, 2)))
    history = draw(st.sampled_from(HISTORIES))
    gain_at = draw(st.sampled_from(["weights", "columns"]))
    signed, looped = draw(st.booleans()), draw(st.booleans())
    return Case(draw(specs()), conv, shape, signed, history, gain_at, looped, draw(st.integers(0, 999)))


def silent(tiles: Tiles) -> Tiles:
    """The chip without the noise of its reads."""
    adc = dataclasses.replace(tiles.plan.spec.adc, noise_lsb=0.0)
    quiet = dataclasses.replace(tiles.plan, spec=tiles.plan.spec.replace(adc=adc))
    return tiles.replace(read_variance=None, plan=quiet)


def check(case: Case) -> None:
    """Read, and gradients of gains and inputs, against the oracle; a noisy read and its gradients are numbers."""
    try:
        tiles = case.tiles()
    except XbmError:
        assume(False)
        raise
    rng, made = np.random.default_rng(case.seed + 1), tiles.plan
    top = 2**case.spec.input_bits
    x = rng.integers(-top if made.signed_inputs else -2, top + 2, case.image) / 4
    gain = rng.choice([0.0, 1.0, -1.0, 0.5], (made.row_tiles, made.columns))

    @quick_jit
    def read_and_gradients(tiles: Tiles, x: jax.Array, gain: jax.Array, dy: jax.Array, key: jax.Array) -> Any:
        def loss(x: jax.Array, gain: jax.Array, tiles: Tiles) -> tuple[jax.Array, jax.Array]:
            y = read(tiles, x, gain, key, gain_at=case.gain_at)
            return jnp.sum(dy * y), y

        return [jax.value_and_grad(loss, (0, 1), has_aux=True)(x, gain, t) for t in (silent(tiles), tiles)]

    shape = jax.eval_shape(partial(read, silent(tiles)), jax.ShapeDtypeStruct(case.image, jnp.float32)).shape
    dy = rng.normal(size=shape)
    floats = (jnp.asarray(a, jnp.float32) for a in (x, gain, dy))
    with patch.object(loops, "_TALL", 2 if case.looped else loops._TALL):
        ours, noisy = jax.device_get(read_and_gradients(tiles, *floats, jax.random.key(5)))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((ours, noisy)))

    literal = CellByCell(silent(tiles), np.asarray(seen_through_wires(tiles.conductance, made), np.float64))
    codes = input_codes(x, 0.25, case.spec.input_bits, made.signed_inputs)
    digital, sure, size = literal.digital(codes)
    scale = np.asarray(tiles.weight_scale, np.float64) * 0.25
    scale = scale if tiles.drift_factor is None else scale * np.asarray(tiles.drift_factor, np.float64)
    (_, y), (dx, dgain) = ours
    each = gain.reshape(len(gain), *[1] * (y.ndim - 1), -1)
    wanted, certain = (digital * each).sum(0), sure.all(0)
    np.testing.assert_allclose((y / scale)[certain], wanted[certain], rtol=0, atol=1e-5 * size)
    batch = tuple(range(1, digital.ndim - 1))
    certain = sure.all(batch) if batch else sure
    wanted = (dy * scale * digital).sum(batch)
    total = size * np.abs(dy * scale).sum()
    np.testing.assert_allclose(dgain[certain], wanted[certain], rtol=0, atol=1e-5 * total)
    wanted, certain = literal.input_gradient(codes, dy * scale, gain)
    if certain:
        np.testing.assert_allclose(
            dx * 0.25, wanted, rtol=0, atol=2e-5 * np.abs(literal.held).sum() * np.abs(dy * scale).max() * 2**8
        )


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("conv", "grouped")]


@pytest.mark.parametrize("kind", ["dense", *SLOW])
def test_what_is_accepted_is_computed(kind: str) -> None:
    @few(3)
    @given(cases(kind))
    def every(case: Case) -> None:
        check(case)

    every()
