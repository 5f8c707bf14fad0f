"""Learning a task on a chip, from outside: what comes back, from which data, and what stays as it was."""

import dataclasses
import json
from functools import cache
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cost import slow_but
from tasks import tiny
from xbm_jax.crossbar import Gaussian
from xbm_jax.data import Augment, Dataset, center_crop
from xbm_jax.errors import DataError, SpecError
from xbm_jax.masks import ArrayChoice, Linear
from xbm_jax.models import calibrate, program, redrawn
from xbm_jax.tasks import predict, stored
from xbm_jax.training import TrainConfig, adapt, for_chip
from xbm_jax.training.run import Run, begin

loop, result = map(import_module, ("xbm_jax.training.loop", "xbm_jax.training.result"))
CONFIG = TrainConfig(epochs=15, batch_size=16)
METHODS = tiny.METHODS


@cache
def learned(name, kind="ideal", key=1):
    """A task learned on a chip, with the chip's bits before and after."""
    chip = tiny.chip(kind)
    before = tiny.leaves(chip)
    task = adapt(chip, tiny.stripes(), method=METHODS[name], key=jax.random.key(key), config=CONFIG)
    return task, before, tiny.leaves(chip)


@pytest.mark.parametrize(
    ("name", "kind"),
    slow_but(
        [("xbm", "ideal"), ("head_only", "ideal"), ("lora", "ideal"), ("norm_only-full", "ideal"), ("xma2", "ideal")],
        [*((name, "ideal") for name in METHODS), ("xbm", "adc")],
    ),
)
def test_learning_changes_no_bit_of_the_chip(name, kind):
    task, before, after = learned(name, kind)
    assert len(before) > 30
    tiny.assert_same_bits(after, before)
    chip = tiny.chip(kind)
    assert set(task.trained) == {"masks", "norms", "head"}
    assert set(task.state) == (set(chip.stats) if task.method.norms == "full" else set())
    assert task.num_classes == 4
    assert task.chip == tiny.mark(chip)


def test_masks_learn_what_a_head_cannot():
    xbm, head = learned("xbm")[0].meta, learned("head_only")[0].meta
    assert xbm["accuracy"] > 0.7  # chance is 0.25
    assert xbm["accuracy"] > head["accuracy"] + 0.15
    assert 0 < min(xbm["active_columns"].values()) < 1
    # One training decides little: over four keys it ends between 0.58 and 0.89.
    assert learned("xbm", "adc", key=3)[0].meta["accuracy"] > 0.6


@pytest.mark.parametrize(
    "name", slow_but(["norm_only-full", "lora"], ["norm_only-full", "piggyback", "finetune", "lora"])
)
def test_other_methods_learn_too(name):
    assert learned(name)[0].meta["accuracy"] > 0.5


def test_xma2_rewrites_the_share_of_arrays_that_it_may_and_no_other_cell():
    task, before, after = learned("xma2")
    tiny.assert_same_bits(after, before)
    rule = task.method.rule
    assert isinstance(rule, ArrayChoice)
    assert task.meta["accuracy"] > 0.5 and task.meta["best_epoch"] >= rule.after_epochs
    chosen = {path: np.asarray(values["arrays"]) > 0 for path, values in task.trained["masks"].items()}
    assert sum(c.sum() for c in chosen.values()) == 2  # a quarter of 2 + 3 + 3
    for path, tiles in tiny.chip("ideal").tiles.items():
        rewritten = rule.apply(tiles, task.trained["masks"][path])[0]
        changed = np.any(np.asarray(rewritten.levels) != np.asarray(tiles.levels), axis=(0, 1, 5))  # by kernel row
        assert not changed[~chosen[path][:, 0][tiles.plan.tile_index]].any()
        assert changed.any() == chosen[path].any()


def test_the_accuracy_reported_is_that_of_the_task_returned():
    data = tiny.stripes()
    for name in ("xbm", "head_only"):
        task = learned(name)[0]
        guesses = predict(tiny.chip("ideal"), task, data.x_test).argmax(-1)
        assert np.mean(guesses == data.y_test) == pytest.approx(task.meta["accuracy"])


