"""Gains by line, against each line's own current cell by cell: reads, gradients, noise, and what is kept by line."""

from __future__ import annotations

import dataclasses
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cost import slow_but
from crossbar.cell_by_cell import CellByCell
from crossbar.jaxprs import products, traced
from crossbar.literal import input_codes
from xbm_jax.crossbar import (
    PUBLISHED,
    Adc,
    Cell,
    Conv,
    CrossbarSpec,
    Faults,
    Gaussian,
    Lines,
    MiloCurve,
    Tiles,
    Wires,
    at_time,
    plan,
    program,
    read,
    reprogram,
    with_lines,
    with_signed_inputs,
)
from xbm_jax.crossbar.reading import loops
from xbm_jax.crossbar.reading.sums import Converters
from xbm_jax.crossbar.writing.cells import seen_through_wires
from xbm_jax.errors import SpecError

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


def differentiated(tiles: Tiles, x: Any, gain: Any, dy: Any, key: Any = None, gain_at: Any = "weights") -> Any:
    def loss(x: jax.Array, gain: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = read(tiles, x, gain, key, gain_at=gain_at)
        return jnp.sum(dy * y), y

    (_, y), (dx, dgain) = jax.value_and_grad(loss, (0, 1), has_aux=True)(x, gain)
    return y, dx, dgain


read_and_gradients = quick_jit(differentiated, static_argnames="gain_at")


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
    assert sure.mean() > 0.7
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


# ---------------------------------------------------------------------------------------------------------------------
# Beside reads by column


@pytest.mark.parametrize("gain_at", ["weights", "columns"])
@pytest.mark.parametrize("variant", ["folded", "analog", "digital", "lossless, digital"])
def test_equal_gains_of_both_lines_are_the_columns(variant: str, gain_at: Any) -> None:
    """Ones give an ordinary read, with converters bit for bit; other equal gains that of their columns, if 0 or 1."""
    tiles = built(variant)
    x, gain = floats(*given(tiles, (0.0, 1.0)))
    lines = jnp.stack([gain[:, 0]] * 2, axis=1)
    together = quick_jit(lambda a: read(tiles, x, a, gain_at=gain_at))
    ones, ordinary = np.asarray(together(jnp.ones_like(lines))), np.asarray(together(None))
    # One product may be summed in another order by XLA, which fuses what its kernel comes from.
    rounding = 1e-6 * np.abs(ordinary).max() if variant == "folded" else 0.0
    np.testing.assert_allclose(ones, ordinary, rtol=0, atol=rounding)
    wanted = np.asarray(together(gain[:, 0]))
    np.testing.assert_allclose(together(lines), wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


def test_reads_by_column_do_not_see_what_is_kept() -> None:
    tiles = built("analog")
    x, gain = floats(*given(tiles))
    one, other = (
        str(jax.make_jaxpr(lambda x, a, t=t: read(t, x, a))(x, gain[:, 0])) for t in (tiles, with_lines(tiles))
    )
    assert one == other


@pytest.mark.parametrize("variant", slow_but(["digital"], ["folded", "analog", "digital"]))
def test_a_loop_over_tiles_is_the_tiles_one_by_one(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = built(variant, "conv", device=Gaussian(0.02, read_noise=0.05))
    x, gain = floats(*given(tiles))
    dy = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 3, 4)), jnp.float32)

    def everything() -> Any:  # a function of its own is traced anew
        def again(x: jax.Array, gain: jax.Array) -> Any:
            return differentiated(tiles, x, gain, dy, jax.random.key(3), "columns")

        return quick_jit(again)(x, gain)

    assert not loops.orders(tiles.plan, x, Converters())[0].scanned
    wanted = everything()
    monkeypatch.setattr(loops, "_TALL", 2)
    assert loops.orders(tiles.plan, x, Converters())[0].scanned
    for got, want in zip(everything(), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("variant", slow_but(["analog"], ["folded", "analog", "digital"]))
def test_tasks_by_line_share_the_products(variant: str) -> None:
    """Under ``vmap`` with ``gain_at="columns"`` no product has an axis of tasks, and each task answers as alone."""
    tiles = with_lines(built(variant, "conv"))
    x, gain = floats(*given(tiles))
    gains = jnp.stack([gain, 1 - gain, gain[:, ::-1]])
    alone = quick_jit(lambda a: read(tiles, x, a, gain_at="columns"))
    tasks = jax.vmap(lambda a: read(tiles, x, a, gain_at="columns"))
    wanted = np.stack([alone(a) for a in gains])
    np.testing.assert_allclose(quick_jit(tasks)(gains), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    found = products(traced(tasks, gains).jaxpr)
    batches = [e.outvars[0].aval.shape[0] for e in found if "conv" in e.primitive.name]  # cycles lie side by side in it
    count = tiles.plan.row_tiles * (1 if variant == "digital" else 2)
    assert batches == [len(x) * len(tiles.plan.cycle_weights)] * count


# ---------------------------------------------------------------------------------------------------------------------
# Read noise


NOISY: dict[str, Any] = {"device": Gaussian(0.05, "g", 0.4)}
NOISES = [
    ("folded", "weights"),
    ("folded", "columns"),
    ("analog", "weights"),
    ("analog", "columns"),
    ("digital", "weights"),
]


def sums_before_converters(tiles: Tiles) -> Tiles:
    """The chip with ideal converters that are still simulated one by one, each with noise of its own."""
    spec = tiles.plan.spec.replace(adc=IDEAL)
    return tiles.replace(plan=dataclasses.replace(tiles.plan, spec=spec), adc=None)


@pytest.mark.parametrize(("variant", "gain_at"), NOISES)
def test_gain_gradients_are_those_of_what_was_read_noise_included(variant: str, gain_at: Any) -> None:
    """Central differences with the read's key held fixed, of the read without its converter where that comes last."""
    tiles, key = built(variant, **NOISY), jax.random.key(8)
    x, gain = given(tiles, (1.0, 0.75, -0.5))
    gain[:, :, 1] = 0.0  # a column without a line: no noise to weigh, and no slope of its root
    x, gain = floats(x, gain)
    dy = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)
    surrogate = tiles if variant != "analog" else sums_before_converters(tiles)

    def loss(gain: jax.Array) -> jax.Array:
        return jnp.sum(dy * read(surrogate, x, gain, key, gain_at=gain_at))

    ours, silent = (
        np.asarray(read_and_gradients(t, x, gain, dy, key, gain_at=gain_at)[2])
        for t in (tiles, tiles.replace(read_variance=None))
    )
    step = 2.0**-6
    steps = step * jnp.eye(gain.size, dtype=gain.dtype).reshape(-1, *gain.shape)
    both = quick_jit(jax.vmap(lambda change: loss(gain + change) - loss(gain - change)))(steps)
    differences = np.asarray(both).reshape(gain.shape) / (2 * step)
    assert np.isfinite(ours).all()
    on = np.asarray(gain != 0).any(1, keepdims=True) & np.ones_like(ours, bool)  # |a| has no slope at zero
    largest = np.abs(differences).max()
    np.testing.assert_allclose(ours[on], differences[on], rtol=0, atol=2e-3 * largest)
    if variant != "digital":  # there noise moves codes
        assert np.abs(ours - silent)[on].max() > 0.02 * largest


@pytest.mark.parametrize(("variant", "gain_at"), NOISES)
def test_inputs_have_no_gradient_through_noise(variant: str, gain_at: Any) -> None:
    tiles = built(variant, **NOISY)
    x, gain = floats(*given(tiles))
    dy = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)
    x = x.at[0].set(0.0)
    noisy, silent = (
        np.asarray(read_and_gradients(t, x, gain, dy, jax.random.key(8), gain_at=gain_at)[1])
        for t in (tiles, tiles.replace(read_variance=None))
    )
    np.testing.assert_allclose(noisy, silent, rtol=0, atol=1e-5 * np.abs(silent).max())


