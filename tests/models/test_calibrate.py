"""Input scales and converter ranges, on inputs whose percentiles are known and on images."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from crossbar.cell_by_cell import CellByCell
from crossbar.literal import input_codes as literal_codes
from models.tiny import CONVERTED, IDEAL, NOISY, tiny_backbone, tiny_chip, tiny_images
from xbm_jax.crossbar import (
    Adc,
    Cell,
    CrossbarSpec,
    Gaussian,
    Tiles,
    column_sums,
    nominal_weights,
    read,
    with_lines,
    with_signed_inputs,
)
from xbm_jax.crossbar.reading.sums import input_codes
from xbm_jax.errors import DataError, SpecError
from xbm_jax.masks import Method, methods
from xbm_jax.models import (
    Chip,
    Preprocess,
    backbone,
    calibrate,
    forward,
    initial_trained,
    measure_inputs,
    measure_norms,
    measure_ranges,
    network_from_module,
    program,
    source_trained,
)
from xbm_jax.tasks import Task, adc_clip_rates

IDENTITY = Preprocess(mean=(0.0, 0.0), std=(1.0, 1.0), divisor=1.0)
CELLS = ("levels", "conductance", "effective", "weight_scale", "key_data")


class OneByOne(nnx.Module):
    """A 1x1 convolution of two channels: its inputs are the pixels, its sums can be written down."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, 3, (1, 1), use_bias=False, rngs=rngs)
        self.head = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.conv(x).mean((1, 2)))


KERNEL = np.array([[1.0, -1.0, 127.0], [127.0, -127.0, -127.0]], np.float32)  # levels as they stand: s_w = 1


def one_by_one(spec: CrossbarSpec, preprocess: Preprocess = IDENTITY, kernel: np.ndarray = KERNEL) -> Chip:
    network = network_from_module(
        lambda: OneByOne(rngs=nnx.Rngs(0)), name="one", head="head", preprocess=preprocess, image_size=10
    )
    arrays = {"conv/kernel": kernel[None, None], "head/kernel": np.zeros((3, 2)), "head/bias": np.zeros(2)}
    return program(backbone(network, arrays), spec, jax.random.key(0))


def scale_of(tiles: Tiles) -> float:
    assert tiles.input_scale is not None
    return float(tiles.input_scale)


def pixels(count: int = 10) -> np.ndarray:
    """uint8 [count, 10, 10, 2], every value from 0 to 199 a few times."""
    values = np.arange(count * 200) % 200
    return np.random.default_rng(0).permutation(values).reshape(count, 10, 10, 2).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# By hand


def test_input_scales_by_hand() -> None:
    chip = measure_inputs(one_by_one(IDEAL), pixels())
    tiles = chip.tiles["conv"]
    assert not tiles.plan.signed_inputs
    top = np.percentile(pixels(), 99.99)
    np.testing.assert_allclose(scale_of(tiles), top / 255, rtol=1e-6)


def test_signed_inputs_use_a_bipolar_dac() -> None:
    """Pixels from -150 to 49: the larger side sets the step of 127 codes."""
    shifted = Preprocess(mean=(150.0, 150.0), std=(1.0, 1.0), divisor=1.0)
    tiles = measure_inputs(one_by_one(IDEAL, shifted), pixels()).tiles["conv"]
    assert tiles.plan.signed_inputs
    low = np.percentile(pixels() - 150.0, 0.01)
    np.testing.assert_allclose(scale_of(tiles), -low / 127, rtol=1e-6)


def test_outliers_beyond_the_percentile_are_clipped() -> None:
    images = np.full((200, 10, 10, 2), 50, np.uint8)  # 40,000 values, of which 0.01 % are four
    images[3, 2, 1, 0] = 255
    tiles = measure_inputs(one_by_one(IDEAL), images, batch_size=200).tiles["conv"]
    np.testing.assert_allclose(scale_of(tiles), 50 / 255, rtol=1e-6)
    images[3, :, 1, :] = 255
    tiles = measure_inputs(one_by_one(IDEAL), images, batch_size=200).tiles["conv"]
    np.testing.assert_allclose(scale_of(tiles), 255 / 255, rtol=1e-6)