def test_meta_answers_what_an_engineer_asks():
    task = learned("xbm")[0]
    meta = task.meta
    assert json.loads(json.dumps(meta, allow_nan=False)) == meta
    assert (meta["task"], meta["method"], meta["norm_policy"]) == ("stripes", "xbm", "full")
    assert meta["images"] == {"train": 272, "validation": 48, "test": 160}
    assert meta["class_names"] == ["east", "north-east", "north", "north-west"]
    assert [row["epoch"] for row in meta["history"]] == list(range(CONFIG.epochs))
    assert meta["history"][-1]["loss"] < meta["history"][0]["loss"]
    assert meta["val_accuracy"] == max(row["val_accuracy"] for row in meta["history"])
    assert meta["history"][meta["best_epoch"]]["val_accuracy"] == meta["val_accuracy"]
    assert meta["adc_clip_rate"] == dict.fromkeys(tiny.LAYERS, 0.0)
    assert meta["seconds"] > 0 and meta["images_per_second"] > 0


def short(name="xbm", key=1, data=None, chip="ideal", epochs=2, report=None):
    config = TrainConfig(epochs=epochs, batch_size=16)
    data = tiny.stripes() if data is None else data
    return adapt(tiny.chip(chip), data, method=METHODS[name], key=jax.random.key(key), config=config, report=report)


@pytest.mark.parametrize(("name", "kind"), [("xbm", "ideal"), ("head_only", "ideal"), ("head_only", "noisy")])
def test_the_key_decides_everything(name, kind):
    first, again, other = (short(name, key, chip=kind) for key in (1, 1, 2))
    tiny.assert_same_bits((again.trained, again.state), (first.trained, first.state))
    assert again.meta["history"] == first.meta["history"]
    assert not np.array_equal(other.trained["head"]["kernel"], first.trained["head"]["kernel"])
    assert other.meta["history"] != first.meta["history"]


def test_test_labels_are_no_part_of_learning():
    data = tiny.stripes()
    wrong = dataclasses.replace(data, y_test=(data.y_test + 1) % 4)
    honest, blind = short(data=data), short(data=wrong)
    tiny.assert_same_bits((blind.trained, blind.state), (honest.trained, honest.state))
    assert blind.meta["history"] == honest.meta["history"]
    assert blind.meta["val_accuracy"] == honest.meta["val_accuracy"]
    assert blind.meta["accuracy"] != honest.meta["accuracy"]


@pytest.mark.parametrize("scores", [(0.1, 0.9, 0.5, 0.3), (0.9, 0.1, 0.5, 0.8), (0.2, 0.7, 0.7, 0.1)])
def test_the_best_epoch_is_chosen_on_validation_and_test_is_read_once(monkeypatch, scores):
    data, measured = tiny.stripes(), []

    def scripted(run, _state, train, images, labels, _key):
        cut = {**train.trained, "head": run.method.head.cut(train.trained["head"], 4)}
        measured.append((np.array(images), np.array(labels), tiny.leaves((cut, train.stats))))
        return scores[len(measured) - 1]

    for module in (loop, result):
        monkeypatch.setattr(module, "score", scripted)
    task = short("xbm", epochs=3)
    assert len(measured) == 4
    for images, labels, _ in measured[:3]:
        assert images.shape[0] == 48 and np.array_equal(images, measured[0][0]) and len(labels) == 48
    assert np.array_equal(measured[3][0], data.x_test) and np.array_equal(measured[3][1], data.y_test)
    best = int(np.argmax(scores[:3]))
    assert task.meta["best_epoch"] == best
    assert task.meta["val_accuracy"] == scores[best]
    assert task.meta["accuracy"] == scores[3]
    for at in (measured[best][2], measured[3][2]):
        tiny.assert_same_bits((task.trained, task.state), at)
    assert any(not np.array_equal(a, measured[2][2][name]) for name, a in measured[best][2].items()) or best == 2


def begun(name, start):
    """What training starts from, its head cut to the task's own outputs."""
    run = Run(tiny.chip("ideal"), tiny.stripes(), METHODS[name], CONFIG, jax.random.key(9), print, start)
    run.check()
    train = begin(run).train
    return {**train.trained, "head": METHODS[name].head.cut(train.trained["head"], 4)}, train.stats