@pytest.mark.parametrize(("variant", "gain_at"), NOISES[:4])
def test_noise_is_that_of_the_lines_that_are_on(variant: str, gain_at: Any) -> None:
    """Variance over many reads against the sum over cells ``(a x sigma)**2``, shifted with slices and cycles."""
    tiles = built(variant, dac_bits=2, **NOISY)
    tiles = tiles if variant == "folded" else sums_before_converters(tiles)
    x, gain = given(tiles, (0.0, 1.0, -0.5))
    gain[:, 1, 2] = 0.0
    image, gains = floats(x[:1], gain)
    keys = jax.random.split(jax.random.key(9), 1500)
    one = jax.vmap(lambda key: read(tiles, image, gains, key, gain_at=gain_at)[0])
    ours = np.asarray(quick_jit(one)(keys), np.float64) / (np.asarray(tiles.weight_scale) * SCALE)
    literal, sigma = CellByCell(tiles, np.asarray(tiles.conductance)), 0.4 * np.asarray(tiles.conductance)
    codes = input_codes(x[:1], SCALE, 4, False)[0]
    on_kernel = gain[literal.index].transpose(1, 0, 2)  # [2, K, N]
    wanted = np.zeros(3)
    for weight, streamed in literal.cycles(codes):
        for line in (0, 1):
            for s, own in enumerate(sigma[line] / literal.step):
                wanted += ((weight * 8.0**s * on_kernel[line] * streamed[:, None] * own) ** 2).sum(0)
    np.testing.assert_allclose(ours.var(0), wanted, rtol=4 * np.sqrt(2 / 1500))
    assert (wanted > 0).any()


# ---------------------------------------------------------------------------------------------------------------------
# What is kept by line


def variance_of(tiles: Tiles) -> np.ndarray:
    variance = lines_of(tiles).variance
    assert variance is not None
    return np.asarray(variance)


def lines_of(tiles: Tiles) -> Lines:
    assert tiles.lines is not None
    return tiles.lines


