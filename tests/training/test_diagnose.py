"""What an engineer asks of a learned task, against counts made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.crossbar import Adc, column_sums
from xbm_jax.crossbar.sums import input_codes
from xbm_jax.masks import methods
from xbm_jax.models import program
from xbm_jax.tasks import stored
from xbm_jax.training import active_columns, adc_clip_rates

IMAGES = tiny.stripes().x_test[:16]


def chip_with(adc):
    return program(tiny.measured_weights(), tiny.SPECS["ideal"].replace(adc=adc), jax.random.key(0))


def test_active_columns_by_hand():
    chip = tiny.chip("ideal")
    task = tiny.made_up_task(chip, methods.xbm())
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
    codes = input_codes(tiles, chip.network.preprocess(jnp.asarray(IMAGES)))
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