def test_training_goes_on_from_a_task_that_is_given():
    first = learned("xbm")[0]
    tiny.assert_same_bits(begun("xbm", first), (first.trained, first.state))
    other, _ = begun("lora", first)
    tiny.assert_same_bits(other["head"], first.trained["head"])
    tiny.assert_same_bits(other["norms"], first.trained["norms"])
    assert set(other["masks"]["conv1"]) == {"down", "up"}
    coded = stored(tiny.chip("ideal"), first)  # codes cannot be trained
    assert begun("xbm", coded)[0]["masks"]["conv1"].dtype == np.float32
    headless, _ = begun("xbm", first.replace(trained={**first.trained, "head": {}}))
    tiny.assert_same_bits(headless["masks"], first.trained["masks"])
    assert not np.array_equal(headless["head"]["kernel"], first.trained["head"]["kernel"])
    ten = tiny.made_up_task(tiny.chip("ideal"), METHODS["xbm"], num_classes=10)
    with pytest.raises(DataError, match=r"start = 'a head of 10 classes': 4, those of the task, or none"):
        begun("xbm", ten)


@pytest.mark.slow
def test_a_fresh_chip_for_every_step():
    """Each step sees cells of its own; validation, test and the chip that is given do not move."""
    spec = tiny.SPECS["ideal"].replace(device=Gaussian(0.05))
    chip = calibrate(program(tiny.weights(), spec, jax.random.key(0)), tiny.stripes().x_train[:32])
    seen = []

    def chip_of_step(chip, key):
        made = redrawn(chip, key)
        jax.debug.callback(lambda c: seen.append(np.asarray(c)), made.tiles["conv1"].conductance)
        return made

    before, config = tiny.leaves(chip), TrainConfig(epochs=1, batch_size=64)
    task = adapt(
        chip, tiny.stripes(), method=METHODS["xbm"], key=jax.random.key(1), config=config, chip_of_step=chip_of_step
    )
    jax.effects_barrier()
    tiny.assert_same_bits(chip, before)
    assert len(seen) == 272 // 64 and len({c.tobytes() for c in seen}) == len(seen)
    guesses = predict(chip, task, tiny.stripes().x_test).argmax(-1)
    assert np.mean(guesses == tiny.stripes().y_test) == pytest.approx(task.meta["accuracy"])


def test_validation_images_are_held_out():
    run = Run(tiny.chip("ideal"), tiny.stripes(), METHODS["xbm"], CONFIG, jax.random.key(1), lambda _: None)
    used = {int(i) for epoch in range(3) for i in run.order(epoch).ravel()}
    assert not used & set(run.val_index.tolist())
    assert used <= set(run.train_index.tolist()) and len(run.train_index) + len(run.val_index) == 320
    assert run.order(0).shape == (17, 16)
    assert run.order(0).tolist() != run.order(1).tolist()


