"""What cannot be learned is said before the first step; what diverges ends with the step, and leaves no task."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from tasks import tiny
from xbm_jax.crossbar import Adc, CrossbarSpec
from xbm_jax.data import Augment
from xbm_jax.errors import DataError, MethodError, SpecError, TrainingError
from xbm_jax.models import Preprocess, calibrate, program
from xbm_jax.training import TrainConfig, adapt, adapt_together, features, for_chip, loop, run, scoring

CHIP, DATA, KEY = tiny.chip("ideal"), tiny.stripes(), jax.random.key(1)
CONFIG = TrainConfig(epochs=2, batch_size=90)
NORMS = tiny.METHODS["norm_only-full"]
GOOD = {"chip": CHIP, "data": DATA, "method": NORMS, "key": KEY, "config": CONFIG}


def of_other_arrays():
    spec = CrossbarSpec(rows=16, adc=Adc(bits=None))
    return tiny.made_up_task(calibrate(program(tiny.weights(), spec, KEY), DATA.x_train[:32]), tiny.METHODS["xbm"])


def with_nan(task):
    head = task.trained["head"]
    return task.replace(trained={**task.trained, "head": {**head, "bias": head["bias"].at[0].set(jnp.nan)}})


WRONG = {
    "no chip": ({"chip": tiny.weights()}, SpecError, r"chip = 'Backbone': a Chip: xbm\.program"),
    "data by name": ({"data": "mnist"}, DataError, r"data = 'mnist': a Dataset: xbm\.load\(name\)"),
    "arrays": ({"data": (DATA.x_train, DATA.y_train)}, DataError, r"data = 'tuple': a Dataset"),
    "method as text": ({"method": "xbm"}, MethodError, r"method = 'xbm': a Method, such as xbm\.methods\.xbm\(\)"),
    "method not made": ({"method": tiny.methods.xbm}, MethodError, r"method = 'function': a Method, such as"),
    "rule as method": ({"method": tiny.METHODS["xbm"].rule}, MethodError, r"method = 'Masked': a Method"),
    "key an int": ({"key": 1}, SpecError, r"key = 1: one key of a generator"),
    "key none": ({"key": None}, SpecError, r"key = None: one key of a generator"),
    "keys": ({"key": jax.random.split(KEY, 2)}, SpecError, r"(?s)key = .*: one key of a generator"),
    "a dict as config": ({"config": {"epochs": 1}}, SpecError, r"config = 'dict': a Recipe, or None"),
    "epochs as config": ({"config": 0}, SpecError, r"config = 0: a Recipe, or None"),
    "report no function": ({"report": True}, SpecError, r"report = True: a function, or None"),
    "chips no function": ({"chip_of_step": CHIP}, SpecError, r"chip_of_step = 'Chip': a function, or None"),
    "chips that are none": (
        {"chip_of_step": lambda chip, key: key},
        SpecError,
        r"chip_of_step = '.*Tracer': a function that returns a Chip",
    ),
    "start a bank's name": ({"start": "fashion"}, SpecError, r"start = 'fashion': a Task to start from, or None"),
    "start of other arrays": (
        {"start": of_other_arrays(), "method": tiny.METHODS["xbm"]},
        DataError,
        r"start = 'layers or shapes of another network': a task of the chip's backbone and arrays",
    ),
    "start that diverged": (
        {"start": with_nan(tiny.made_up_task(CHIP, NORMS))},
        DataError,
        r"start = '0/head/bias not finite': finite numbers",
    ),
    "crops larger than images": (
        {"config": TrainConfig(epochs=1, batch_size=16, augment=Augment(size=13))},
        DataError,
        r"Augment\.size = 13: at most 12, the images' shorter side in pixels",
    ),
    "batch beyond the images": (
        {"config": TrainConfig(epochs=1, batch_size=400)},
        DataError,
        r"data\.x_train = '320 images': more than batch_size = 400 besides the validation split",
    ),
    "batch beyond what validation leaves": (
        {"config": TrainConfig(epochs=1, batch_size=273)},
        DataError,
        r"data\.x_train = '320 images': more than batch_size = 273 besides the validation split",
    ),
    "no validation image": (
        {"config": TrainConfig(epochs=1, batch_size=16, validation_fraction=0.001)},
        DataError,
        r"0\.001 of 320 images in 4 classes",
    ),
    "arrays never chosen": (
        {"method": tiny.METHODS["xma2"], "config": TrainConfig(epochs=1, batch_size=90)},
        SpecError,
        r"config\.epochs = 1: more than the 1 epochs after which arrays are chosen by 'xma2'",
    ),
}


@pytest.fixture
def no_step(monkeypatch):
    """Training steps that would fail the test: no argument may get this far."""

    def step(*args, **kwargs):
        pytest.fail("a step was taken")

    for module, name in ((features, "head_epoch"), (run, "features"), (scoring, "scores")):
        monkeypatch.setattr(module, name, step)
    return step


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_refused_before_the_first_step(name, no_step, monkeypatch):
    changes, error, message = WRONG[name]
    if name != "chips that are none":  # known once a step is traced, before it runs
        monkeypatch.setattr(loop, "train_step", no_step)
    options = {**GOOD, **changes}
    with pytest.raises(error, match=message):
        adapt(options.pop("chip"), options.pop("data"), **options)


@pytest.mark.parametrize(
    "name", [n for n, (changes, *_) in WRONG.items() if not {"chip_of_step", "start"} & set(changes)]
)
def test_as_one_of_several_tasks_it_is_refused_too(name, no_step, monkeypatch):
    changes, error, message = WRONG[name]
    monkeypatch.setattr(loop, "train_step", no_step)
    options = {**GOOD, **changes}
    chips, data, keys = [CHIP, options.pop("chip")], [DATA, options.pop("data")], [KEY, options.pop("key")]
    with pytest.raises(error, match=message):
        adapt_together(chips, data, keys=keys, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": DATA}, r"data = 'Dataset': a sequence of data sets"),
        ({"keys": KEY}, r"keys = .*: a sequence of keys"),
        ({"keys": 3}, r"keys = 'int': a sequence of keys"),
        ({"chips": None}, r"chips = 'NoneType': a Chip, or a sequence of them"),
    ],
)
def test_one_where_several_are_meant_is_named(changes, message):
    options = {"chips": CHIP, "data": [DATA], "keys": [KEY], "method": NORMS, **changes}
    with pytest.raises(DataError, match=message):
        adapt_together(options.pop("chips"), options.pop("data"), **options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((tiny.weights(), DATA), SpecError, r"chip = 'Backbone'"),
        ((CHIP, "mnist"), DataError, r"data = 'mnist'"),
        ((CHIP, DATA, 0), DataError, r"image_size = 0: a whole number of pixels"),
        ((CHIP, DATA, "32"), DataError, r"image_size = '32'"),
        ((CHIP, DATA, 32.0), DataError, r"image_size = 32\.0"),
        ((CHIP, DATA, True), DataError, r"image_size = True"),
    ],
)
def test_images_for_a_chip(arguments, error, message):
    with pytest.raises(error, match=message):
        for_chip(*arguments)


def test_colour_images_for_a_backbone_of_grey_ones():
    preprocess = Preprocess((0.5,), (0.25,))
    grey = CHIP.replace(network=dataclasses.replace(CHIP.network, preprocess=preprocess))
    with pytest.raises(DataError, match=r"data channels = 3: 1, as the chip's backbone takes them"):
        for_chip(grey, DATA)


# ---------------------------------------------------------------------------------------------------------------------
# Divergence


def test_the_first_loss_that_is_no_number_is_named():
    reported = []
    method = dataclasses.replace(NORMS, norm_lr=1e30, head_lr=1e30)
    with pytest.raises(TrainingError) as caught:
        adapt(CHIP, DATA, method=method, key=KEY, config=CONFIG, report=reported.append)
    said = str(caught.value)
    assert said.startswith("loss at step 2 of 6, epoch 1, of 'stripes' = nan: finite numbers; lower the learning rates")
    assert "mask_lr = 0.003, norm_lr = 1e+30, head_lr = 1e+30, times 1 at the last step" in said
    assert [row["step"] for row in reported] == [1]
    json.dumps(reported, allow_nan=False)


def test_a_head_alone_names_its_step_too():
    method = dataclasses.replace(tiny.METHODS["head_only"], head_lr=3e38)
    with pytest.raises(TrainingError, match=r"loss at step 2 of 6, epoch 1, of 'stripes' = nan"):
        adapt(CHIP, DATA, method=method, key=KEY, config=CONFIG)


@pytest.mark.parametrize("name", ["norm_only-full", "head_only"])
def test_a_last_step_that_leaves_no_numbers_is_seen_although_its_loss_was_finite(name):
    start = tiny.made_up_task(CHIP, tiny.METHODS[name])
    start = start.replace(trained={**start.trained, "head": {**start.trained["head"], "bias": jnp.full(4, -3e38)}})
    method, config = dataclasses.replace(tiny.METHODS[name], head_lr=3e38), TrainConfig(epochs=1, batch_size=271)
    with pytest.raises(TrainingError, match=r"trained/head/bias after epoch 1 of 'stripes' = 'not finite'"):
        adapt(CHIP, DATA, method=method, key=KEY, config=config, start=start)


@pytest.mark.parametrize("name", ["norm_only-full", "head_only"])
def test_logits_that_are_no_numbers_are_no_guesses(name):
    """Everything learned is finite, but so large that products of it are not."""
    method, config = dataclasses.replace(tiny.METHODS[name], head_lr=3e38), TrainConfig(epochs=1, batch_size=272)
    with pytest.raises(TrainingError, match=r"logits of 'stripes' = 'not finite for \d+ of 48 images'"):
        adapt(CHIP, DATA, method=method, key=KEY, config=config)


def test_of_several_tasks_the_one_that_diverges_is_named():
    """By its loss, or where the loss stays finite by what an epoch leaves."""
    options = {"keys": [KEY, KEY], "config": CONFIG}
    fast = dataclasses.replace(NORMS, norm_lr=1e30, head_lr=1e30)
    with pytest.raises(TrainingError, match=r"loss at step 2 of 6, epoch 1, of 'stripes' \(1 of 2\) = nan"):
        adapt_together(CHIP, [DATA, DATA], method=fast, **options)
    broken = CHIP.replace(norms={**CHIP.norms, "bn3": jax.tree.map(lambda a: a * jnp.nan, CHIP.norms["bn3"])})
    with pytest.raises(
        TrainingError, match=r"trained/norms/bn\d/bias after epoch 1 of 'stripes' \(2 of 2\) = 'not fin"
    ):
        adapt_together([CHIP, broken], [DATA, DATA], method=NORMS, **options)
