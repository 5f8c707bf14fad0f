"""Who a chip is, and what another chip is told."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.banks import ChipCard, chip_card
from xbm_jax.crossbar import Adc, Cell, ChannelOrder, CrossbarSpec
from xbm_jax.errors import BankError
from xbm_jax.models import calibrate, program

SPEC = tiny.SPECS["ideal"]
BACKWARDS = ChannelOrder(range(7, -1, -1))


def programmed(spec=SPEC, key=0, seed=0, rules=None):
    return program(tiny.weights(seed), spec, jax.random.key(key), rules=rules)


@pytest.fixture(scope="module")
def chip():
    return programmed()


def aged(chip):
    """The chip after some drift: what the cells hold and what a read sees has changed."""
    older = {p: t.replace(conductance=0.8 * t.conductance, effective=0.8 * t.effective) for p, t in chip.tiles.items()}
    return chip.replace(tiles=older)


def test_identity_survives_drift_and_calibration(chip):
    card = chip_card(chip)
    assert chip_card(aged(chip)) == card
    assert chip_card(calibrate(chip, tiny.stripes().x_train[:8])) == card
    assert chip_card(programmed()) == card
    card.check(chip_card(aged(chip)))


def test_card_round_trips_through_json(chip):
    mixed = programmed(rules={"conv2": SPEC.replace(rows=64, row_order="tap"), "conv3": None})
    ordered = programmed(rules={"conv2": SPEC.replace(row_order=BACKWARDS)})
    for card in (chip_card(chip), chip_card(mixed), chip_card(ordered)):
        data = json.loads(json.dumps(card.to_json()))
        assert ChipCard.from_json(data) == card
    assert len(chip_card(chip).to_json()["specs"]) == 1


OTHERS = {
    "key": ({"key": 1}, "chip.identity"),
    "weights": ({"seed": 1}, "chip.identity"),
    "rows": ({"spec": SPEC.replace(rows=64)}, r"chip\.conv1\.spec\.rows = 64: 24"),
    "converter": ({"spec": SPEC.replace(adc=Adc(bits=7))}, r"chip\.conv1\.spec\.adc\.bits = 7: None"),
    "cell": ({"spec": SPEC.replace(cell=Cell(on_off=50.0))}, r"chip\.conv1\.spec\.cell\.on_off"),
    "device": ({"spec": SPEC.replace(device=tiny.SPECS["noisy"].device)}, r"chip\.conv1\.spec\.device\.class"),
    "row order": ({"spec": SPEC.replace(row_order="tap")}, r"chip\.conv1\.row_order = 'tap': 'channel'"),
    "one layer's row order": ({"rules": {"conv3": SPEC.replace(row_order="tap")}}, r"chip\.conv3\.row_order"),
    "one layer's channels": (
        {"rules": {"conv3": SPEC.replace(row_order=BACKWARDS)}},
        r"chip\.conv3\.row_order = 'channels 85c0fcfb0481e76b': 'channel'",
    ),
    "one layer's spec": ({"rules": {"conv2": SPEC.replace(rows=16)}}, r"chip\.conv2\.spec\.rows = 16: 24"),
    "digital layer": ({"rules": {"conv2": None}}, r"chip\.layers = \['conv1', 'conv3'\]"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_chip_is_refused_by_the_field_that_differs(chip, name):
    made_with, field = OTHERS[name]
    with pytest.raises(BankError, match=field):
        chip_card(chip).check(chip_card(programmed(**made_with)))


def test_another_network_is_refused(chip):
    with pytest.raises(BankError, match=r"chip\.network = 'other': tiny"):
        chip_card(chip).check(chip_card(chip.replace(network=tiny.network("other"))))


@pytest.mark.parametrize("missing", ["network", "identity", "row_order", "specs", "spec_of_layer"])
def test_a_card_with_a_part_missing_is_damaged(chip, missing):
    data = chip_card(chip).to_json()
    del data[missing]
    with pytest.raises(BankError, match="undamaged chip card"):
        ChipCard.from_json(data)


@pytest.mark.parametrize(
    "changes", [{"specs": []}, {"spec_of_layer": 3}, {"spec_of_layer": {"conv1": "x"}}, {"row_order": []}]
)
def test_a_card_of_the_wrong_shape_is_damaged(chip, changes):
    with pytest.raises(BankError, match="undamaged chip card"):
        ChipCard.from_json({**chip_card(chip).to_json(), **changes})


def test_default_specs_are_equal_on_every_card():
    default = programmed(CrossbarSpec(adc=Adc(bits=None)))
    assert len(set(chip_card(default).specs.values())) == 1


def test_what_was_measured_is_on_the_card_and_comes_back():
    chip = tiny.chip("adc")
    card = chip_card(chip)
    assert ChipCard.from_json(json.loads(json.dumps(card.to_json()))).measured == card.measured
    layer, found = chip.tiles["conv2"], card.measured["conv2"]
    assert layer.adc is not None and layer.input_scale is not None
    lsb = float(np.mean(layer.adc.lsb))
    lowest = float(np.mean(layer.adc.lsb * layer.adc.min_code))
    assert found.input_scale == layer.input_scale
    assert found.low == pytest.approx(lowest, rel=1e-6)
    assert found.high == pytest.approx(lowest + 255 * lsb, rel=1e-6)


def test_the_generator_of_its_keys_is_part_of_who_a_chip_is():
    words = jnp.arange(4, dtype=jnp.uint32)
    chips = [program(tiny.weights(), SPEC, jax.random.wrap_key_data(words, impl=i)) for i in ("rbg", "unsafe_rbg")]
    same_words = {p: t.replace(key_data=chips[0].tiles[p].key_data) for p, t in chips[1].tiles.items()}
    one, other = chip_card(chips[0]), chip_card(chips[1].replace(tiles=same_words))
    with pytest.raises(BankError, match=r"chip\.identity"):
        one.check(other)
