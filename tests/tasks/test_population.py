"""A population in one compiled call is a Python loop over its chips, and its design knows nothing of their errors."""

from __future__ import annotations

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx

from tasks import tiny
from xbm_jax.crossbar import Adc, Faults, Gaussian, PcmJoshi, with_signed_inputs
from xbm_jax.errors import DataError, SpecError
from xbm_jax.masks import methods
from xbm_jax.models import Backbone, Chip, Preprocess, backbone, calibrate, network_from_module, program
from xbm_jax.tasks import Population, Task, population_accuracy, predict, source_task
from xbm_jax.tasks.population import design

DATA = tiny.stripes()
IMAGES = DATA.x_test[:90]  # with batches of 40 the last is filled up
CALIBRATION = DATA.x_train[:48]
# Programming error, drift, read noise, stuck cells and converters. Two layers are enough, and compile faster.
FAULTY = tiny.SPECS["adc"].replace(device=PcmJoshi(), faults=Faults(stuck_on=0.02, stuck_off=0.02))
RULES = {"conv1": None}
KEYS = jax.random.split(jax.random.key(5), 3)


def centred(bias: jax.Array, logits: np.ndarray) -> jax.Array:
    """A head's bias that makes a random network prefer no class over all images."""
    return bias - logits.mean(0)


@cache
def network() -> Backbone:
    """Random weights that do not give every image the same class."""
    plain, path = tiny.weights(), "linear/bias"
    bias = centred(plain.arrays[path], np.asarray(plain.logits(IMAGES)))
    return dataclasses.replace(plain, arrays={**plain.arrays, path: bias})


@cache
def nominal() -> Chip:
    """Ideal cells, stuck nowhere."""
    return calibrate(program(network(), tiny.SPECS["adc"], jax.random.key(0), rules=RULES), CALIBRATION)


@cache
def masked_task() -> Task:
    task = tiny.made_up_task(nominal(), methods.xbm())
    head = task.trained["head"]
    bias = centred(head["bias"], predict(nominal(), task, IMAGES))
    return task.replace(trained={**task.trained, "head": {**head, "bias": bias}})


def loop(labels: np.ndarray, task: Task, t_seconds: float | None, compensate: bool) -> list[float]:
    """The accuracies, chip by chip, as a user would write it."""
    found = []
    for key in KEYS:
        chip = program(network(), FAULTY, key, rules=RULES)
        tiles = {
            path: layer.replace(adc=nominal().tiles[path].adc, input_scale=nominal().tiles[path].input_scale)
            for path, layer in chip.tiles.items()
        }
        chip = chip.replace(tiles=tiles)
        chip = chip if t_seconds is None else chip.at(t_seconds, compensate=compensate)
        logits = predict(chip, task, IMAGES, key=jax.random.fold_in(key, 0), batch_size=40)
        found.append(float(np.mean(np.argmax(logits, -1) == labels)))
    return found


@pytest.mark.parametrize(
    ("masked", "t_seconds", "compensate", "at_once"), [(False, 3600.0, True, 1), (True, None, False, 2)]
)
def test_one_call_is_a_loop(masked, t_seconds, compensate, at_once) -> None:
    """Exactly: the same draws, and no image of these stands so near a tie that XLA's fusing decides its class."""
    task = masked_task() if masked else None
    own = task or source_task(nominal()).replace(chip=None)  # it is read on many chips
    labels = np.argmax(predict(nominal(), own, IMAGES), -1)  # each chip's own errors lower an accuracy of 1
    options = {"t_seconds": t_seconds, "compensate": compensate, "batch_size": 40, "at_once": at_once}
    found = population_accuracy(
        network(), FAULTY, KEYS, IMAGES, labels, task=task, calibration_images=CALIBRATION, rules=RULES, **options
    )
    wanted = loop(labels, own, t_seconds, compensate)
    assert found.accuracies.tolist() == wanted
    assert len(set(wanted)) > 1 and 0.2 < max(wanted) < 1  # chips differ from each other and from the nominal one
    assert found.mean == pytest.approx(sum(wanted) / 3, abs=1e-15)
    assert found.std == pytest.approx(np.std(wanted, ddof=1), abs=1e-15)


def test_the_design_knows_no_chips_errors() -> None:
    """Scales and ranges are those of ideal cells; levels, plans and known ranges those of the asked spec."""
    drawn = design(tiny.weights(), FAULTY, CALIBRATION)
    ideal = calibrate(program(tiny.weights(), tiny.SPECS["adc"], jax.random.key(3)), CALIBRATION).tiles
    for path, layer in drawn.tiles.items():
        assert layer.plan.spec == FAULTY
        assert layer.plan.signed_inputs == ideal[path].plan.signed_inputs
        tiny.assert_same_bits((layer.adc, layer.input_scale), (ideal[path].adc, ideal[path].input_scale))
    assert drawn.tiles["conv1"].plan.signed_inputs and not drawn.tiles["conv2"].plan.signed_inputs


