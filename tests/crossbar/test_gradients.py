"""Gradients of ``read``: of gains, inputs and rewritten weights, and the products that must not be computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval

from crossbar.jaxprs import products, traced
from crossbar.literal import (
    Codes,
    Literal,
    accumulate,
    contract,
    encode,
    explicit_codes,
    fold_back,
    input_codes,
    signed_levels,
    tile_of,
    unfold,
)
from xbm_jax.crossbar import Adc, Cell, Conv, CrossbarSpec, Gaussian, Tiles, plan, program, read, reprogram

IDEAL, LOSSY = Adc(bits=None), Adc(5, (-310.0, 620.0))
SCALE, ROWS = 0.25, 8
CONV = Conv((2, 1), ((1, 1), (1, 0)))
GROUPED = Conv((1, 1), "SAME", (1, 2), groups=2)

# Many small compilations: LLVM's optimiser would take most of the time. XLA's own passes all run.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
write = quick_jit(program, static_argnums=1)


@dataclass(frozen=True)
class Problem:
    """A chip with programming error, inputs (some beyond the DAC's range), gains and an outer gradient."""

    adc: Adc
    conv: Conv | None
    cell_bits: int = 7
    dac_bits: int | None = None
    read_noise: float = 0.0

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return (19, 3) if self.conv is None else (2, 3, 3, 4)

    @cached_property
    def spec(self) -> CrossbarSpec:
        cell = Cell(self.cell_bits, 10.0)
        device = Gaussian(0.02, read_noise=self.read_noise)
        return CrossbarSpec(rows=ROWS, cell=cell, adc=self.adc, dac_bits=self.dac_bits, device=device)

    @cached_property
    def tiles(self) -> Tiles:
        planned = plan(np.zeros(self.shape), self.spec, self.conv, signed_inputs=True)
        kernel, scale = jnp.asarray(self.kernel, jnp.float32), jnp.asarray(self.weight_scale, jnp.float32)
        return write(kernel, planned, jax.random.key(0), weight_scale=scale, input_scale=SCALE)

    @cached_property
    def weight_scale(self) -> np.ndarray:
        return 2.0 ** -np.arange(5, 5 + self.shape[-1])

    @cached_property
    def kernel(self) -> np.ndarray:
        return np.random.default_rng(2).integers(-127, 128, self.shape) * self.weight_scale

    @cached_property
    def x(self) -> np.ndarray:
        groups = 1 if self.conv is None else self.conv.groups
        size = (4, 19) if self.conv is None else (2, 4, 5, 3 * groups)
        return np.random.default_rng(3).integers(-150, 151, size) * SCALE + 0.1

    @cached_property
    def gain(self) -> np.ndarray:
        size = (tile_of(self.shape, ROWS, "channel").max() + 1, self.shape[-1])
        return np.random.default_rng(4).choice([0.0, 1.0, -0.5, 0.75], size)

    @cached_property
    def codes(self) -> np.ndarray:
        return input_codes(self.x, SCALE, 8, signed=True)

    @cached_property
    def literal(self) -> Literal:
        levels = encode(np.rint(self.kernel / self.weight_scale).astype(int), 8, self.cell_bits)
        pairs = signed_levels(levels, np.asarray(self.tiles.conductance), self.cell_bits, 10.0, 1e-4)
        adc: Codes | None = explicit_codes(*LOSSY.range, 5) if self.adc is LOSSY else None  # type: ignore[misc]
        return Literal(pairs, ROWS, self.cell_bits, 8, self.dac_bits, "channel", self.conv, adc)

    @cached_property
    def effective(self) -> np.ndarray:
        """All slices as one linear map, levels."""
        return np.tensordot(2.0 ** (self.cell_bits * np.arange(len(self.literal.pairs))), self.literal.pairs, 1)

    @cached_property
    def gain_on_weights(self) -> np.ndarray:
        return self.gain[tile_of(self.shape, ROWS, "channel")]

    @cached_property
    def dy(self) -> np.ndarray:
        y = contract(unfold(self.codes, self.shape, self.conv), self.effective)
        return np.random.default_rng(5).normal(size=y.shape)

    def read(self, tiles: Tiles, x: Any, gain: Any, gain_at: Any = "weights") -> jax.Array:
        return read(tiles, jnp.asarray(x, jnp.float32), jnp.asarray(gain, jnp.float32), gain_at=gain_at)

    def grad_gain(self, gain_at: Any = "weights") -> np.ndarray:
        dy = jnp.asarray(self.dy, jnp.float32)
        loss = lambda gain: jnp.sum(dy * self.read(self.tiles, self.x, gain, gain_at))  # noqa: E731
        return np.asarray(quick_jit(jax.grad(loss))(jnp.asarray(self.gain, jnp.float32)), np.float64)


def assert_close(ours: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max())


CONVS = pytest.mark.parametrize("conv", [None, CONV, GROUPED], ids=["dense", "conv", "grouped"])
READS = [(IDEAL, "weights"), (IDEAL, "columns"), (LOSSY, "weights")]
FORMATS = pytest.mark.parametrize(("cell_bits", "dac_bits"), [(7, None), (3, 4)], ids=["S=1", "S=3, J=2"])


@CONVS
@pytest.mark.parametrize("gain_at", ["weights", "columns"])
def test_gain_gradient_equals_finite_differences(conv: Conv | None, gain_at: str) -> None:
    """Ideal converter: central differences of the oracle's loss in float64, one column at a time."""
    problem = Problem(IDEAL, conv, 3, 4)
    digital, _ = problem.literal.digital(problem.codes)
    scale = problem.weight_scale * SCALE

    def loss(gain: np.ndarray) -> float:
        return float(np.sum(problem.dy * accumulate(digital, gain) * scale))

    differences = np.zeros_like(problem.gain)
    for at in np.ndindex(*problem.gain.shape):
        step = np.zeros_like(problem.gain)
        step[at] = 1e-3
        differences[at] = (loss(problem.gain + step) - loss(problem.gain - step)) / 2e-3
    assert_close(problem.grad_gain(gain_at), differences)


def test_gain_gradient_of_a_curved_loss() -> None:
    """Through y squared the gradient depends on the gains themselves, those that are zero among them."""
    problem = Problem(IDEAL, CONV)
    digital, _ = problem.literal.digital(problem.codes)
    scale = problem.weight_scale * SCALE
    y = accumulate(digital, problem.gain) * scale
    expected = np.sum(2 * y * digital * scale, axis=tuple(range(1, digital.ndim - 1)))
    for gain_at in ("weights", "columns"):
        loss = lambda gain, at=gain_at: jnp.sum(problem.read(problem.tiles, problem.x, gain, at) ** 2)  # noqa: E731
        assert_close(np.asarray(quick_jit(jax.grad(loss))(jnp.asarray(problem.gain, jnp.float32))), expected)


@CONVS
@FORMATS
def test_gain_gradient_with_a_lossy_converter_sums_converted_columns(
    conv: Conv | None, cell_bits: int, dac_bits: int | None
) -> None:
    """``dL/da[t, n] = sum dy[n] * s_w[n] * s_x * D[t, n]`` with what the converters gave, not the analog sums."""
    problem = Problem(LOSSY, conv, cell_bits, dac_bits)
    digital, _ = problem.literal.digital(problem.codes)
    outer = problem.dy * problem.weight_scale * SCALE
    expected = np.sum(outer * digital, axis=tuple(range(1, digital.ndim - 1)))
    # A code that float32 rounds the other way moves one term of some hundred by one step in some hundred.
    assert_close(problem.grad_gain(), expected, 2e-3)
    analog, _ = Problem(IDEAL, conv, cell_bits, dac_bits).literal.digital(problem.codes)
    linear = np.sum(outer * analog, axis=tuple(range(1, digital.ndim - 1)))
    assert np.abs(linear - expected).max() > 0.02 * np.abs(expected).max()


@CONVS
@FORMATS
@pytest.mark.parametrize(("adc", "gain_at"), READS)
def test_input_gradient_is_the_transpose_of_the_masked_weights(
    conv: Conv | None, cell_bits: int, dac_bits: int | None, adc: Adc, gain_at: str
) -> None:
    """Straight through rounding and clipping: inputs beyond the DAC's range have a gradient too."""
    problem = Problem(adc, conv, cell_bits, dac_bits)
    masked = problem.effective * problem.gain_on_weights * problem.weight_scale  # s_x cancels
    groups = 1 if conv is None else conv.groups
    width = problem.shape[-1] // groups
    parts = [slice(g * width, (g + 1) * width) for g in range(groups)]
    spread = np.stack([np.tensordot(problem.dy[..., p], masked[..., p], (-1, -1)) for p in parts])
    expected = spread[0] if conv is None else fold_back(spread, problem.x.shape, conv)
    dy = jnp.asarray(problem.dy, jnp.float32)
    loss = lambda x: jnp.sum(dy * problem.read(problem.tiles, x, problem.gain, gain_at))  # noqa: E731
    dx = quick_jit(jax.grad(loss))(jnp.asarray(problem.x, jnp.float32))
    beyond = np.abs(problem.x / SCALE) > 127
    assert beyond.any() and (np.asarray(dx)[beyond] != 0).any()
    assert_close(np.asarray(dx), expected)


@CONVS
@FORMATS
@pytest.mark.parametrize("adc", [IDEAL, LOSSY], ids=["ideal", "lossy"])
def test_weight_gradient_through_reprogram_is_the_plain_products(
    conv: Conv | None, cell_bits: int, dac_bits: int | None, adc: Adc
) -> None:
    """``dL/dW = x_q^T dy`` (times the column's gain), whatever cells, slices, cycles and converters do forward."""
    problem = Problem(adc, conv, cell_bits, dac_bits)
    ungained = cell_bits == 3
    patches = unfold(problem.codes * SCALE, problem.shape, conv)
    batch = tuple(range(problem.dy.ndim - 1))
    width = problem.shape[-1] // len(patches)
    outer = [problem.dy[..., g * width : (g + 1) * width] for g in range(len(patches))]
    parts = [np.tensordot(p, dy, (batch, batch)) for p, dy in zip(patches, outer, strict=True)]
    expected = np.concatenate(parts, -1) * (1.0 if ungained else problem.gain_on_weights)
    dy, x = jnp.asarray(problem.dy, jnp.float32), jnp.asarray(problem.x, jnp.float32)
    gains = None if ungained else jnp.asarray(problem.gain, jnp.float32)
    loss = lambda w: jnp.sum(dy * read(reprogram(problem.tiles, w), x, gains))  # noqa: E731
    weights = jnp.asarray(problem.kernel * 0.7, jnp.float32)
    assert_close(np.asarray(quick_jit(jax.grad(loss))(weights)), expected)


def test_reprogrammed_weights_are_read_as_written() -> None:
    """The gradient's carrier adds nothing to what is read."""
    problem = Problem(IDEAL, CONV, 3)
    before = problem.tiles
    weights, x = jnp.asarray(problem.kernel * 0.7, jnp.float32), jnp.asarray(problem.x, jnp.float32)

    @quick_jit
    def rewritten(w: jax.Array) -> tuple[Tiles, jax.Array, jax.Array]:
        tiles = reprogram(before, w)
        value, _ = jax.value_and_grad(lambda w: jnp.sum(read(reprogram(before, w), x)))(w)
        return tiles, value, jnp.sum(read(tiles, x))

    tiles, value, expected = rewritten(weights)
    levels = encode(np.rint(problem.kernel * 0.7 / problem.weight_scale).astype(int), 8, 3)
    pairs = signed_levels(levels, np.asarray(tiles.conductance), 3, 10.0, 1e-4)
    np.testing.assert_array_equal(tiles.levels, levels)
    np.testing.assert_allclose(tiles.effective[0], np.tensordot(8.0 ** np.arange(3), pairs, 1), rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize(("adc", "gain_at"), READS)
@pytest.mark.parametrize("dac_bits", [None, 4])
def test_input_gradient_does_not_feel_read_noise(adc: Adc, gain_at: Any, dac_bits: int | None) -> None:
    """Where nothing is read - a masked column, black pixels - the noise is zero, and its root has no slope."""
    problem = Problem(adc, None, 3, dac_bits)
    noisy = Problem(adc, None, 3, dac_bits, read_noise=0.01).tiles
    x = jnp.asarray(problem.x, jnp.float32).at[0].set(0.0)
    gain = jnp.asarray(problem.gain, jnp.float32).at[:, 1].set(0.0)
    dy = jnp.asarray(problem.dy, jnp.float32)

    loss = lambda x, a, tiles, key: jnp.sum(dy * read(tiles, x, a, key, gain_at=gain_at))  # noqa: E731
    grads = quick_jit(jax.grad(loss, (0, 1)))
    dx, dgain = grads(x, gain, noisy, jax.random.key(8))
    assert np.isfinite(dx).all() and np.isfinite(dgain).all()
    assert_close(np.asarray(dx), np.asarray(grads(x, gain, problem.tiles, None)[0]))


@pytest.mark.parametrize(("adc", "gain_at"), READS[:2])
@pytest.mark.parametrize("conv", [None, GROUPED], ids=["dense", "grouped"])
def test_gain_gradient_is_that_of_what_was_read_noise_included(conv: Conv | None, adc: Adc, gain_at: Any) -> None:
    """Central differences with the read's key held fixed; a column masked in all tiles has no noise to weigh."""
    problem = Problem(adc, conv, 3, 4, read_noise=0.2)
    tiles, key = problem.tiles, jax.random.key(8)
    x, dy = jnp.asarray(problem.x, jnp.float32), jnp.asarray(problem.dy, jnp.float32)
    gain = jnp.asarray(np.where(problem.gain == 0, 0.25, problem.gain), jnp.float32).at[:, 1].set(0.0)

    def loss(gain: jax.Array, tiles: Tiles) -> jax.Array:
        return jnp.sum(dy * read(tiles, x, gain, key, gain_at=gain_at))

    ours, silent = (np.asarray(quick_jit(jax.grad(loss))(gain, t)) for t in (tiles, tiles.replace(read_variance=None)))
    step = 2.0**-6
    steps = step * jnp.eye(gain.size, dtype=gain.dtype).reshape(-1, *gain.shape)
    both = quick_jit(jax.vmap(lambda change: loss(gain + change, tiles) - loss(gain - change, tiles)))(steps)
    differences = np.asarray(both).reshape(gain.shape) / (2 * step)
    assert np.isfinite(ours).all()
    read_at_all = np.arange(gain.shape[1]) != 1  # |a| has no slope at zero: the differences' is zero by symmetry
    largest = np.abs(differences).max()
    np.testing.assert_allclose(ours[:, read_at_all], differences[:, read_at_all], rtol=0, atol=2e-3 * largest)
    assert np.abs(ours - silent).max() > 0.02 * largest


# ---------------------------------------------------------------------------------------------------------------------
# What is computed


def used_products(function: Callable, *arguments: Any) -> list[tuple[int, ...]]:
    """Shapes of the products left once what no output needs is gone."""
    closed = traced(function, *arguments)
    used, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return [equation.outvars[0].aval.shape for equation in products(used)]


@pytest.mark.parametrize("conv", [None, CONV], ids=["dense", "conv"])
def test_frozen_weights_cost_no_weight_gradient(conv: Conv | None) -> None:
    """Lossy converter: T products forward, one for dx, none for the gain's gradient. Weights would add one more.

    A dense kernel's T are one product in a loop over its tiles. It keeps no codes: the gain's gradient takes it again.
    """
    problem = Problem(LOSSY, conv)
    count, again = (1, 1) if conv is None else (problem.tiles.plan.row_tiles, 0)
    dy = jnp.asarray(problem.dy, jnp.float32)
    tiles, x, gain = problem.tiles, jnp.asarray(problem.x, jnp.float32), jnp.asarray(problem.gain, jnp.float32)

    def loss(effective: jax.Array, x: jax.Array, gain: jax.Array) -> jax.Array:
        return jnp.sum(dy * read(tiles.replace(effective=effective), x, gain) ** 2)

    forward, frozen, trained = (
        used_products(f, tiles.effective, x, gain)
        for f in (loss, jax.value_and_grad(loss, (1, 2)), jax.value_and_grad(loss, (0, 1, 2)))
    )
    assert (len(forward), len(frozen), len(trained)) == (count, count + again + 1, count + again + 2)
    only_inputs = used_products(jax.value_and_grad(loss, 1), tiles.effective, x, gain)
    assert len(only_inputs) == count + 1


def test_compiled_step_holds_no_weight_gradient() -> None:
    """The compiled program of a frozen chip has no operation that costs a product's worth more than dx."""
    problem = Problem(LOSSY, CONV)
    tiles, x, gain = problem.tiles, jnp.asarray(problem.x, jnp.float32), jnp.asarray(problem.gain, jnp.float32)
    loss = lambda effective, x, gain: jnp.sum(read(tiles.replace(effective=effective), x, gain) ** 2)  # noqa: E731

    def flops(which: tuple[int, ...]) -> float:
        compiled = jax.jit(jax.grad(loss, which)).lower(tiles.effective, x, gain).compile()
        return (compiled.cost_analysis() or {})["flops"]

    one_product = 2 * problem.dy.size * int(np.prod(problem.shape[:-1]))
    assert flops((0, 1, 2)) - flops((1, 2)) > 0.9 * one_product


def test_a_frozen_chip_has_no_gradient() -> None:
    """The trained side alone is differentiated: its gradient has the gain's shape and nothing else."""
    problem = Problem(LOSSY, None)
    tiles = problem.tiles
    loss = lambda task: jnp.sum(problem.read(tiles, problem.x, task["gain"]))  # noqa: E731
    gradient = quick_jit(jax.grad(loss))({"gain": problem.gain})
    assert jax.tree.map(jnp.shape, gradient) == {"gain": problem.gain.shape}


def test_vmapped_gradients_equal_a_loop() -> None:
    problem = Problem(LOSSY, CONV, 3, 4)
    gains = np.stack([problem.gain, 1 - problem.gain, np.ones_like(problem.gain)])
    dy = jnp.asarray(problem.dy, jnp.float32)
    grad = jax.grad(lambda gain: jnp.sum(dy * problem.read(problem.tiles, problem.x, gain)))
    one, together = quick_jit(grad), quick_jit(jax.vmap(grad))
    alone = np.stack([one(jnp.asarray(gain, jnp.float32)) for gain in gains])
    assert_close(np.asarray(together(jnp.asarray(gains, jnp.float32))), alone, 1e-4)
