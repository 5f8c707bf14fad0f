"""Writing: levels, conductances, what a rewrite changes, and the statistics of what cells really hold."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbar.literal import conduct, encode, row_of, signed_levels
from xbm_jax.crossbar import (
    Adc,
    Cell,
    ChannelOrder,
    Conv,
    CrossbarSpec,
    Faults,
    Gaussian,
    Ideal,
    Tiles,
    cells_written,
    nominal_weights,
    plan,
    program,
    read,
    reprogram,
)
from xbm_jax.errors import SpecError

G_MAX = 2e-5
KEY = jax.random.key(7)
IDEAL_ADC = Adc(bits=None)


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def spec_of(weight_bits: int = 8, cell_bits: int = 3, on_off: float = 10.0, **changes: Any) -> CrossbarSpec:
    changes = {"rows": 8, "adc": IDEAL_ADC, **changes}
    return CrossbarSpec(weight_bits=weight_bits, cell=Cell(cell_bits, on_off, G_MAX), **changes)


# Many small compilations: LLVM's optimiser would take most of the time. XLA's own passes all run.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@partial(quick_jit, static_argnums=(1, 3))
def write(kernel: jax.Array, spec: CrossbarSpec, key: jax.Array, conv: Conv | None = None, **options: Any) -> Tiles:
    return program(kernel, plan(np.zeros(kernel.shape), spec, conv), key, **options)


rewrite = quick_jit(reprogram)
nominal = quick_jit(nominal_weights)


def on_chip(kernel: np.ndarray, spec: CrossbarSpec, key: jax.Array = KEY, **options: Any) -> Tiles:
    conv = Conv() if kernel.ndim == 4 else None
    return write(jnp.asarray(kernel, jnp.float32), spec, key, conv, input_scale=1.0, **options)


def assert_same_bits(one: Any, other: Any) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------------------------------------------------------
# Levels and conductances

FORMATS = [(8, 7), (8, 4), (8, 3), (8, 2), (8, 1), (5, 2), (4, 3), (2, 1)]


@pytest.mark.parametrize(("weight_bits", "cell_bits"), FORMATS)
def test_every_integer_is_encoded_and_conducts(weight_bits: int, cell_bits: int) -> None:
    """All weights that the bits hold, the partly filled top slice (8 bits on 2-bit cells) among them."""
    top, on_off = 2 ** (weight_bits - 1) - 1, np.inf if cell_bits == 7 else 1.5
    w_int = np.arange(-top, top + 1)[:, None]
    tiles = on_chip(w_int, spec_of(weight_bits, cell_bits, on_off, adc=Adc()), weight_scale=jnp.ones(1))
    levels = encode(w_int, weight_bits, cell_bits)
    np.testing.assert_array_equal(tiles.levels, levels)
    assert tiles.levels.dtype == jnp.uint8
    np.testing.assert_allclose(tiles.conductance, conduct(levels, cell_bits, on_off, G_MAX), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("weight_bits", "cell_bits"), FORMATS)
def test_ideal_cells_are_exact_integers(weight_bits: int, cell_bits: int) -> None:
    """A pair cancels ``g_min``: however small the on/off ratio, ideal cells multiply by integers, not nearly so."""
    top, on_off = 2 ** (weight_bits - 1) - 1, 1.01 if weight_bits == 8 else 3.7
    w_int = np.arange(-top, top + 1)[:, None]
    levels = encode(w_int, weight_bits, cell_bits)
    folded = on_chip(w_int, spec_of(weight_bits, cell_bits, on_off), weight_scale=jnp.ones(1))
    apart = on_chip(w_int, spec_of(weight_bits, cell_bits, on_off, adc=Adc()), weight_scale=jnp.ones(1))
    np.testing.assert_array_equal(folded.effective, w_int[None])
    np.testing.assert_array_equal(apart.effective, levels[0] - levels[1])


@given(st.integers(0, 999), st.sampled_from(FORMATS), st.floats(-6, 6))
def test_nominal_weights_are_the_kernel_rounded(seed: int, bits: tuple[int, int], exponent: float) -> None:
    kernel = numbers((9, 4), seed) * np.float32(10**exponent)
    kernel[:, 2] = 0.0
    tiles = on_chip(kernel, spec_of(*bits))
    rounded, scale = np.asarray(nominal(tiles)), np.asarray(tiles.weight_scale)
    assert (np.abs(rounded - kernel) <= scale * 0.5 * (1 + 1e-5)).all()
    np.testing.assert_allclose(np.abs(rounded).max(0), np.abs(kernel).max(0), rtol=1e-6)  # the largest is exact
    np.testing.assert_array_equal(rounded[:, 2], 0.0)
    assert (scale > 0).all() and scale.shape == (4,)


def test_given_scales_saturate() -> None:
    kernel = np.array([[300.0, -300.0, 2.5, 3.5, -0.5, 0.49]]).T
    tiles = on_chip(kernel, spec_of(), weight_scale=jnp.ones(1))
    np.testing.assert_array_equal(nominal(tiles)[:, 0], [127, -127, 2, 4, 0, 0])


def test_effective_is_the_difference_of_conductances() -> None:
    spec = spec_of(8, 3, 5.0, device=Gaussian(0.05), faults=Faults(0.1, 0.1), adc=Adc())
    tiles = on_chip(numbers((20, 6)), spec)
    g, step = np.asarray(tiles.conductance, np.float64), G_MAX * 0.8 / 7
    np.testing.assert_allclose(tiles.effective, (g[0] - g[1]) / step, rtol=0, atol=1e-5)
    exact = signed_levels(np.asarray(tiles.levels, int), np.asarray(tiles.conductance), 3, 5.0, G_MAX)
    np.testing.assert_allclose(tiles.effective, exact, rtol=1e-6, atol=1e-6)
    folded = on_chip(numbers((20, 6)), spec.replace(adc=IDEAL_ADC))
    weighed = np.tensordot(8.0 ** np.arange(3), exact, 1)[None]
    np.testing.assert_allclose(folded.effective, weighed, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("shape", [(17, 3), (3, 2, 5, 4)])
@pytest.mark.parametrize("row_order", ["channel", "tap", "permuted"])
def test_tile_index_follows_the_row_order(shape: tuple[int, ...], row_order: Any) -> None:
    if row_order == "permuted":
        row_order = ChannelOrder(np.random.default_rng(0).permutation(shape[-2]))
    planned = plan(np.zeros(shape), spec_of(row_order=row_order), Conv() if len(shape) == 4 else None)
    expected = [[row_of(entry, shape, row_order) // 8] for entry in np.ndindex(*shape[:-1])]
    np.testing.assert_array_equal(planned.tile_index.reshape(-1, 1), expected)
    assert planned.row_tiles == max(expected)[0] + 1 == -(-planned.rows // 8)
    assert (planned.rows, planned.columns) == (int(np.prod(shape[:-1])), shape[-1])


# ---------------------------------------------------------------------------------------------------------------------
# Keys, programming error, faults


NOISY = spec_of(8, 3, device=Gaussian(0.04, read_noise=0.01), faults=Faults(0.05, 0.1))


def test_same_key_same_bits() -> None:
    kernel = numbers((3, 3, 4, 5))
    one, again, other = (on_chip(kernel, NOISY, jax.random.key(k)) for k in (1, 1, 2))
    assert_same_bits(one, again)
    np.testing.assert_array_equal(one.levels, other.levels)
    assert float(jnp.mean(one.conductance != other.conductance)) > 0.7  # a fifth is stuck or clipped, and may agree


def test_vmapped_chips_are_those_of_their_keys() -> None:
    kernel, keys = numbers((20, 6)), jax.random.split(KEY, 3)
    chip = partial(program, jnp.asarray(kernel), plan(kernel, NOISY), input_scale=1.0)
    many = quick_jit(jax.vmap(lambda key: chip(key=key)))(keys)
    for i, key in enumerate(keys):
        assert_same_bits(jax.tree.map(lambda a, i=i: a[i], many), on_chip(kernel, NOISY, key))


@pytest.mark.parametrize("relative_to", ["g_max", "g"])
def test_programming_error_of_every_physical_cell(relative_to: Any) -> None:
    """Each cell draws its own error, at its own level; one that asks for nothing cannot conduct less than nothing."""
    sigma, n = 0.03, 4000
    w_int = np.tile([127, 64, 9, 0, -31], (n, 1))
    spec = spec_of(8, 4, np.inf, device=Gaussian(sigma, relative_to), adc=Adc())
    tiles = on_chip(w_int, spec, weight_scale=jnp.ones(5))
    levels = encode(w_int, 8, 4)
    target = conduct(levels, 4, np.inf, G_MAX)
    error = (np.asarray(tiles.conductance, np.float64) - target) / (sigma * G_MAX)
    unit = target[:, :, 0] / G_MAX if relative_to == "g" else np.ones((2, 2, 5))
    for at in np.ndindex(2, 2, 5):
        draws, scale = error[at[0], at[1], :, at[2]], unit[at]
        if levels[at[0], at[1], 0, at[2]] == 0:  # max(sigma * eps, 0)
            mean, square = scale / np.sqrt(2 * np.pi), scale**2 / 2
            fourth, zeros = scale**4 * 3 / 2, 0.5 if scale else 1.0
            assert abs((draws == 0).mean() - zeros) <= 4 * np.sqrt(zeros * (1 - zeros) / n)
        else:
            mean, square, fourth = 0.0, scale**2, 3 * scale**4
        rounding = 1e-4  # float32 conductances, in units of the error
        assert abs(draws.mean() - mean) <= 4 * np.sqrt(max(square - mean**2, 0) / n) + rounding
        assert abs((draws**2).mean() - square) <= 4 * np.sqrt((fourth - square**2) / n) + rounding
    if relative_to == "g_max":  # no two cells share a draw: top cells of both slices, either polarity, all columns
        cells = [(0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 2), (1, 0, 4)]
        correlation = np.asarray(np.corrcoef([error[p, s, :, n] for p, s, n in cells]))[np.triu_indices(5, 1)]
        assert (np.abs(correlation) < 4 / np.sqrt(n)).all()


def test_faults_are_stuck_at_the_rails_at_their_rates() -> None:
    spec = spec_of(8, 4, 10.0, device=Gaussian(0.01), faults=Faults(0.05, 0.15))
    tiles = on_chip(numbers((400, 25)), spec)
    g, n = np.asarray(tiles.conductance), tiles.conductance.size
    for rail, rate in ((G_MAX, 0.05), (G_MAX / 10, 0.15)):  # with an error, no healthy cell holds exactly a rail
        assert abs((g == np.float32(rail)).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / n)


def test_all_cells_stuck() -> None:
    for faults, g in ((Faults(1.0, 0.0), G_MAX), (Faults(0.0, 1.0), G_MAX / 10)):
        tiles = on_chip(numbers((9, 3)), spec_of(faults=faults, device=Gaussian(0.05)))
        np.testing.assert_array_equal(tiles.conductance, np.float32(g))
        np.testing.assert_allclose(tiles.effective, 0.0, atol=1e-3)  # both cells of every pair conduct alike


# ---------------------------------------------------------------------------------------------------------------------
# Rewriting


def changed(kernel: np.ndarray, share: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(5)
    other = -kernel * rng.uniform(0, 1, kernel.shape)
    return np.where(rng.random(kernel.shape) < share, other, kernel).astype(np.float32)


@pytest.mark.parametrize("key", [None, jax.random.key(99)], ids=["own key", "new key"])
@pytest.mark.parametrize("adc", [IDEAL_ADC, Adc(6, "max")], ids=["folded", "apart"])
def test_reprogram_changes_only_the_cells_that_differ(key: jax.Array | None, adc: Adc) -> None:
    kernel = numbers((3, 3, 4, 5))
    before = on_chip(kernel, NOISY.replace(adc=adc))
    after = rewrite(before, jnp.asarray(changed(kernel)), key)
    differs = np.asarray(before.levels != after.levels)
    assert 0 < differs.sum() < differs.size / 2
    np.testing.assert_array_equal(np.asarray(after.conductance)[~differs], np.asarray(before.conductance)[~differs])
    moved = np.asarray(after.conductance != before.conductance)
    assert moved[differs].mean() > 0.8 and not moved[~differs].any()
    assert cells_written(before, after) == differs.sum() == cells_written(after, before)
    for name in ("weight_scale", "input_scale", "adc", "key_data"):
        assert_same_bits(getattr(before, name), getattr(after, name))
    assert after.plan == before.plan


def test_cells_written_counts_physical_cells() -> None:
    """8 bits on 2-bit cells: four cells a polarity. 1 -> 2 rewrites one; 1 -> -1 two; 85 -> -85 eight; 5 -> 5 none."""
    spec = spec_of(8, 2, adc=Adc())
    before = on_chip(np.array([[1, 1, 85, 5, 0]]), spec, weight_scale=jnp.ones(5))
    for after, count in [([2, 1, 85, 5, 0], 1), ([1, -1, 85, 5, 0], 2), ([1, 1, -85, 5, 0], 8), ([1, 1, 85, 5, 0], 0)]:
        assert cells_written(before, rewrite(before, jnp.asarray([after], jnp.float32))) == count
    assert cells_written(before, rewrite(before, jnp.asarray([[2, -1, -85, 5, 127]], jnp.float32))) == 1 + 2 + 8 + 4


def test_reprogram_to_the_same_weights_changes_no_cell() -> None:
    kernel = numbers((20, 6))
    before = on_chip(kernel, NOISY)
    after = rewrite(before, jnp.asarray(kernel))
    assert cells_written(before, after) == 0
    assert_same_bits((before.levels, before.conductance), (after.levels, after.conductance))
    np.testing.assert_allclose(after.effective, before.effective, rtol=1e-6, atol=1e-6)


def test_reprogram_by_own_key_is_what_programming_would_have_written() -> None:
    """And writing the first weights again restores the chip: a cell's error belongs to the cell.

    To one rounding: two programs may or may not fuse the error's product and sum.
    """
    kernel = numbers((20, 6))
    before = on_chip(kernel, NOISY)
    factors = np.random.default_rng(2).choice([-1.0, 0.0, 1.0], kernel.shape)
    weights = nominal(before) * jnp.asarray(factors, jnp.float32)
    after = rewrite(before, weights)
    fresh = on_chip(np.asarray(weights), NOISY, weight_scale=before.weight_scale)
    restored = rewrite(after, jnp.asarray(kernel))
    assert_same_bits(after.levels, fresh.levels)
    np.testing.assert_allclose(after.conductance, fresh.conductance, rtol=1e-6)
    np.testing.assert_allclose(after.effective, fresh.effective, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(restored.conductance, before.conductance, rtol=1e-6)


def test_a_new_key_draws_new_errors() -> None:
    kernel = numbers((20, 6))
    before = on_chip(kernel, NOISY.replace(faults=Faults()))
    own, new = (rewrite(before, jnp.asarray(-kernel), key) for key in (None, jax.random.key(3)))
    differs = np.asarray(own.levels != before.levels)
    assert float(np.asarray(own.conductance != new.conductance)[differs].mean()) > 0.7


@pytest.mark.parametrize("key", [None, jax.random.key(99)], ids=["own key", "new key"])
def test_stuck_cells_stay_stuck(key: jax.Array | None) -> None:
    """No rewriting frees a stuck cell, and none breaks a healthy one."""
    kernel = numbers((40, 25))
    before = on_chip(kernel, spec_of(device=Gaussian(0.02), faults=Faults(0.2, 0.1)))
    after = rewrite(before, jnp.asarray(-kernel), key)
    for rail in (G_MAX, G_MAX / 10):
        was, still = (np.asarray(t.conductance) == np.float32(rail) for t in (before, after))
        np.testing.assert_array_equal(still, was)


def test_reprogram_saturates_on_the_programmed_scale() -> None:
    kernel = numbers((9, 3))
    before = on_chip(kernel, spec_of())
    after = rewrite(before, jnp.asarray(kernel * 10))
    largest = np.abs(np.asarray(nominal(after) / before.weight_scale)).max(0)
    np.testing.assert_allclose(largest, 127, rtol=1e-6)


def test_tiny_and_empty_columns_stay_finite() -> None:
    """Pretrained kernels hold columns of zeros and of 1e-38: neither may divide by a scale that underflows."""
    kernel = numbers((9, 5))
    kernel[:, 0], kernel[:, 1], kernel[:, 2], kernel[0, 3] = 0.0, 2e-38 * kernel[:, 1], 1e-41, 1e-41
    kernel[3, 1] = 0.0
    before = on_chip(kernel, spec_of())
    for tiles in (before, rewrite(before, jnp.asarray(kernel))):
        y = np.asarray(quick_jit(read)(tiles, jnp.full((1, 9), 3.0)))
        assert np.isfinite(np.asarray(tiles.effective)).all() and np.isfinite(y).all()
        np.testing.assert_allclose(y[0, :3], 0.0, atol=1e-30)


def test_integer_and_half_kernels_keep_a_real_input_scale() -> None:
    for dtype in (np.int32, np.float16, np.float64):
        kernel = np.arange(8).reshape(8, 1).astype(dtype)
        tiles = program(jnp.asarray(kernel), plan(kernel, spec_of()), KEY, input_scale=0.1)
        assert tiles.input_scale is not None and tiles.input_scale.dtype == jnp.float32
        np.testing.assert_allclose(tiles.input_scale, 0.1, rtol=1e-6)
        np.testing.assert_allclose(read(tiles, jnp.full((1, 8), 0.3)), [[0.3 * 28]], rtol=0.02)


# ---------------------------------------------------------------------------------------------------------------------
# Refusals

BAD_PLANS = [
    ((5,), None, "kernel.shape", (5,), r"\[in, out\]"),
    ((3, 3, 4, 5), None, "kernel.shape", (3, 3, 4, 5), r"2 non-empty axes"),
    ((4, 5), Conv(), "kernel.shape", (4, 5), r"4 non-empty axes: HWIO"),
    ((0, 5), None, "kernel.shape", (0, 5), r"non-empty"),
    ((3, 3, 4, 0), Conv(), "kernel.shape", (3, 3, 4, 0), r"non-empty"),
    ((3, 3, 4, 5), Conv(groups=2), "Conv.groups", 2, r"divisor of the 5 output"),
]


@pytest.mark.parametrize(("shape", "conv", "name", "value", "allowed"), BAD_PLANS)
def test_impossible_plans(shape: tuple[int, ...], conv: Conv | None, name: str, value: Any, allowed: str) -> None:
    with pytest.raises(SpecError, match=allowed) as caught:
        plan(np.zeros(shape), CrossbarSpec(), conv)
    assert (caught.value.field, caught.value.value) == (name, value)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_kernels_are_finite(wrong: float) -> None:
    kernel = np.zeros((4, 5))
    kernel[2, 3] = wrong
    with pytest.raises(SpecError, match=r"kernel = .*NaN or infinite.*: finite numbers"):
        plan(kernel, CrossbarSpec())


@pytest.mark.parametrize("shape", [(8, 3), (7, 4), (1, 4), (4,)])
@pytest.mark.parametrize("act", ["program", "reprogram"])
def test_a_kernel_of_another_shape_is_refused(shape: tuple[int, ...], act: str) -> None:
    """Shapes that broadcast would be written silently."""
    kernel, tiles = jnp.ones(shape), on_chip(np.ones((8, 4)), spec_of())
    with pytest.raises(SpecError, match=r"shape = .*\(8, 4\)"):
        program(kernel, tiles.plan, KEY) if act == "program" else reprogram(tiles, kernel)


def test_fold_says_why() -> None:
    folded, apart = (plan(np.zeros((4, 5)), CrossbarSpec(adc=Adc(bits), device=Ideal())) for bits in (None, 8))
    assert (
        folded.fold
        and "ideal converter" in folded.fold_reason
        and (folded.conversion_weights, folded.cycle_weights) == ((1.0,), (1.0,))
    )
    assert not apart.fold and "8-bit converter" in apart.fold_reason