def test_what_came_with_the_weights_is_used_where_it_applies() -> None:
    """Input scales apply to every spec; ranges that are known need no images, others do."""
    came = tiny.measured_weights()
    known = design(came, FAULTY.replace(adc=Adc(bits=8, range="max")))
    assert known.calibrated
    with pytest.raises(SpecError, match=r"calibration_images = None: images to measure"):
        design(came, FAULTY)
    drawn = design(came, FAULTY, CALIBRATION)
    for path, layer in drawn.tiles.items():
        tiny.assert_same_bits(layer.input_scale, known.tiles[path].input_scale)
        assert layer.adc is not None


def test_labels_are_those_of_the_tasks_head() -> None:
    """The masked task has four classes, the backbone five."""
    spec = FAULTY.replace(adc=Adc(bits=8, range="max"))
    with pytest.raises(DataError, match=r"labels = '4 \(90 times\)': 0\.\.3"):
        population_accuracy(tiny.measured_weights(), spec, KEYS, IMAGES, np.full(90, 4), task=masked_task())


class Attention(nnx.Module):
    """Projections with kernels [4, 2, 2] and [2, 2, 4]."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 4, (4, 4), strides=4, padding="VALID", rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.attend(self.stem(x).reshape(len(x), -1, 4)).mean(1))


def test_layers_over_several_axes() -> None:
    preprocess = Preprocess((0.5,) * 3, (0.25,) * 3)
    network = network_from_module(
        lambda: Attention(rngs=nnx.Rngs(0)), name="attention", head="head", preprocess=preprocess, image_size=12
    )
    rng = np.random.default_rng(0)
    made = backbone(network, {path: rng.normal(size=shape) for path, shape in network.shapes.items()})
    spec, images = tiny.SPECS["ideal"].replace(device=Gaussian(0.2)), IMAGES[:24]
    labels = np.argmax(np.asarray(made.logits(images)), -1)
    found = population_accuracy(made, spec, KEYS, images, labels, calibration_images=images)
    drawn, wanted = design(made, spec, images), []
    for key in KEYS:
        tiles = program(made, spec, key).tiles
        scaled = {
            path: with_signed_inputs(layer, drawn.tiles[path].plan.signed_inputs).replace(
                input_scale=drawn.tiles[path].input_scale
            )
            for path, layer in tiles.items()
        }
        chip = drawn.replace(tiles=scaled)
        wanted.append(float(np.mean(np.argmax(predict(chip, source_task(chip), images), -1) == labels)))
    assert found.accuracies.tolist() == wanted and 0.4 < max(wanted) < 1


def test_one_chip_has_no_spread() -> None:
    assert np.isnan(Population(np.array([0.5])).std)
    assert Population(np.array([0.25, 0.75])).std == pytest.approx(0.125**0.5)


@pytest.mark.parametrize("keys", [jax.random.key(0), KEYS[:0], np.arange(3), jax.random.key_data(KEYS)])
def test_keys_that_are_none_are_named(keys) -> None:
    with pytest.raises(SpecError, match=r"(?s)keys = .*an array of keys, one per chip"):
        population_accuracy(tiny.weights(), FAULTY, keys, IMAGES, np.zeros(90, int), calibration_images=CALIBRATION)


@pytest.mark.parametrize(
    ("images", "labels", "field"),
    [
        (IMAGES[..., :1], np.zeros(90, int), "images.shape"),
        (IMAGES, np.zeros(89, int), "labels"),
        (IMAGES, np.zeros(90), "labels"),
        (IMAGES[:0], np.zeros(0, int), "images"),
        (IMAGES, np.arange(90) % 5 + 1, r"labels = '5 \(18 times\)': 0\.\.4"),
        (IMAGES, np.full(90, -1), r"labels = '-1 \(90 times\)': 0\.\.4"),
    ],
)
def test_bad_images_and_labels_are_named(images, labels, field) -> None:
    spec = FAULTY.replace(adc=Adc(bits=8, range="max"))
    with pytest.raises(DataError, match=field):
        population_accuracy(tiny.measured_weights(), spec, KEYS, images, labels)


@pytest.mark.parametrize(("batch_size", "at_once"), [(0, 1), (1, 0)])
def test_bad_sizes_are_named(batch_size, at_once) -> None:
    spec = FAULTY.replace(adc=Adc(bits=8, range="max"))
    with pytest.raises(SpecError, match=r"batch_size|at_once"):
        population_accuracy(
            tiny.measured_weights(), spec, KEYS, IMAGES, np.zeros(90, int), batch_size=batch_size, at_once=at_once
        )


@pytest.mark.parametrize("age", [-1.0, float("nan"), "60"])
def test_ages_that_no_chip_has_are_named_before_anything_is_programmed(age) -> None:
    with pytest.raises(SpecError, match=r"t_seconds = .*: a finite number at least 0"):
        population_accuracy(tiny.measured_weights(), FAULTY, KEYS, IMAGES, np.zeros(90, int), t_seconds=age)