@pytest.mark.parametrize("variant", ["folded", "analog", "analog, curve", "lossless"])
def test_a_chip_that_keeps_its_lines_reads_the_same(variant: str) -> None:
    """Also after it has aged and after it was rewritten, noise and all."""
    device = {} if variant == "lossless" else {"device": PUBLISHED["pcm_joshi"]}
    tiles = built(variant, **device)
    weights = jnp.asarray(np.random.default_rng(7).normal(size=(19, 3)), jnp.float32)
    age, rewrite = quick_jit(at_time), quick_jit(reprogram)
    histories = [tiles, age(tiles, 1e4), rewrite(tiles, weights), rewrite(age(tiles, 1e4), weights)]
    kept = with_lines(tiles)
    keeping = [kept, age(kept, 1e4), rewrite(kept, weights), rewrite(age(kept, 1e4), weights)]
    x, gain = floats(*given(tiles))
    answer = quick_jit(read)
    for without, having in zip(histories, keeping, strict=True):
        assert (
            without.lines is None and lines_of(having).effective.shape == having.effective.shape
        ) or variant == "lossless"
        wanted = np.asarray(answer(without, x, gain, jax.random.key(1)))
        np.testing.assert_allclose(
            answer(having, x, gain, jax.random.key(1)), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max()
        )


def test_kept_variance_is_that_of_the_cells_as_old_as_they_are() -> None:
    tiles = at_time(with_lines(built("analog", device=PUBLISHED["pcm_joshi"])), 1e5)
    spec = tiles.plan.spec
    sigma = spec.device.read_sigma(tiles.conductance[1], 1e-4, 1e5, tiles.programmed[1])
    assert sigma is not None
    np.testing.assert_allclose(variance_of(tiles), (np.asarray(sigma) / spec.g_step_siemens) ** 2, rtol=1e-5)
    shared = with_lines(tiles)  # derived anew, from the pairs' variance
    np.testing.assert_allclose(variance_of(shared), variance_of(tiles), rtol=1e-5)


def test_a_rewrite_moves_no_bit_of_the_other_cells_lines() -> None:
    before = at_time(with_lines(built("analog", device=PUBLISHED["pcm_joshi"])), 1e5)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(19, 3)), jnp.float32).at[3, 1].multiply(-1.0)
    after = jax.jit(reprogram)(before, weights)
    same = np.ones((19, 3), bool)
    same[3, 1] = False
    for was, now in zip(jax.tree.leaves(before.lines), jax.tree.leaves(after.lines), strict=True):
        np.testing.assert_array_equal(np.asarray(now)[:, same], np.asarray(was)[:, same])
        assert (np.asarray(now)[:, 3, 1] != np.asarray(was)[:, 3, 1]).any()


@pytest.mark.parametrize("variant", ["analog, curve", "lossless", "lossless, digital"])
def test_other_inputs_keep_lines_right(variant: str) -> None:
    tiles = with_lines(built(variant))
    other = with_signed_inputs(tiles, not tiles.plan.signed_inputs)
    check(other, "weights")
    fresh = with_lines(other.replace(lines=None))
    for got, wanted in zip(jax.tree.leaves(other.lines), jax.tree.leaves(fresh.lines), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


def test_lines_that_are_converted_apart_are_kept_already() -> None:
    assert with_lines(built("digital")).lines is None
    assert with_lines(built("folded", encoding="offset", cell=Cell(3))).lines is None


@pytest.mark.parametrize("variant", ["folded", "analog", "digital", "lossless"])
def test_a_weights_gradient_comes_through_the_line_that_holds_it(variant: str) -> None:
    tiles = built(variant)
    x, gain = floats(*given(tiles))
    dy = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)
    weights = np.random.default_rng(7).normal(size=(19, 3))
    got = quick_jit(jax.grad(lambda w: jnp.sum(dy * read(reprogram(tiles, w), x, gain))))(*floats(weights))
    on_kernel = np.asarray(gain)[np.arange(19) // 8]
    below = np.rint(weights / np.asarray(tiles.weight_scale)) < 0
    mine = np.where(below, on_kernel[:, 1], on_kernel[:, 0])
    wanted = input_codes(np.asarray(x), SCALE, 4, False).T * SCALE @ np.asarray(dy) * mine
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("changes", "shape", "allowed"),
    [
        ({}, (3, 3, 3), "(3, 2, 3)"),
        ({}, (2, 2, 3), "(3, 2, 3)"),
        ({"encoding": "offset", "cell": Cell(3)}, (3, 2, 3), "no pairs"),
    ],
)
def test_gains_of_other_shapes_are_refused(changes: dict[str, Any], shape: tuple[int, ...], allowed: str) -> None:
    tiles = built("folded", **changes)
    with pytest.raises(SpecError) as caught:
        read(tiles, jnp.ones((4, 19)), jnp.ones(shape))
    assert caught.value.field == "gain.shape" and caught.value.value == shape and allowed in caught.value.allowed