def test_a_head_on_cached_features_is_the_head_trained_through_the_network(monkeypatch):
    config = TrainConfig(epochs=2, batch_size=16)
    options = {"method": METHODS["head_only"], "key": jax.random.key(1), "config": config}
    cached = adapt(tiny.chip("ideal"), tiny.stripes(), **options)
    monkeypatch.setattr(Run, "on_features", False)
    through = adapt(tiny.chip("ideal"), tiny.stripes(), **options)
    for name in ("kernel", "bias"):
        got, wanted = (task.trained["head"][name] for task in (cached, through))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4)
    for a, b in zip(cached.meta["history"], through.meta["history"], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
        assert a["val_accuracy"] == pytest.approx(b["val_accuracy"], abs=1 / 48 + 1e-6)


def test_a_head_is_in_full_precision():
    """Elsewhere than on a CPU the default is less."""
    head = {"kernel": jnp.zeros((8, 4)), "bias": jnp.zeros(4)}
    assert "HIGHEST" in str(jax.make_jaxpr(Linear().apply)(head, jnp.zeros((2, 8))))


def test_every_step_is_reported():
    rows = []
    short(epochs=2, report=rows.append)
    assert [row["step"] for row in rows] == list(range(1, 35))
    assert {row["steps"] for row in rows} == {34}
    assert [row["epoch"] for row in rows] == [0] * 17 + [1] * 17
    assert all(np.isfinite(row["loss"]) and 0 <= row["accuracy"] <= 1 for row in rows)
    assert rows[-1]["images_per_second"] > 0


def test_grey_images_are_repeated_and_resized_for_the_chip():
    data = tiny.stripes()
    grey = dataclasses.replace(data, x_train=data.x_train[..., :1], x_test=data.x_test[..., :1])
    fitted = for_chip(tiny.chip("ideal"), grey)
    assert np.array_equal(fitted.x_train, np.repeat(grey.x_train, 3, axis=-1))
    assert np.array_equal(fitted.x_test, np.repeat(grey.x_test, 3, axis=-1))
    assert for_chip(tiny.chip("ideal"), grey, 16).x_test.shape == (160, 16, 16, 3)
    assert for_chip(tiny.chip("ideal"), data).x_train is data.x_train


@pytest.mark.parametrize("method", ["norm_only-affine", "head_only"])
def test_a_start_gives_statistics_only_to_a_method_that_keeps_some(method):
    """Without a state of its own a task predicts with the chip's: training and its accuracy have to, too."""
    first, data = learned("norm_only-full")[0], tiny.stripes()
    config = TrainConfig(epochs=1, batch_size=64)
    options = {"method": METHODS[method], "key": jax.random.key(1), "config": config, "start": first}
    task = adapt(tiny.chip("ideal"), data, **options)
    assert task.state == {}
    guesses = predict(tiny.chip("ideal"), task, data.x_test).argmax(-1)
    assert task.meta["accuracy"] == pytest.approx(np.mean(guesses == data.y_test))


def few(count):
    data = tiny.stripes()
    return dataclasses.replace(data, x_train=data.x_train[:count], y_train=data.y_train[:count])


def uncalibrated(adc_kind):
    return program(tiny.weights(), tiny.SPECS[adc_kind], jax.random.key(0))


@pytest.mark.parametrize("kind", ["ideal", "adc"])
def test_an_uncalibrated_chip_is_refused(kind):
    with pytest.raises(SpecError, match=r"chip = 'not calibrated': .*calibrate\(chip, images\)"):
        adapt(uncalibrated(kind), tiny.stripes(), method=METHODS["xbm"], key=jax.random.key(0))


def test_wrong_channels_are_refused():
    data = tiny.stripes()
    grey = dataclasses.replace(data, x_train=data.x_train[..., :1], x_test=data.x_test[..., :1])
    with pytest.raises(DataError, match=r"images\.shape = \(1, 12, 12, 1\): \[n, height, width, 3\]"):
        short(data=grey)


@pytest.mark.parametrize("count", [4, 18])
def test_too_few_images_are_refused(count):
    with pytest.raises(DataError, match=rf"data\.x_train = '{count} images': more than batch_size = 16"):
        short(data=few(count))


def test_just_enough_images_are_learned_from():
    assert short(data=few(19)).meta["images"]["train"] == 16


@pytest.mark.parametrize("label", [4, -1])
def test_labels_outside_the_head_never_reach_it(label):
    data = tiny.stripes()
    labels = data.y_train.copy()
    labels[0] = label
    with pytest.raises(DataError, match=rf"y_train = '{label} \(1 times\)': 0\.\.3"):
        Dataset("bad", data.x_train, labels, data.x_test, data.y_test, data.class_names)


# ---------------------------------------------------------------------------------------------------------------------
# Augmentation


@pytest.mark.parametrize("name", ["head_only", "norm_only-full"])
@pytest.mark.slow
def test_training_on_random_patches(name):
    """Equal keys learn equal tasks; other patches teach another task; the accuracy is that of the images' centres."""
    data, chip = tiny.stripes(), tiny.chip("ideal")
    config = TrainConfig(epochs=2, batch_size=16, augment=Augment(size=8))
    tasks = [
        adapt(chip, data, method=METHODS[name], key=jax.random.key(1), config=c)
        for c in (config, config, dataclasses.replace(config, augment=Augment(size=8, scale=(0.5, 0.6))))
    ]
    heads = [np.asarray(task.trained["head"]["kernel"]) for task in tasks]
    np.testing.assert_array_equal(heads[0], heads[1])
    assert (heads[0] != heads[2]).any()
    assert tasks[0].meta["augment"] == {"flip": True, "size": 8, "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)}
    guess = predict(chip, tasks[0], center_crop(data.x_test, 8)).argmax(-1)
    assert tasks[0].meta["accuracy"] == np.mean(guess == data.y_test)
