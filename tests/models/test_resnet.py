"""The CIFAR networks with their real weights, in float and on the chip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from models.tiny import resnet20, resnet20_chip
from xbm_jax.crossbar import Adc, CrossbarSpec
from xbm_jax.crossbar.primitives.adc import snapped_range
from xbm_jax.models import Backbone, load_backbone, named_network, program
from xbm_jax.tasks import predict, source_task

SharedData = Callable[[str], Path]


def held_out(shared_data: SharedData) -> tuple[np.ndarray, np.ndarray]:
    with np.load(shared_data("cifar10")) as archive:
        return archive["x_test"], archive["y_test"]


def float_predictions(backbone: Backbone, images: np.ndarray) -> np.ndarray:
    parts = [np.asarray(backbone.logits(images[i : i + 250])) for i in range(0, len(images), 250)]
    return np.concatenate(parts).argmax(-1)


def test_structure_of_resnet20() -> None:
    network = named_network("cifar-resnet20", 10)
    backbone = resnet20()
    assert backbone.network == network
    assert backbone.num_parameters == 269_722
    assert len(network.convs) == len(network.norms) == 19
    assert network.kernels[-1] == network.head == "linear"
    assert {p for p, c in network.convs.items() if c.strides == (2, 2)} == {"layer2_0/conv1", "layer3_0/conv1"}
    assert set(network.epsilons.values()) == {1e-5}


def test_resnet56_has_its_published_size() -> None:
    shapes = named_network("cifar-resnet56", 10).shapes
    trained = [s for p, s in shapes.items() if p.rsplit("/", 1)[-1] not in ("mean", "var")]
    assert sum(int(np.prod(s)) for s in trained) == 853_018


def test_resnet20_in_float(shared_data: SharedData) -> None:
    """91.35 % of these 2,000 images: 1,827 right, with the original weights and with the bundled ones."""
    images, labels = held_out(shared_data)
    original = float_predictions(load_backbone("cifar-resnet20", shared_data("cifar10_resnet20")), images)
    assert int((original == labels).sum()) == 1827
    compact = float_predictions(resnet20(), images)
    assert int((compact == labels).sum()) == 1827
    assert (original == compact).mean() >= 0.999


def test_bundled_weights_are_the_original_ones_rounded(shared_data: SharedData) -> None:
    """Kernels to half precision, norms and the rest of the head exactly."""
    with np.load(shared_data("cifar10_resnet20")) as archive:
        original = {name: archive[name] for name in archive.files}
    assert original.keys() == resnet20().arrays.keys()
    for path, array in resnet20().arrays.items():
        stored = original[path].astype(np.float16) if path.endswith("kernel") else original[path]
        np.testing.assert_array_equal(array, stored.astype(np.float32), err_msg=path)


@pytest.mark.slow
def test_resnet56_in_float(shared_data: SharedData) -> None:
    images, labels = held_out(shared_data)
    predicted = float_predictions(load_backbone("cifar-resnet56", shared_data("cifar10_resnet56")), images)
    assert int((predicted == labels).sum()) == 1874  # 93.70 %


def test_chip_is_within_a_point_of_float(
    shared_data: SharedData, record_property: Callable[[str, object], None]
) -> None:
    """Default spec: 64-row arrays, 8-bit weights, inputs and converters, calibrated by what ships with the weights."""
    images, labels = (a[:500] for a in held_out(shared_data))
    chip = resnet20_chip()
    on_chip = predict(chip, source_task(chip), images, batch_size=250).argmax(-1)
    in_float = float_predictions(resnet20(), images)
    accuracy = {"chip": float((on_chip == labels).mean()), "float": float((in_float == labels).mean())}
    for name, value in accuracy.items():
        record_property(f"cifar10_accuracy_{name}", value)
    assert abs(accuracy["chip"] - accuracy["float"]) <= 0.01
    agreement = float((on_chip == in_float).mean())
    record_property("cifar10_agreement", agreement)
    assert 0.97 < agreement < 1  # a chip that never differs would not be quantised


# ---------------------------------------------------------------------------------------------------------------------
# The measurements that ship


def test_bundled_measurements_fit_the_default_spec() -> None:
    assert resnet20_chip().calibrated
    assert not program(resnet20(), CrossbarSpec(rows=128), jax.random.key(0), rules={"layer*": None}).calibrated
    assert {p for p, t in resnet20_chip().tiles.items() if t.plan.signed_inputs} == {"conv1"}


def test_bundled_ranges_snap_onto_themselves() -> None:
    """The JSON holds the ends of a snapped grid; snapping them again gives the grid's ends."""
    calibration = resnet20().calibration
    assert calibration is not None and calibration.adc.keys() == resnet20_chip().tiles.keys()
    for path, (low, high) in calibration.adc.items():
        assert low < 0 < high
        grid = snapped_range(low, high, 8)
        first, last = (float(grid.lsb) * (float(grid.min_code) + code) for code in (0, 255))
        np.testing.assert_allclose((first, last), (low, high), rtol=1e-6, err_msg=path)
        again = snapped_range(first, last, 8)
        np.testing.assert_array_equal(again.min_code, grid.min_code, err_msg=path)
        np.testing.assert_allclose(again.lsb, grid.lsb, rtol=1e-6, err_msg=path)


def test_bundled_ranges_hold_for_other_resolutions() -> None:
    chip = program(resnet20(), CrossbarSpec(adc=Adc(6)), jax.random.key(0), rules={"layer*": None})
    fine, coarse = resnet20_chip().tiles["conv1"].adc, chip.tiles["conv1"].adc
    assert fine is not None and coarse is not None
    np.testing.assert_allclose(coarse.lsb / fine.lsb, 255 / 63, rtol=1e-6)
