"""``read`` against the slow oracle, over geometries, slices, cycles, devices, converters and gains."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crossbar.literal import (
    Codes,
    Literal,
    accumulate,
    encode,
    explicit_codes,
    granular_codes,
    input_codes,
    signed_levels,
    tile_of,
)
from xbm_jax.crossbar import (
    Adc,
    Cell,
    Conv,
    CrossbarSpec,
    Faults,
    Gaussian,
    Plan,
    Tiles,
    clip_rate,
    plan,
    program,
    read,
    reprogram,
)
from xbm_jax.crossbar.writing.cells import effective_levels
from xbm_jax.errors import SpecError

GAINS = ("none", "bits", "shifts", "real")

# Every example has its own shapes: LLVM's optimiser would take most of the time. XLA's own passes all run.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


write = quick_jit(program, static_argnums=1)
answer = quick_jit(read, static_argnames="gain_at")
rate = quick_jit(clip_rate)


def few(examples: int) -> settings:
    """Fewer examples than the profile's, unless it asks for a thorough search."""
    return settings() if settings().max_examples > 100 else settings(max_examples=examples)


@dataclass(frozen=True)
class Case:
    """One drawn problem: integer weights and half-integer inputs, so that scales and codes are exact in float32."""

    spec: CrossbarSpec
    conv: Conv | None
    shape: tuple[int, ...]
    image: tuple[int, ...]
    signed: bool
    gains: str
    seed: int

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    @property
    def w_int(self) -> np.ndarray:
        top = self.spec.max_weight
        return self.rng.integers(-top, top + 1, self.shape)

    @property
    def weight_scale(self) -> np.ndarray:
        return 2.0 ** -(np.arange(self.shape[-1]) % 3)

    @property
    def x(self) -> np.ndarray:
        """Inputs in units of a scale of 1/4: every half step, ties and values beyond the DAC's codes among them."""
        top = 2**self.spec.input_bits
        return self.rng.integers(-top if self.signed else -2, 2 * top + 3, self.image) / 8

    @property
    def codes(self) -> np.ndarray:
        return input_codes(self.x, 0.25, self.spec.input_bits, self.signed)

    @property
    def gain(self) -> np.ndarray | None:
        size = (tile_of(self.shape, self.spec.rows, self.spec.row_order).max() + 1, self.shape[-1])
        shifts = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -0.25])
        return {
            "none": None,
            "bits": self.rng.integers(0, 2, size).astype(float),
            "shifts": shifts[self.rng.integers(0, len(shifts), size)],
            "real": self.rng.normal(size=size).astype(np.float32).astype(float),
        }[self.gains]

    def literal(self, pairs: np.ndarray, adc: Codes | None) -> Literal:
        spec = self.spec
        return Literal(pairs, spec.rows, spec.cell_bits, spec.input_bits, spec.dac_bits, spec.row_order, self.conv, adc)

    def ideal(self, adc: Codes | None = None) -> Literal:
        levels = encode(self.w_int, self.spec.weight_bits, self.spec.cell_bits)
        return self.literal((levels[0] - levels[1]).astype(float), adc)

    @property
    def planned(self) -> Plan:
        kernel = self.w_int * self.weight_scale
        return plan(kernel, self.spec, self.conv, signed_inputs=self.signed, weight_scale=self.weight_scale)

    def run(self, gain_at: Any = "weights") -> tuple[Tiles, np.ndarray]:
        """Program and read in one compilation; ``y`` in units of (input code x level)."""
        planned = self.planned
        kernel = jnp.asarray(self.w_int * self.weight_scale, jnp.float32)
        scale = jnp.asarray(self.weight_scale, jnp.float32)
        gain = None if self.gain is None else jnp.asarray(self.gain, jnp.float32)

        @quick_jit
        def chip_read(kernel: jax.Array, x: jax.Array, gain: jax.Array | None) -> tuple[Tiles, jax.Array]:
            tiles = program(
                kernel,
                planned,
                jax.random.key(self.seed),
                weight_scale=scale,
                input_scale=0.25,
            )
            return tiles, read(tiles, x, gain, gain_at=gain_at)

        tiles, y = chip_read(kernel, jnp.asarray(self.x, jnp.float32), gain)
        return tiles, np.asarray(y, np.float64) / (self.weight_scale * 0.25)


