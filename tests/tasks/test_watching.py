"""What an engineer asks of a chip and a task, against what NumPy makes of the first layer, and counts made by hand."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crossbar.literal import Literal, contract, explicit_codes, input_codes, unfold
from tasks import tiny
from xbm_jax.crossbar import Adc, Cell, CrossbarSpec, Gaussian, column_sums, nominal_weights
from xbm_jax.crossbar.reading.sums import input_codes as chip_codes
from xbm_jax.errors import DataError, SpecError
from xbm_jax.masks import methods
from xbm_jax.models import program
from xbm_jax.tasks import Inspection, LayerInspection, active_columns, adc_clip_rates, inspect, source_task, stored

IMAGES = tiny.stripes().x_test[:16]
LOW, HIGH, BITS = -200.0, 2000.0, 8
LOSSLESS: dict[str, Any] = {"adc": Adc(bits=16, range="granular"), "cell": Cell(bits=4), "dac_bits": 4}


def chip_with(adc, rules=None, **changes):
    spec = tiny.SPECS["ideal"].replace(adc=adc, **changes)
    return program(tiny.measured_weights(), spec, jax.random.key(0), rules=rules)


def decibels(wanted: np.ndarray, got: np.ndarray, axis=None) -> np.ndarray:
    return 10 * np.log10(np.sum(wanted**2, axis) / np.sum((got - wanted) ** 2, axis))


def first_input(chip, images) -> np.ndarray:
    """What the first layer gets: the images themselves, in float64."""
    return np.asarray(chip.network.prepared(jnp.asarray(images)), np.float64)


# ---------------------------------------------------------------------------------------------------------------------
# Against a literal read of the first layer


@pytest.fixture(scope="module")
def masked():
    """A chip of two slices, two cycles and narrow converters, and a task that leaves out some columns."""
    adc = Adc(bits=BITS, range=(LOW, HIGH))
    chip = chip_with(adc, cell=Cell(bits=4, on_off=50.0), dac_bits=4, device=Gaussian(0.03))
    task = tiny.made_up_task(chip, methods.xbm())
    mask = np.ones((2, 8), np.float32)
    mask[0, :3] = mask[1, 2] = -1  # column 2 is off on both of its tiles: it has no output
    return chip, task.replace(trained={**task.trained, "masks": {**task.trained["masks"], "conv1": jnp.asarray(mask)}})


@pytest.fixture(scope="module")
def inspection(masked) -> Inspection:
    return inspect(masked[0], IMAGES[:10], masked[1], batch_size=4)  # three batches of four, two images filled up


def test_first_layer_is_what_numpy_makes_of_it(masked, inspection):
    chip, task = masked
    tiles, gain = chip.tiles["conv1"], (np.asarray(task.trained["masks"]["conv1"]) > 0).astype(float)
    x = first_input(chip, IMAGES[:10])
    codes = input_codes(x, np.asarray(tiles.input_scale).item(), 8, signed=True)
    pairs = np.asarray(tiles.effective, np.float64)
    literal = Literal(pairs, 24, 4, 8, 4, conv=tiles.plan.conv, adc=explicit_codes(LOW, HIGH, BITS))
    scale = np.asarray(tiles.weight_scale, np.float64)
    got = literal.read(codes, gain)[0] * scale * np.asarray(tiles.input_scale).item()
    nominal = np.asarray(nominal_weights(tiles), np.float64) * gain[literal.tiles]
    wanted = contract(unfold(x, nominal.shape, tiles.plan.conv), nominal)
    layer = inspection.layers[0]
    assert layer.path == "conv1" and layer.snr_db == pytest.approx(decibels(wanted, got), abs=0.05)
    on = np.flatnonzero(gain.any(0))
    ratios = decibels(wanted[..., on], got[..., on], (0, 1, 2))
    assert layer.worst_column is not None and layer.worst_column.column == on[np.argmin(ratios)]
    assert layer.worst_column.snr_db == pytest.approx(ratios.min(), abs=0.05)

    sums = np.array(literal.column_sums(codes))  # [T, J, V, images, height, width, N]
    step = (HIGH - LOW) / (2**BITS - 1)
    beyond = (sums < LOW - step / 2) | (sums > HIGH + step / 2)
    rates = beyond.mean((1, 2, 3, 4, 5)) * gain
    assert 0.001 < layer.clip_rate < 0.5
    assert layer.clip_rate == pytest.approx(rates.sum() / gain.sum(), rel=0.01)
    worst = layer.worst_clip
    assert worst is not None and (worst.tile, worst.column) == np.unravel_index(np.argmax(rates), rates.shape)
    assert worst.clip_rate == pytest.approx(rates.max(), rel=0.01)
    index = np.clip(np.rint((sums - LOW) / step), 0, 2**BITS - 1)
    met = np.unique(np.moveaxis(index, -1, 1)[gain > 0])
    assert layer.codes_used is not None and abs(layer.codes_used - len(met)) <= 1  # a tie may fall either way
    assert len(met) < 2**BITS and layer.codes_share == layer.codes_used / 2**BITS
    assert layer.active_columns == gain.mean()
    assert layer.macs == 12 * 12 * 27 * 8


def test_the_size_of_batches_does_not_matter(masked, inspection):
    whole = inspect(masked[0], IMAGES[:10], masked[1])
    for one, other in zip(whole.layers, inspection.layers, strict=True):
        assert one.snr_db == pytest.approx(other.snr_db, abs=1e-3)
        assert one.clip_rate == pytest.approx(other.clip_rate, abs=1e-5)
        assert (one.codes_used, one.macs) == (other.codes_used, other.macs)


def test_columns_and_clipping_are_those_of_the_task_alone(masked, inspection):
    chip, task = masked
    rates, shares = adc_clip_rates(chip, task, IMAGES[:10]), active_columns(chip, task)
    assert {layer.path: layer.clip_rate for layer in inspection.layers} == pytest.approx(rates, abs=1e-6)
    assert {layer.path: layer.active_columns for layer in inspection.layers} == shares
    assert min(shares.values()) < 1
    everything = inspect(chip, IMAGES[:10])
    assert {layer.active_columns for layer in everything.layers} == {1.0}
    assert everything.layers[0].clip_rate != pytest.approx(inspection.layers[0].clip_rate, rel=1e-3)


def test_a_layer_without_active_columns_has_no_ratio_and_clips_nothing(masked):
    chip, task = masked
    masks = {**task.trained["masks"], "conv2": jnp.full((3, 8), -1.0)}
    layer = inspect(chip, IMAGES[:4], task.replace(trained={**task.trained, "masks": masks})).layers[1]
    assert (layer.snr_db, layer.worst_column, layer.worst_clip) == (None, None, None)
    assert (layer.active_columns, layer.clip_rate, layer.codes_used) == (0.0, 0.0, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Folded reads


@pytest.mark.parametrize("changes", [{"adc": Adc(bits=None)}, LOSSLESS], ids=["ideal", "lossless"])
def test_a_folded_chip_shows_input_quantisation_alone(changes):
    chip = chip_with(**changes)
    inspection = inspect(chip, IMAGES)
    assert (inspection.folded_share, inspection.simulated_share) == (1.0, 0.0)
    for layer in inspection.layers:
        assert layer.folded and layer.fold_reason == chip.tiles[layer.path].plan.fold_reason != ""
        assert (layer.clip_rate, layer.worst_clip, layer.codes_used, layer.codes_share) == (0.0, None, None, None)
        assert layer.adc_bits == changes["adc"].bits
    tiles, x = chip.tiles["conv1"], first_input(chip, IMAGES)
    rounded = (
        input_codes(x, np.asarray(tiles.input_scale).item(), 8, signed=True) * np.asarray(tiles.input_scale).item()
    )
    nominal = np.asarray(nominal_weights(tiles), np.float64)
    wanted, got = (contract(unfold(v, nominal.shape, tiles.plan.conv), nominal) for v in (x, rounded))
    assert inspection.layers[0].snr_db == pytest.approx(decibels(wanted, got), abs=0.02)
    assert 30 < decibels(wanted, got) < 60


def test_shares_are_those_of_the_multiply_accumulates():
    rules = {"conv1": tiny.SPECS["ideal"], "conv3": None}
    inspection = inspect(chip_with(Adc(bits=14, range=(-3e4, 3e4)), rules), IMAGES)  # 16,384 codes
    assert [(layer.path, layer.folded, layer.macs) for layer in inspection.layers] == [
        ("conv1", True, 144 * 27 * 8),
        ("conv2", False, 36 * 72 * 8),
    ]
    assert inspection.folded_share == pytest.approx(0.6)
    assert inspection.simulated_share == pytest.approx(0.4)
    used = inspection.layers[1].codes_used
    assert used is not None and 500 < used < 2**14
    assert inspection.layers[1].codes_share == used / 2**14


def test_a_task_that_rewrites_cells_is_simulated_where_its_weights_may_leave_the_range():
    chip = chip_with(rules={"conv[23]": None}, **LOSSLESS)
    (source,), (rewritten,) = (
        inspect(chip, IMAGES[:4], task).layers for task in (None, tiny.made_up_task(chip, methods.piggyback()))
    )
    assert source.folded and not rewritten.folded
    assert rewritten.fold_reason.startswith("reprogrammed")
    assert rewritten.active_columns == 1.0 and rewritten.codes_used is not None
    assert rewritten.snr_db is not None and rewritten.snr_db > 30  # against the task's own weights


def test_read_noise_is_in_the_ratio_and_wants_a_key():
    chip = tiny.chip("noisy")
    with pytest.raises(SpecError, match="key = None: a PRNG key"):
        inspect(chip, IMAGES)
    (noisy,) = inspect(chip, IMAGES, key=jax.random.key(1)).layers
    quiet = chip.replace(tiles={path: tiles.replace(read_variance=None) for path, tiles in chip.tiles.items()})
    (silent,) = inspect(quiet, IMAGES).layers
    assert noisy.snr_db is not None and silent.snr_db is not None and noisy.snr_db < silent.snr_db - 3


# ---------------------------------------------------------------------------------------------------------------------
# Bad input, and what comes out


def test_bad_images_and_chips_are_named():
    chip = tiny.chip("ideal")
    with pytest.raises(DataError, match=r"images.shape = \(16, 12, 12, 1\)"):
        inspect(chip, IMAGES[..., :1])
    with pytest.raises(DataError, match="images = '0 images': at least one"):
        inspect(chip, IMAGES[:0])
    with pytest.raises(DataError, match="batch_size = 0: at least 1"):
        inspect(chip, IMAGES, batch_size=0)
    fresh = program(tiny.weights(), CrossbarSpec(), jax.random.key(0))
    with pytest.raises(SpecError, match="chip = 'not calibrated'"):
        inspect(fresh, IMAGES)
    with pytest.raises(SpecError, match="chip = 'not calibrated'"):
        adc_clip_rates(fresh, source_task(fresh), IMAGES)


def test_it_is_plain_json(inspection):
    text = json.dumps(inspection.to_json(), allow_nan=False)
    found = json.loads(text)
    assert found["network"] == "tiny" and found["images"] == 10
    assert [layer["path"] for layer in found["layers"]] == list(tiny.LAYERS)
    assert set(found["layers"][0]) == {field.name for field in dataclasses.fields(LayerInspection)}
    assert set(found["layers"][0]["worst_clip"]) == {"tile", "column", "clip_rate"}


def test_it_prints_as_a_table(inspection):
    heading, _, *lines = str(inspection).splitlines()
    layer, worst = inspection.layers[0], inspection.layers[0].worst_clip
    assert heading.split()[:3] == ["layer", "read", "SNR"] and max(map(len, lines[:3])) <= len(heading)
    assert lines[0].split()[:3] == ["conv1", "simulated", f"{layer.snr_db:.1f}"]
    assert worst is not None and f"{worst.tile}, {worst.column}  {layer.codes_used} of 256" in lines[0]
    assert lines[3] == "tiny, 10 images; multiply-accumulates: 0.0% folded exactly, 100.0% simulated"
    assert lines[4:] == ["all layers: simulated, 8-bit converter whose step is not one level"]


# ---------------------------------------------------------------------------------------------------------------------
# What a task's report holds


def test_active_columns_by_hand():
    chip = tiny.chip("ideal")
    task = tiny.made_up_task(chip, methods.xbm(estimator="identity"))
    masks = {
        "conv1": jnp.full((2, 8), 1.0),
        "conv2": jnp.full((3, 8), -1.0).at[0, :2].set(1.0),
        "conv3": jnp.full((3, 8), -1.0).at[1].set(0.0051).at[2, 3].set(0.005),  # the threshold itself is off
    }
    task = task.replace(trained={**task.trained, "masks": masks})
    wanted = {"conv1": 1.0, "conv2": 2 / 24, "conv3": 8 / 24}
    assert active_columns(chip, task) == pytest.approx(wanted)
    assert active_columns(chip, stored(chip, task)) == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["head_only", "norm_only-full", "piggyback", "finetune"])
def test_every_column_counts_where_none_is_masked(name):
    chip = tiny.chip("ideal")
    assert active_columns(chip, tiny.made_up_task(chip, tiny.METHODS[name])) == dict.fromkeys(tiny.LAYERS, 1.0)


def test_nothing_clips_on_ideal_or_very_wide_converters():
    for chip in (tiny.chip("ideal"), chip_with(Adc(bits=8, range=(-1e7, 1e7)))):
        rates = adc_clip_rates(chip, tiny.made_up_task(chip, methods.xbm()), IMAGES)
        assert rates == dict.fromkeys(tiny.LAYERS, 0.0)


def test_clip_rate_counts_the_conversions_outside_the_range():
    low, high = -3000.0, 5000.0
    chip = chip_with(Adc(bits=8, range=(low, high)))
    task = tiny.made_up_task(chip, methods.head_only())
    rates = adc_clip_rates(chip, task, IMAGES)
    tiles = chip.tiles["conv1"]
    codes = chip_codes(tiles, chip.network.prepared(jnp.asarray(IMAGES)))
    sums = np.concatenate([np.ravel(s) for _, _, s in column_sums(tiles.plan, codes, tiles.effective)])
    half_step = (high - low) / 255 / 2
    wanted = np.mean((sums < low - half_step) | (sums > high + half_step))
    assert 0.05 < wanted < 0.95
    assert rates["conv1"] == pytest.approx(wanted, abs=1e-4)
    assert all(0 <= rate <= 1 for rate in rates.values())


def test_calibrated_converters_clip_little():
    chip = tiny.chip("adc")
    rates = adc_clip_rates(chip, tiny.made_up_task(chip, methods.head_only()), IMAGES)
    assert set(rates) == set(tiny.LAYERS)
    assert all(0 <= rate < 0.02 for rate in rates.values())
    assert max(rates.values()) > 0  # percentile 99.9: a little is meant to clip
