"""A chip on disk is the chip, bit for bit."""

import json

import jax
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.banks import MaskBank, chip_card, load_chip, save_chip
from xbm_jax.banks.chip_store import _described
from xbm_jax.crossbar import PUBLISHED, Adc, Cell, ChannelOrder, MiloCurve
from xbm_jax.errors import BankError, ModelError
from xbm_jax.models import calibrate, load_backbone, program
from xbm_jax.storage import store
from xbm_jax.tasks import predict

IMAGES = tiny.stripes().x_test[:16]


def assert_same_chip(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)  # plans, signed inputs and network are static
    tiny.assert_same_bits(got, wanted)
    assert chip_card(got) == chip_card(wanted)


@pytest.mark.parametrize("kind", tiny.SPECS)
def test_a_calibrated_chip_comes_back_bit_for_bit(tmp_path, kind):
    chip = tiny.chip(kind)
    save_chip(chip, tmp_path)
    got = load_chip(tmp_path, tiny.network())
    assert_same_chip(got, chip)
    assert got.calibrated
    task = tiny.made_up_task(chip, tiny.METHODS["xbm"])
    key = jax.random.key(3)
    before = predict(chip, task, IMAGES, key=key, batch_size=16)
    assert np.array_equal(predict(got, task, IMAGES, key=key, batch_size=16), before)


def test_a_chip_of_curved_cells_that_wear_comes_back(tmp_path):
    cell = Cell(bits=7, on_off=4.0, g_max_siemens=2e-4, max_writes=3)
    spec = tiny.SPECS["ideal"].replace(cell=cell, curve=MiloCurve(0.3))
    chip = calibrate(program(tiny.weights(), spec, jax.random.key(0)), IMAGES)
    assert chip.calibrated and all(t.curvature is not None and t.writes is not None for t in chip.tiles.values())
    save_chip(chip, tmp_path)
    assert_same_chip(load_chip(tmp_path, tiny.network()), chip)


def test_lines_that_are_kept_come_back_and_make_no_other_chip(tmp_path):
    chip = tiny.chip("noisy").with_lines()
    assert any(t.lines is not None and t.lines.variance is not None for t in chip.tiles.values())
    assert tiny.mark(chip) == tiny.mark(tiny.chip("noisy")) and chip_card(chip) == chip_card(tiny.chip("noisy"))
    save_chip(chip, tmp_path)
    assert_same_chip(load_chip(tmp_path, tiny.network()), chip)


def test_an_uncalibrated_chip_with_rules_comes_back(tmp_path):
    rules = {"conv2": None, "conv3": tiny.SPECS["ideal"].replace(rows=16, row_order="tap")}
    chip = program(tiny.weights(), tiny.SPECS["ideal"], jax.random.key(0), rules=rules)
    save_chip(chip, tmp_path)
    got = load_chip(tmp_path, tiny.network())
    assert_same_chip(got, chip)
    assert sorted(got.tiles) == ["conv1", "conv3"] and not got.calibrated


def test_a_registered_model_needs_no_structure(tmp_path):
    backbone = load_backbone("cifar-resnet20")
    chip = program(backbone, tiny.SPECS["ideal"].replace(rows=64), jax.random.key(0))
    save_chip(chip, tmp_path)
    assert_same_chip(load_chip(tmp_path), chip)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_a_chip_keeps_the_generator_of_its_keys_whatever_the_default_is(tmp_path, impl):
    spec = tiny.SPECS["ideal"].replace(device=PUBLISHED["pcm_joshi"], cell=Cell(bits=7, on_off=100.0))
    chip = program(tiny.weights(), spec, jax.random.key(0, impl=impl), rules={"conv[13]": None})
    save_chip(chip, tmp_path)
    with jax.default_prng_impl("threefry2x32" if impl == "rbg" else "rbg"):
        got = load_chip(tmp_path, tiny.network())
        assert_same_chip(got, chip)
        tiny.assert_same_bits(got.at(60.0), chip.at(60.0))