def test_dark_images_leave_a_scale_of_one() -> None:
    chip = calibrate(one_by_one(CONVERTED), np.zeros((4, 10, 10, 2), np.uint8))
    assert scale_of(chip.tiles["conv"]) == 1.0
    assert chip.calibrated and all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(chip.tiles["conv"].adc))


def sums_by_hand(images: np.ndarray, scale: float) -> np.ndarray:
    """[n, 3] column sums in units of (input code x level)."""
    codes = np.clip(np.round(images.reshape(-1, 2) / scale), 0, 255)
    return codes @ KERNEL.astype(np.float64)


@pytest.mark.parametrize("per", ["layer", "tile", "column"])
@pytest.mark.parametrize("percentile", [90.0, 99.9])
def test_ranges_by_hand(per: Any, percentile: float) -> None:
    spec = CONVERTED.replace(adc=Adc(8, per=per, percentile=percentile))
    tiles = calibrate(one_by_one(spec), pixels()).tiles["conv"]
    sums = sums_by_hand(pixels(), scale_of(tiles))
    axis = 0 if per == "column" else None
    low = np.minimum(np.percentile(sums, 100 - percentile, axis), 0)
    high = np.maximum(np.percentile(sums, percentile, axis), 0)
    assert tiles.adc is not None
    assert tiles.adc.lsb.shape == (1, 1, 1, 3 if per == "column" else 1)
    np.testing.assert_allclose(tiles.adc.lsb[0, 0, 0], np.atleast_1d((high - low) / 255), rtol=1e-5)
    np.testing.assert_allclose(tiles.adc.min_code[0, 0, 0], np.round(low / ((high - low) / 255)), atol=0)
    np.testing.assert_array_equal(tiles.adc.offset, 0)


@pytest.mark.parametrize("count", [8, 5])
def test_percentiles_are_averaged_over_batches_by_their_images(count: int) -> None:
    """A last batch of one image weighs as one image."""
    images = pixels(count)
    images[4:] //= 4
    tiles = measure_inputs(one_by_one(IDEAL), images, batch_size=4).tiles["conv"]
    mean = np.average([np.percentile(images[:4], 99.99), np.percentile(images[4:], 99.99)], weights=[4, count - 4])
    np.testing.assert_allclose(scale_of(tiles), mean / 255, rtol=1e-6)


def test_ranges_too_weigh_batches_by_their_images() -> None:
    images = pixels(5)
    images[4:] //= 4
    tiles = calibrate(one_by_one(CONVERTED), images, batch_size=4).tiles["conv"]
    ends = []
    for percent in (0.1, 99.9):
        each = [np.percentile(sums_by_hand(part, scale_of(tiles)), percent) for part in (images[:4], images[4:])]
        ends.append(np.average(each, weights=[4, 1]))
    assert tiles.adc is not None
    np.testing.assert_allclose(tiles.adc.lsb.item(), (ends[1] - ends[0]) / 255, rtol=1e-5)