def bits_of_inputs(draw: st.DrawFn) -> dict[str, Any]:
    """Input and DAC bits of at most four cycles."""
    dac_bits, most = draw(st.sampled_from([(None, 8), (1, 4), (2, 8), (3, 8), (5, 8), (8, 8)]))
    return {"input_bits": draw(st.integers(dac_bits or 1, most)), "dac_bits": dac_bits}


def specs(draw: st.DrawFn, **fixed: Any) -> CrossbarSpec:
    cell_bits = draw(st.sampled_from([1, 2, 3, 7]))
    return CrossbarSpec(
        rows=draw(st.sampled_from([8, 10, 16, 27])),
        cols=64,
        weight_bits=draw(st.integers(cell_bits + 1, 8)),
        cell=Cell(cell_bits, draw(st.sampled_from([np.inf, 10.0, 1.5])), 2e-5),
        row_order=draw(st.sampled_from(["channel", "tap"])),
        **{**bits_of_inputs(draw), **fixed},
    )


@st.composite
def dense_cases(draw: st.DrawFn, gains: tuple[str, ...] = GAINS, **fixed: Any) -> Case:
    shape = draw(st.integers(1, 45)), draw(st.integers(1, 5))
    image = (*draw(st.sampled_from([(), (3,), (2, 3)])), shape[0])
    signed, gain, seed = draw(st.booleans()), draw(st.sampled_from(gains)), draw(st.integers(0, 999))
    return Case(specs(draw, **fixed), None, shape, image, signed, gain, seed)


@st.composite
def conv_cases(draw: st.DrawFn, gains: tuple[str, ...] = GAINS, **fixed: Any) -> Case:
    channels, groups = draw(st.sampled_from([(1, 1), (3, 1), (5, 1), (2, 3), (1, 4), (3, 2)]))  # of one group
    conv = Conv(
        strides=draw(st.sampled_from([(1, 1), (2, 2), (2, 1)])),
        padding=draw(st.sampled_from([((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 1), (2, 0)), "SAME", "VALID"])),
        dilation=draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2)])),
        groups=groups,
    )
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (2, 3)]))
    shape = (*kernel, channels, groups * draw(st.integers(1, 3)))
    signed, gain, seed = draw(st.booleans()), draw(st.sampled_from(gains)), draw(st.integers(0, 999))
    return Case(specs(draw, **fixed), conv, shape, (2, 5, 6, channels * groups), signed, gain, seed)


def assert_equals(y: np.ndarray, expected: np.ndarray, case: Case, literal: Literal) -> None:
    """Equal to the bit where float32 holds every partial result exactly, to 1e-6 of the largest one elsewhere."""
    gain = np.ones(1) if case.gain is None else np.abs(case.gain)
    digital, _ = literal.digital(case.codes)
    rows = np.prod(case.shape[:-1])
    largest = max(np.abs(digital).max() * len(digital), rows * 2**case.spec.input_bits * case.spec.max_weight)
    if case.gains != "real" and largest * gain.max() * 4 < 2**24:
        np.testing.assert_array_equal(y, expected)
    else:
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6 * largest * gain.max())


@pytest.mark.parametrize("kind", [dense_cases, conv_cases])
@pytest.mark.parametrize("gain_at", ["weights", "columns"])
def test_ideal_converter_equals_literal(kind: Any, gain_at: str) -> None:
    @few(5)
    @given(kind(adc=Adc(bits=None)))
    def check(case: Case) -> None:
        literal = case.ideal()
        _, y = case.run(gain_at)
        assert_equals(y, literal.read(case.codes, case.gain)[0], case, literal)

    check()