def test_an_older_file_of_another_generator_is_read_where_that_is_the_default(tmp_path):
    chip = program(tiny.weights(), tiny.SPECS["ideal"], jax.random.key(0, impl="rbg"))
    save_chip(chip, tmp_path / "new")
    arrays, described = store.load(tmp_path / "new", form=2)
    for layer in described["layers"].values():
        del layer["key_impl"]
    store.save(tmp_path / "old", arrays, described)
    with jax.default_prng_impl("rbg"):
        assert_same_chip(load_chip(tmp_path / "old", tiny.network()), chip)
    with pytest.raises(BankError, match=r"chip\.conv1\.key_data\.shape = \(4,\): a key of 'threefry2x32'"):
        load_chip(tmp_path / "old", tiny.network())


def test_saving_again_replaces(tmp_path):
    for key in (0, 1):
        save_chip(tiny.chip("ideal", key=key), tmp_path)
    assert_same_chip(load_chip(tmp_path, tiny.network()), tiny.chip("ideal", key=1))


def test_a_chip_lies_beside_other_things(tmp_path):
    save_chip(tiny.chip("ideal"), tmp_path / "other")
    (tmp_path / "000001").mkdir()
    (tmp_path / "000001" / "weights").write_text("precious")
    for key in (0, 1):
        save_chip(tiny.chip("ideal", key=key), tmp_path)
    assert_same_chip(load_chip(tmp_path, tiny.network()), tiny.chip("ideal", key=1))
    assert_same_chip(load_chip(tmp_path / "other", tiny.network()), tiny.chip("ideal"))
    assert (tmp_path / "000001" / "weights").read_text() == "precious"


def test_a_chip_of_a_newer_form_is_refused(tmp_path):
    store.save(tmp_path, {}, {"what": "nobody knows"}, form=3)
    with pytest.raises(BankError, match=r"000001\.format = 3: 1 to 2, what .* wrote this"):
        load_chip(tmp_path, tiny.network())


def test_a_structure_must_be_given_and_fit(tmp_path):
    save_chip(tiny.chip("ideal"), tmp_path)
    with pytest.raises(ModelError, match="network = None: the structure of 'tiny', which is not one of cifar-resnet20"):
        load_chip(tmp_path)
    with pytest.raises(ModelError, match="network = 'other': tiny, what the chip was programmed with"):
        load_chip(tmp_path, tiny.network("other"))


def test_no_chip_there(tmp_path):
    with pytest.raises(BankError, match="a folder that was saved to"):
        load_chip(tmp_path / "nothing", tiny.network())


@pytest.mark.parametrize("name", ["tiles.conv2.levels", "tiles.conv3.key_data", "norms.bn1.scale", "head.bias"])
def test_a_missing_array_is_named(tmp_path, name):
    chip = tiny.chip("ideal")
    save_chip(chip, tmp_path / "whole")
    arrays, _ = store.load(tmp_path / "whole", form=2)
    del arrays[name]
    described = json.loads(json.dumps(_described(chip)))
    store.save(tmp_path / "part", arrays, described)
    with pytest.raises(BankError, match=name.rsplit(".", 1)[0]):
        load_chip(tmp_path / "part", tiny.network())


def ordered(seed=0):
    """A chip whose last two layers have orders of their own."""
    spec, rng = tiny.SPECS["adc"].replace(adc=Adc(bits=8, range="max")), np.random.default_rng(seed)
    rules = {path: spec.replace(row_order=ChannelOrder(rng.permutation(8))) for path in ("conv2", "conv3")}
    return program(tiny.measured_weights(), spec, jax.random.key(0), rules=rules)


def test_a_chip_of_ordered_channels_and_its_bank_come_back(tmp_path):
    chip = ordered()
    task = tiny.made_up_task(chip, tiny.METHODS["xbm"])
    save_chip(chip, tmp_path / "chip")
    MaskBank.create(tmp_path / "bank", chip).put("masks", task, compact=False)
    got = load_chip(tmp_path / "chip", tiny.network())
    assert_same_chip(got, chip)
    bank = MaskBank.open(tmp_path / "bank", got)
    wanted = predict(chip, task, IMAGES, batch_size=16)
    assert np.array_equal(predict(got, bank.get("masks"), IMAGES, batch_size=16), wanted)
    with pytest.raises(BankError, match=r"chip\.conv2\.row_order = 'channels \w{16}': 'channels \w{16}', the bank's"):
        MaskBank.open(tmp_path / "bank", ordered(seed=1))