class OnEveryPixel(nnx.Module):
    """A layer over the channels, by a convolution or by a dense layer on ``[batch, tokens, features]``."""

    def __init__(self, channels: int, *, dense: bool, rngs: nnx.Rngs) -> None:
        self.dense = dense
        self.layer = nnx.Linear(channels, 2, rngs=rngs) if dense else nnx.Conv(channels, 2, (1, 1), rngs=rngs)
        self.head = nnx.Linear(2, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(len(x), -1, x.shape[-1]) if self.dense else x
        return self.head(self.layer(x).mean(tuple(range(1, x.ndim - 1))))


@pytest.mark.parametrize(("channels", "size", "dense"), [(3, 50, False), (3, 50, True), (7, 46, False), (15, 24, True)])
def test_every_channel_counts(channels: int, size: int, dense: bool) -> None:
    """All channels but the last are flat; sizes at which every k-th value is always one channel's, k near n / 2**17."""
    network = network_from_module(
        lambda: OnEveryPixel(channels, dense=dense, rngs=nnx.Rngs(0)),
        name="pixels",
        head="head",
        preprocess=Preprocess((0.0,) * channels, (1.0,) * channels, divisor=1.0),
        image_size=size,
    )
    arrays = {path: np.ones(shape, np.float32) for path, shape in network.shapes.items()}
    images = np.full((64 if channels < 15 else 512, size, size, channels), 20, np.uint8)
    images[..., -1] = np.random.default_rng(0).integers(20, 200, images.shape[:-1])
    chip = measure_inputs(program(backbone(network, arrays), IDEAL, jax.random.key(0)), images, batch_size=len(images))
    np.testing.assert_allclose(scale_of(chip.tiles["layer"]), np.percentile(images, 99.99) / 255, rtol=1e-6)


def lit(count: int = 4, level: int = 200) -> np.ndarray:
    """Black images of 80 pixels; the first has one that is lit, of 51,200 values."""
    images = np.zeros((count, 80, 80, 2), np.uint8)
    images[0, 40, 40, 0] = level
    return images


def test_inputs_that_are_nearly_all_zero_are_covered_whole() -> None:
    with pytest.warns(UserWarning, match=r"inputs of conv: zero but for outliers"):
        tiles = measure_inputs(one_by_one(IDEAL), lit()).tiles["conv"]
    np.testing.assert_allclose(scale_of(tiles), 200 / 255, rtol=1e-6)


@pytest.mark.parametrize("per", ["layer", "column"])
def test_sums_that_are_nearly_all_zero_are_covered_whole(per: Any) -> None:
    """Levels 1, -1, 127 times the code 255; a column range of its own covers its own sums."""
    chip = measure_inputs(one_by_one(CONVERTED.replace(adc=Adc(8, per=per))), np.full((1, 80, 80, 2), 200, np.uint8))
    with pytest.warns(UserWarning, match="column sums of conv: zero but for outliers"):
        grid = measure_ranges(chip, lit()).tiles["conv"].adc
    assert grid is not None
    wanted = [128.0] if per == "layer" else [1.0, 1.0, 127.0]
    np.testing.assert_allclose(grid.lsb[0, 0, 0], wanted, rtol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# One line of a pair alone

LEAKING = CONVERTED.replace(
    weight_bits=6, input_bits=6, dac_bits=3, cell=Cell(3, 12.0), device=Gaussian(0.02), adc=Adc(8, percentile=99.0)
)


def line_sums(tiles: Tiles, x: np.ndarray) -> np.ndarray:
    """What the literal cells send on one line of each pair, by themselves: [2, J, S, T, sums, N]."""
    cells = CellByCell(tiles, np.asarray(tiles.conductance))
    cycles = cells.cycles(literal_codes(x, scale_of(tiles), tiles.plan.spec.input_bits, signed=True))
    slices, count = cells.held.shape[1], tiles.plan.row_tiles

    def current(p: int, j: int, s: int, t: int) -> np.ndarray:
        inside = (cells.index == t)[..., None]
        found = cells.currents(cycles[j][1], cells.seen[p, s] * inside, cells.held[p, s] * inside)
        return found.reshape(-1, tiles.plan.columns)

    places = [[[[current(p, j, s, t) for t in range(count)] for s in range(slices)] for j in (0, 1)] for p in (0, 1)]
    return np.array(places)


@pytest.mark.parametrize("per", [pytest.param("layer", marks=pytest.mark.slow), "column"])
def test_ranges_hold_either_line_alone(per: Any) -> None:
    """Of the difference and of each line, cell by cell: two slices, two cycles, two tiles, level 0 conducting."""
    spec = LEAKING.replace(adc=dataclasses.replace(LEAKING.adc, per=per))
    chip = program(tiny_backbone(), spec, jax.random.key(0), rules={"blocks/*": None})
    scaled = with_signed_inputs(chip.tiles["stem"], True).replace(input_scale=jnp.float32(0.07))
    chip = chip.replace(tiles={"stem": with_lines(scaled) if per == "column" else scaled})
    tiles = measure_ranges(chip, tiny_images(8), lines=True).tiles["stem"]
    plus, minus = line_sums(tiles, np.asarray(chip.network.prepared(jnp.asarray(tiny_images(8))), np.float64))
    ends = []
    for percent, widest in ((1.0, np.min), (99.0, np.max)):
        over = -2 if per == "column" else (-2, -1)
        each = [np.percentile(sums, percent, over, keepdims=True) for sums in (plus - minus, plus, -minus)]
        end = widest(np.stack(each), 0)[..., 0, :]  # [J, S, T, N or 1]
        ends.append(end if per == "column" else widest(end, 2, keepdims=True))
    low, high = np.minimum(ends[0], 0.0), np.maximum(ends[1], 0.0)
    assert tiles.adc is not None
    np.testing.assert_allclose(tiles.adc.lsb, (high - low) / 255, rtol=1e-4)
    np.testing.assert_allclose(tiles.adc.min_code, low / ((high - low) / 255), rtol=0, atol=0.51)


CANCELLING = np.array([[127.0, -127.0, 127.0], [-100.0, 100.0, -100.0]], np.float32)
"""On grey pixels p a pair's lines send 127 p and 100 p, and its converter sees 27 p."""


def test_what_one_line_alone_costs() -> None:
    """The step grows from 27 to 127 + 100; without it, most of what one line sends is clipped."""
    grey = np.repeat(pixels()[..., :1], 2, axis=-1)
    measured = measure_inputs(one_by_one(CONVERTED.replace(adc=Adc(8, per="column")), kernel=CANCELLING), grey)
    pairs, lines = measure_ranges(measured, grey), measure_ranges(measured, grey, lines=True)
    assert pairs.tiles["conv"].adc is not None and lines.tiles["conv"].adc is not None
    np.testing.assert_allclose(lines.tiles["conv"].adc.lsb / pairs.tiles["conv"].adc.lsb, 227 / 27, rtol=1e-5)
    method = methods.xbm_lines()
    mask = jnp.array([[[1.0] * 3, [-1.0] * 3]])  # the negative lines are off
    task = Task({**initial_trained(pairs, method, 2, jax.random.key(0)), "masks": {"conv": mask}}, {}, method, {})
    sums, top = grey.reshape(-1, 2)[:, :1] * np.array([127, 100, 127]), 27 * np.percentile(grey, 99.9)
    beyond = sums > np.array([1, 0, 1]) * top + top / 255 / 2
    assert adc_clip_rates(pairs, task, grey)["conv"] == pytest.approx(beyond.mean(), abs=0.01) and beyond.mean() > 0.8
    assert adc_clip_rates(lines, task, grey)["conv"] <= 0.005


def test_lines_with_converters_of_their_own_have_ranges_of_their_own() -> None:
    measured = measure_inputs(one_by_one(CONVERTED.replace(subtract="digital")), pixels())
    alike = (measure_ranges(measured, pixels(), lines=lines).tiles["conv"].adc for lines in (False, True))
    jax.tree.map(np.testing.assert_array_equal, *alike)


@pytest.mark.parametrize("measure", [calibrate, measure_ranges])
def test_without_pairs_there_are_no_lines_to_measure(measure: Any) -> None:
    with pytest.raises(SpecError, match=r"conv\.encoding = 'offset': 'differential' with lines=True"):
        measure(one_by_one(CONVERTED.replace(encoding="offset", cell=Cell(8))), pixels(), lines=True)


# ---------------------------------------------------------------------------------------------------------------------
# On a network

SLICED = CONVERTED.replace(weight_bits=5, input_bits=4, dac_bits=2, cell=Cell(2))
SHAPES = {"layer": (2, 2, 1, 1), "tile": (2, 2, 3, 1), "column": (2, 2, 3, 8)}


@pytest.mark.parametrize("per", SHAPES)
def test_shapes_of_what_shares_a_range(per: Any) -> None:
    """[cycles, slices, tiles, columns] of a kernel of 72 rows on 24-row arrays, and how much each range covers."""
    rules = {"stem": None, "blocks/1/*": None}
    spec = SLICED.replace(adc=Adc(8, per=per, percentile=99.0))
    chip = calibrate(program(tiny_backbone(), spec, jax.random.key(0), rules=rules), tiny_images(32))
    tiles = chip.tiles["blocks/0/conv"]
    assert tiles.adc is not None and tiles.adc.lsb.shape == tiles.adc.min_code.shape == SHAPES[per]
    inputs = jax.random.uniform(jax.random.key(0), (2, 6, 6, 8)) * scale_of(tiles) * 15
    widest = float(tiles.adc.lsb.max() * 255)
    assert 0 < float(tiles.adc.lsb.min()) <= float(tiles.adc.lsb.max())
    found = [jnp.ptp(s) for _, _, s in column_sums(tiles.plan, input_codes(tiles, inputs), tiles.effective)]
    assert 0.2 < widest / float(max(found)) < 5  # in units of (input code x level)


def test_calibration_touches_no_cell() -> None:
    before = program(tiny_backbone(), CONVERTED, jax.random.key(0))
    after = calibrate(before, tiny_images(32))
    assert not before.calibrated and after.calibrated
    for path, tiles in after.tiles.items():
        for name in CELLS:
            np.testing.assert_array_equal(getattr(tiles, name), getattr(before.tiles[path], name), err_msg=path)
        assert tiles.plan.signed_inputs == (path == "stem")
    for name in ("digital", "norms", "stats", "head"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))


def test_scales_hold_the_largest_inputs_of_the_float_network() -> None:
    """The stem's inputs are the preprocessed pixels, whatever the weights."""
    images = tiny_images(64)
    tiles = measure_inputs(program(tiny_backbone(), IDEAL, jax.random.key(0)), images).tiles["stem"]
    x = np.asarray(tiny_backbone().network.prepared(jnp.asarray(images)))
    peak = max(np.percentile(x, 99.99), -np.percentile(x, 0.01))
    np.testing.assert_allclose(scale_of(tiles), peak / 127, rtol=1e-5)


def test_known_ranges_stay() -> None:
    adc = Adc(8, (-3000.0, 5000.0))
    chip = program(tiny_backbone(), CONVERTED.replace(adc=adc), jax.random.key(0), rules={"blocks/*": None})
    after = calibrate(chip, tiny_images(8))
    jax.tree.map(np.testing.assert_array_equal, after.tiles["stem"].adc, chip.tiles["stem"].adc)


def test_worst_case_ranges_follow_the_sign_of_the_inputs() -> None:
    """``"max"`` covers all that any input can cause: for signed ones ``127 * sum |w|`` on both sides."""
    spec = CONVERTED.replace(rows=32, adc=Adc(8, "max", "column"))
    chip = calibrate(program(tiny_backbone(), spec, jax.random.key(0), rules={"blocks/*": None}), tiny_images(8))
    tiles = chip.tiles["stem"]
    assert tiles.plan.signed_inputs and tiles.adc is not None
    levels = np.asarray(nominal_weights(tiles) / tiles.weight_scale, np.float64)
    worst = 127 * np.abs(levels).sum((0, 1, 2))
    np.testing.assert_allclose(tiles.adc.lsb[0, 0, 0], 2 * worst / 255, rtol=1e-5)


def test_measuring_again_changes_nothing() -> None:
    chip = calibrate(program(tiny_backbone(), CONVERTED, jax.random.key(0)), tiny_images(32))
    again = measure_ranges(chip, tiny_images(32))
    for path, tiles in chip.tiles.items():
        jax.tree.map(np.testing.assert_array_equal, again.tiles[path].adc, tiles.adc)


# ---------------------------------------------------------------------------------------------------------------------
# Norm statistics


def test_norm_statistics_by_hand() -> None:
    """The first norm sees the first layer's output: 48 of 50 images, in three batches."""
    chip, images = tiny_chip(CONVERTED), tiny_images(50)
    seen = np.asarray(read(chip.tiles["stem"], chip.network.prepared(jnp.asarray(images))), np.float64)
    batches = seen[:48].reshape(3, -1, seen.shape[-1])
    mean, var = batches.mean((0, 1)), batches.var(1, ddof=1).mean(0) + batches.mean(1).var(0)
    stats = measure_norms(chip, images, batch_size=16).stats["bn"]
    np.testing.assert_allclose(stats["mean"], mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(stats["var"], var, rtol=1e-4)


def test_statistics_are_the_same_whatever_a_norms_momentum() -> None:
    """Only how fast they follow in training depends on it: here half of the way a batch, and a tenth."""
    chip, images = tiny_chip(), tiny_images(32)
    momenta = {"bn": 0.5, "blocks/0/bn": 0.99, "blocks/1/bn": 0.0}
    other = chip.replace(network=dataclasses.replace(chip.network, name="other", momenta=momenta))
    measured = [measure_norms(one, images, batch_size=16).stats for one in (chip, other)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *measured)
    following = Method("m", norms="full")
    moved = [
        forward(one, following, source_trained(one), one.stats, jnp.asarray(images), train=True)[1]["bn"]["mean"]
        - one.stats["bn"]["mean"]
        for one in (chip, other)
    ]
    np.testing.assert_allclose(moved[1], 5 * moved[0], rtol=1e-4, atol=1e-6)


def test_norms_measured_again_undo_what_all_cells_lost() -> None:
    """Half the conductance in every cell halves each norm's input; a norm with its own statistics does not see it."""
    fresh = measure_norms(tiny_chip(), tiny_images(48), batch_size=16)
    weak = fresh.replace(tiles={p: t.replace(effective=0.5 * t.effective) for p, t in fresh.tiles.items()})
    repaired = measure_norms(weak, tiny_images(48), batch_size=16)

    def logits(chip: Chip) -> np.ndarray:
        images = jnp.asarray(tiny_images(8, seed=3))
        method = Method("source", norms="frozen")
        return np.asarray(forward(chip, method, source_trained(chip), chip.stats, images)[0])

    wanted = logits(fresh)
    spread = wanted.std()
    assert np.abs(logits(weak) - wanted).max() > 0.5 * spread
    # Not to the last bit: a norm's epsilon weighs more beside a smaller variance.
    assert np.abs(logits(repaired) - wanted).max() < 0.05 * spread


def test_measuring_norms_leaves_everything_else() -> None:
    chip = tiny_chip(CONVERTED)
    after = measure_norms(chip, tiny_images(16), batch_size=8)
    assert after.stats.keys() == chip.stats.keys()
    jax.tree.map(np.testing.assert_array_equal, after.replace(stats=chip.stats), chip)


def test_every_batch_of_norm_statistics_reads_with_noise_of_its_own() -> None:
    """The same images twice: under one key the second batch would add nothing."""
    images, key = tiny_images(8), jax.random.key(1)
    once, twice = (
        measure_norms(tiny_chip(NOISY), x, batch_size=8, key=key).stats["bn"]["mean"]
        for x in (images, np.concatenate([images, images]))
    )
    assert not np.array_equal(once, twice)
    np.testing.assert_allclose(once, twice, atol=0.01)


def test_norms_of_a_noisy_chip_need_a_key() -> None:
    chip = tiny_chip(NOISY)
    with pytest.raises(SpecError, match="a PRNG key"):
        measure_norms(chip, tiny_images(16), batch_size=8)
    silent = measure_norms(chip, tiny_images(16), batch_size=8, key=jax.random.key(1)).stats["bn"]
    assert np.isfinite(silent["mean"]).all() and (np.asarray(silent["var"]) > 0).all()


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


def test_norms_need_a_whole_batch() -> None:
    with pytest.raises(DataError, match="at least batch_size = 64") as caught:
        measure_norms(tiny_chip(), tiny_images(63))
    assert (caught.value.field, caught.value.value) == ("images", "63 images")


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="at least one image") as caught:
        calibrate(program(tiny_backbone(), CONVERTED, jax.random.key(0)), tiny_images(0))
    assert (caught.value.field, caught.value.value) == ("images", "0 images")


def test_ranges_need_input_scales() -> None:
    with pytest.raises(SpecError, match="measure inputs first"):
        measure_ranges(program(tiny_backbone(), CONVERTED, jax.random.key(0)), tiny_images(2))


MEASURES = {"calibrate": calibrate, "inputs": measure_inputs, "ranges": measure_ranges, "norms": measure_norms}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize(
    ("images", "batch_size", "error", "message"),
    [
        (tiny_images(2), 0, SpecError, "batch_size = 0"),
        (tiny_images(2), -1, SpecError, "batch_size = -1"),
        (tiny_images(2), 2.0, SpecError, "batch_size = 2.0"),
        (tiny_images(0), 2, DataError, "images = '0 images': at least one"),
        (tiny_images(2)[..., :1], 2, DataError, "images.shape"),
        ([*tiny_images(1), *tiny_images(1)[:, 1:]], 2, DataError, "images = 'several shapes in one list'"),
    ],
    ids=["batches of none", "of minus one", "of a real number", "no images", "grey images", "images of several sizes"],
)
def test_what_cannot_be_measured_on_is_named(
    measure: Any, images: Any, batch_size: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        measure(tiny_chip(), images, batch_size=batch_size)


def test_a_chip_without_arrays_has_nothing_to_measure() -> None:
    chip = program(tiny_backbone(), CONVERTED, jax.random.key(0), rules={"*": None})
    assert calibrate(chip, tiny_images(4)).calibrated
    assert measure_norms(chip, tiny_images(4), batch_size=2).stats.keys() == chip.stats.keys()