def integer_adcs() -> st.SearchStrategy[Adc]:
    """Converters of whole steps: odd ones have no ties, in powers of two a tie is exact in float32."""
    explicit = st.builds(
        lambda bits, lsb, low: Adc(bits, (low * lsb, low * lsb + (2**bits - 1) * lsb)),
        st.integers(1, 8),
        st.sampled_from([1, 2, 3, 4, 5, 7, 16]),
        st.sampled_from([-100.0, -32.0, -7.0, -1.0, -0.5, 0.0, 3.0]),
    )
    return explicit | st.builds(Adc, st.integers(1, 9), st.just("granular"))


def codes_of(adc: Adc) -> Codes:
    assert adc.bits is not None
    return explicit_codes(*adc.range, adc.bits) if isinstance(adc.range, tuple) else granular_codes(adc.bits)


@pytest.mark.parametrize("kind", [dense_cases, conv_cases])
def test_lossy_converter_equals_literal(kind: Any) -> None:
    @few(9)
    @given(st.data(), integer_adcs())
    def check(data: st.DataObject, adc: Adc) -> None:
        case = data.draw(kind(adc=adc))
        literal = case.ideal(codes_of(adc))
        _, y = case.run()
        assert_equals(y, literal.read(case.codes, case.gain)[0], case, literal)

    check()


DEVICES = st.sampled_from([Gaussian(0.02), Gaussian(0.05, "g"), Gaussian()])
FAULTS = st.sampled_from([Faults(), Faults(0.1, 0.2)])


@pytest.mark.parametrize("kind", [dense_cases, conv_cases])
def test_imperfect_cells_equal_literal(kind: Any) -> None:
    """What the cells really hold is read, ideal converter or one whose range comes from the cells themselves."""
    shares = []

    @few(6)
    @given(st.data(), DEVICES, FAULTS, st.sampled_from([None, 5, 8]), st.sampled_from(["layer", "tile", "column"]))
    def check(data: st.DataObject, device: Gaussian, faults: Faults, bits: int | None, per: Any) -> None:
        case = data.draw(kind(device=device, faults=faults, adc=Adc(bits, "max", per)))
        tiles, y = case.run()
        cell = case.spec.cell
        levels = encode(case.w_int, case.spec.weight_bits, cell.bits)
        held = np.asarray(tiles.conductance)
        literal = case.literal(signed_levels(levels, held, cell.bits, cell.on_off, cell.g_max_siemens), None)
        if bits is not None:
            assert tiles.adc is not None
            grid = [np.asarray(a, np.float64) for a in (tiles.adc.lsb, tiles.adc.min_code)]
            literal = case.literal(literal.pairs, Codes(bits, *grid))
        expected, sure = literal.read(case.codes, case.gain)
        gain = None if case.gain is None else np.abs(case.gain)
        full = accumulate(np.abs(literal.digital(case.codes)[0]), gain).max()
        shares.append(sure.mean())
        np.testing.assert_allclose(y[sure], expected[sure], rtol=0, atol=1e-5 * full)

    check()
    assert np.mean(shares) > 0.8


@few(5)
@given(conv_cases(gains=("bits", "shifts"), adc=Adc(bits=None)))
def test_folding_equals_a_lossless_converter(case: Case) -> None:
    """16 granular bits hold every column sum of these tiles: slices, cycles and tiles kept apart give the same bits."""
    literal = case.ideal()
    sums = [s for tile in literal.column_sums(case.codes) for cycle in tile for s in cycle]
    assume(max(np.abs(s).max() for s in sums) < 2**15)
    _, folded = case.run()
    lossless = Case(**{**vars(case), "spec": case.spec.replace(adc=Adc(16, "granular"))})
    tiles, planned = lossless.run()
    assert_equals(planned, folded, case, literal)
    plan_apart = dataclasses.replace(tiles.plan, fold=False)
    effective = effective_levels(tiles.levels, tiles.conductance, plan_apart)
    tiles = tiles.replace(plan=plan_apart, effective=effective)
    gain = None if case.gain is None else jnp.asarray(case.gain, jnp.float32)
    y = np.asarray(answer(tiles, jnp.asarray(case.x, jnp.float32), gain)) / (case.weight_scale * 0.25)
    assert len(tiles.plan.conversion_weights) == case.spec.slices
    assert_equals(y, folded, case, literal)
    assert_equals(folded, literal.read(case.codes, case.gain)[0], case, literal)


@cache
def small(
    adc: Adc, conv: bool = True, device: Any = None, signed: bool = False, seed: int = 0, **spec: Any
) -> tuple[Tiles, jax.Array, np.random.Generator]:
    """A small programmed kernel of several tiles, an input of its size, and a source of numbers."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, 3, 4) if conv else (21, 4))
    spec = {"rows": 8, "cell": Cell(3), **spec}
    chip = CrossbarSpec(adc=adc, device=device or Gaussian(), **spec)
    planned = plan(kernel, chip, Conv((1, 1), "SAME") if conv else None, signed_inputs=signed)
    tiles = write(jnp.asarray(kernel, jnp.float32), planned, jax.random.key(1), input_scale=0.1)
    x = rng.uniform(-3 if signed else 0, 20, (2, 4, 4, 3) if conv else (5, 21))
    return tiles, jnp.asarray(x, jnp.float32), rng


ADCS = [Adc(bits=None), Adc(6, "max"), Adc(5, (-900.0, 1300.0)), Adc(6, "granular")]


@pytest.mark.parametrize("adc", ADCS)
@pytest.mark.parametrize("gain_at", ["weights", "columns"])
def test_gain_of_zeros_gives_zeros(adc: Adc, gain_at: Any) -> None:
    tiles, x, _ = small(adc, dac_bits=4)
    y = answer(tiles, x, jnp.zeros((tiles.plan.row_tiles, 4)), gain_at=gain_at)
    assert y.shape == (2, 4, 4, 4) and y.dtype == jnp.float32
    np.testing.assert_array_equal(y, 0.0)


@pytest.mark.parametrize("adc", ADCS)
def test_gain_of_ones_equals_no_gain(adc: Adc) -> None:
    tiles, x, _ = small(adc, device=Gaussian(0.02), dac_bits=4)
    np.testing.assert_array_equal(answer(tiles, x, jnp.ones((tiles.plan.row_tiles, 4))), answer(tiles, x))


@pytest.mark.parametrize("conv", [False, True])
def test_gain_at_weights_equals_gain_at_columns(conv: bool) -> None:
    tiles, x, rng = small(Adc(bits=None), conv, Gaussian(0.02), dac_bits=3)
    gain = jnp.asarray(rng.normal(size=(tiles.plan.row_tiles, 4)), jnp.float32)
    at_weights, at_columns = (answer(tiles, x, gain, gain_at=at) for at in ("weights", "columns"))
    assert tiles.plan.row_tiles > 1
    np.testing.assert_allclose(at_weights, at_columns, rtol=0, atol=1e-6 * float(jnp.abs(at_weights).max()))


@pytest.mark.parametrize("adc", [Adc(bits=None), Adc(6, "max"), Adc(6, "max", per="column"), Adc(6, "granular")])
@pytest.mark.parametrize("row_order", ["channel", "tap"])
def test_masked_columns_equal_rewritten_weights(adc: Adc, row_order: str) -> None:
    """On ideal cells, where zero is a code, not counting a column is the same as writing zeros into it."""
    tiles, x, rng = small(adc, signed=True, row_order=row_order, dac_bits=4)
    mask = rng.integers(0, 2, (tiles.plan.row_tiles, 4))
    keeps = mask[tile_of((3, 3, 3, 4), 8, row_order)]
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4))
    rewritten = quick_jit(reprogram)(tiles, jnp.asarray(kernel * keeps, jnp.float32))
    masked = answer(tiles, x, jnp.asarray(mask, jnp.float32))
    assert 0 < mask.mean() < 1 and bool((masked != answer(tiles, x)).any())
    np.testing.assert_array_equal(answer(rewritten, x), masked)


@pytest.mark.parametrize("adc", [Adc(bits=None), Adc(6, "max")])
def test_vmap_over_tasks_equals_loop(adc: Adc) -> None:
    tiles, x, rng = small(adc, device=Gaussian(0.02), dac_bits=4)
    gains = jnp.asarray(rng.integers(0, 2, (3, tiles.plan.row_tiles, 4)), jnp.float32)
    for gain_at in ("weights", "columns"):
        one = partial(read, tiles, x, gain_at=gain_at)  # type: ignore[arg-type]
        together, alone = quick_jit(jax.vmap(one))(gains), quick_jit(one)
        loop = jnp.stack([alone(gain) for gain in gains])
        np.testing.assert_allclose(together, loop, rtol=0, atol=1e-6 * float(jnp.abs(loop).max()))


@pytest.mark.slow  # equal bits hold as users compile, not with the compiler's options of the ordinary tests
@pytest.mark.parametrize("adc", [Adc(bits=None), Adc(6, "max")])
def test_vmap_over_chips_equals_loop(adc: Adc) -> None:
    """Every chip draws its own cells, ranges and read noise."""
    tiles, x, rng = small(adc)
    spec = tiles.plan.spec.replace(device=Gaussian(0.03, read_noise=0.01), faults=Faults(0.01, 0.02))
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4)), jnp.float32)
    planned = plan(kernel, spec, tiles.plan.conv)

    def chip(key: jax.Array) -> tuple[Tiles, jax.Array]:
        tiles = program(kernel, planned, key, input_scale=0.1)
        return tiles, read(tiles, x, key=key)

    keys = jax.random.split(jax.random.key(3), 3)
    many, y = quick_jit(jax.vmap(chip))(keys)
    alone = quick_jit(chip)
    for i, key in enumerate(keys):
        one, y_one = alone(key)
        for name in ("levels", "conductance", "effective", "key_data"):
            np.testing.assert_array_equal(getattr(many, name)[i], getattr(one, name))
        step = float(jnp.abs(y_one).max()) * 1e-6
        close = np.abs(np.asarray(y[i] - y_one)) <= step
        assert close.all() if adc.bits is None else close.mean() > 0.98  # a sum rounded otherwise may move one code
    assert bool((y[0] != y[1]).any())


@pytest.mark.parametrize(
    ("kernel_shape", "x_shape", "conv"),
    [
        ((11, 3), (5000, 1, 11), None),
        ((3, 3, 3, 4), (1, 64, 64, 3), Conv((1, 1), "SAME")),
        ((1, 1, 20, 4), (2000, 1, 1, 20), Conv()),
    ],
)
def test_jit_equals_eager(kernel_shape: tuple[int, ...], x_shape: tuple[int, ...], conv: Conv | None) -> None:
    """Slices, tiles and axes of one: XLA's fused reductions (CPU, jaxlib 0.10.2) give another tile's gain to these."""
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=kernel_shape), jnp.float32)
    spec = CrossbarSpec(rows=8, cell=Cell(3), adc=Adc(6, (-512.0, 496.0)))
    tiles = write(kernel, plan(kernel, spec, conv), jax.random.key(0), input_scale=0.1)
    x = jnp.asarray(rng.uniform(0, 20, x_shape), jnp.float32)
    gain = jnp.asarray(rng.integers(0, 2, (tiles.plan.row_tiles, kernel_shape[-1])), jnp.float32)
    eager = np.asarray(read(tiles, x, gain))
    np.testing.assert_allclose(jax.jit(read)(tiles, x, gain), eager, rtol=0, atol=1e-6 * np.abs(eager).max())


def test_scales_are_applied_per_column() -> None:
    """One input of one code, one row: ``y = s_x * code * s_w[n] * w_int``."""
    kernel = np.array([[3.0, -0.5, 0.0]], np.float32)
    tiles = program(
        jnp.asarray(kernel), plan(kernel, CrossbarSpec(adc=Adc(bits=None))), jax.random.key(0), input_scale=0.3
    )
    codes = np.array([[0], [7], [255], [255]])
    y = answer(tiles, jnp.asarray([[-1.0], [2.1], [76.5], [1e9]], jnp.float32))
    np.testing.assert_allclose(y, codes * 0.3 * kernel, rtol=1e-6, atol=0)


@pytest.mark.parametrize("per", ["layer", "column"])
def test_clip_rate_counts_conversions(per: Any) -> None:
    tiles, x, _ = small(Adc(6, "max", per), dac_bits=4)
    assert rate(tiles, x) == 0.0
    assert tiles.adc is not None
    narrow = tiles.replace(adc=dataclasses.replace(tiles.adc, lsb=tiles.adc.lsb / 8))
    codes = input_codes(np.asarray(x, np.float64), 0.1, 8, False)
    levels = np.asarray(tiles.levels, np.float64)
    literal = Literal(levels[0] - levels[1], 8, 3, 8, 4, "channel", tiles.plan.conv)
    assert narrow.adc is not None
    grid = [np.broadcast_to(a, (2, 3, tiles.plan.row_tiles, 4)) for a in (narrow.adc.lsb, narrow.adc.min_code)]
    beyond = [
        (sums < (grid[1][j, s, t] - 0.5) * grid[0][j, s, t]) | (sums > (grid[1][j, s, t] + 63.5) * grid[0][j, s, t])
        for t, cycles in enumerate(literal.column_sums(codes))
        for j, slices in enumerate(cycles)
        for s, sums in enumerate(slices)
    ]
    assert 0.01 < np.mean(beyond) < 0.99
    np.testing.assert_allclose(rate(narrow, x), np.mean(beyond), atol=2e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Read noise


NOISY = Gaussian(0.05, "g_max", 0.03)
NOISE_SPEC = CrossbarSpec(
    rows=8, weight_bits=5, input_bits=4, dac_bits=2, cell=Cell(2, 5.0), adc=Adc(bits=None), device=NOISY
)
READS = 1500


def noise_problem(adc: Adc, device: Gaussian = NOISY) -> tuple[Tiles, np.ndarray, np.ndarray, Literal]:
    """Two tiles, two slices, two cycles; codes, gain, and the oracle on the cells that this chip holds."""
    rng = np.random.default_rng(4)
    w_int, codes = rng.integers(-15, 16, (11, 3)), rng.integers(0, 16, (1, 11)).astype(float)
    gain = np.array([[1.0, 0.5, 0.0], [1.0, -2.0, 1.0]])
    spec = NOISE_SPEC.replace(adc=adc, device=device)
    kernel = jnp.asarray(w_int, jnp.float32)
    tiles = write(kernel, plan(w_int, spec), jax.random.key(0), weight_scale=jnp.ones(3), input_scale=1.0)
    pairs = signed_levels(encode(w_int, 5, 2), np.asarray(tiles.conductance), 2, 5.0, 1e-4)
    return tiles, codes, gain, Literal(pairs, 8, 2, 4, 2, "channel", None, None if adc.bits is None else codes_of(adc))


@pytest.mark.parametrize(
    ("adc", "gain_at", "relative_to"),
    [
        (Adc(bits=None), "weights", "g_max"),
        (Adc(bits=None), "weights", "g"),
        (Adc(bits=None), "columns", "g"),
        (Adc(5, (-40.0, 53.0)), "weights", "g_max"),
    ],
)
@pytest.mark.slow
def test_read_noise_is_distributed_as_that_of_single_cells(adc: Adc, gain_at: Any, relative_to: Any) -> None:
    """Mean, variance and covariance of many reads against one Gaussian per cell, cycle and read."""
    tiles, codes, gain, literal = noise_problem(adc, Gaussian(0.05, relative_to, 0.03))
    x, a = jnp.asarray(codes, jnp.float32), jnp.asarray(gain, jnp.float32)
    keys = jax.random.split(jax.random.key(9), READS)
    ours = np.asarray(quick_jit(jax.vmap(lambda key: read(tiles, x, a, key, gain_at=gain_at)[0]))(keys), np.float64)

    rng, step = np.random.default_rng(5), 1e-4 * (1 - 1 / 5) / 3
    held = np.asarray(tiles.conductance, np.float64)
    sigma = 0.03 * (held if relative_to == "g" else np.full_like(held, 1e-4)) / step  # [pair, S, K, N], in levels

    def disturb(s: int) -> np.ndarray:
        eps = rng.normal(size=(2, *sigma.shape[2:]))
        return sigma[0, s] * eps[0] - sigma[1, s] * eps[1]

    cells = np.stack([accumulate(literal.digital(codes, disturb)[0], gain)[0] for _ in range(READS)])
    spread = cells.std(0)
    assert (spread > 1).all()
    standard_error = spread * np.sqrt(2 / READS)
    assert (np.abs(ours.mean(0) - cells.mean(0)) < 4 * standard_error).all()
    excess = np.mean((cells - cells.mean(0)) ** 4, 0) / spread**4 - 1  # 2 for a Gaussian
    assert (np.abs(ours.var(0) / cells.var(0) - 1) < 4 * np.sqrt(2 * excess / READS)).all()
    off_diagonal = np.asarray(np.corrcoef(ours.T))[np.triu_indices(3, 1)]
    assert (np.abs(off_diagonal) < 4 / np.sqrt(READS)).all()


def test_read_noise_is_repeated_by_its_key_alone() -> None:
    tiles, codes, gain, _ = noise_problem(Adc(bits=None))
    x, a = jnp.asarray(np.repeat(codes, 2, 0), jnp.float32), jnp.asarray(gain, jnp.float32)
    first, again, other = (answer(tiles, x, a, jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert bool((first != other).all())
    assert bool((first[0] != first[1]).all())  # two inputs are two reads


def test_exact_reads_ignore_the_key() -> None:
    tiles, x, _ = small(Adc(bits=None), device=Gaussian(0.05))
    assert tiles.read_variance is None
    np.testing.assert_array_equal(answer(tiles, x), answer(tiles, x, key=jax.random.key(0)))


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


UNREADABLE = {
    "adc": ("tiles", "not calibrated", lambda t, c, n, x, g: (c, x)),
    "input scale": ("tiles", "not calibrated", lambda t, c, n, x, g: (t.replace(input_scale=None), x)),
    "features": ("x.shape", (5, 20), lambda t, c, n, x, g: (t, x[:, :20])),
    "tiles": ("gain.shape", (2, 4), lambda t, c, n, x, g: (t, x, g[:2])),
    "columns": ("gain.shape", (3, 1), lambda t, c, n, x, g: (t, x, g[:, :1])),
    "axes": ("gain.shape", (4,), lambda t, c, n, x, g: (t, x, g[0])),
    "key": ("key", None, lambda t, c, n, x, g: (n, x)),
    "key with gain": ("key", None, lambda t, c, n, x, g: (n, x, g)),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_is_refused(what: str) -> None:
    tiles, x, _ = small(Adc(bits=None), conv=False)
    uncalibrated, _, _ = small(Adc(), conv=False)
    noisy, _, _ = small(Adc(bits=None), conv=False, device=Gaussian(read_noise=0.1))
    name, value, arguments = UNREADABLE[what]
    with pytest.raises(SpecError) as caught:
        read(*arguments(tiles, uncalibrated, noisy, x, jnp.ones((3, 4))))
    assert (caught.value.field, caught.value.value) == (name, value)
    assert caught.value.allowed


def test_grouped_convolution_wants_all_groups_channels() -> None:
    kernel = np.zeros((1, 1, 2, 6))
    planned = plan(kernel, CrossbarSpec(adc=Adc(bits=None)), Conv(groups=3))
    tiles = program(jnp.asarray(kernel), planned, jax.random.key(0), input_scale=1.0)
    assert read(tiles, jnp.zeros((1, 2, 2, 6))).shape == (1, 2, 2, 6)
    with pytest.raises(SpecError, match=r"x\.shape = \(1, 2, 2, 2\): 6 features"):
        read(tiles, jnp.zeros((1, 2, 2, 2)))
    with pytest.raises(SpecError, match=r"x\.shape = \(2, 2, 6\)"):
        read(tiles, jnp.zeros((2, 2, 6)))
