"""Several tasks in one vmapped step: what each would have learned alone, and which tasks cannot share a step."""

import dataclasses

import jax
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.errors import DataError
from xbm_jax.training import TrainConfig, adapt, adapt_together, loop

CONFIG = TrainConfig(epochs=2, batch_size=16)
KEYS = tuple(jax.random.split(jax.random.key(3), 3))


def turned(count):
    """Stripes under other labels."""
    data = tiny.stripes()
    return [
        dataclasses.replace(data, y_train=(data.y_train + i) % 4, y_test=(data.y_test + i) % 4) for i in range(count)
    ]


@pytest.mark.parametrize(("name", "kind"), [("xbm", "adc"), ("xma2", "ideal"), ("norm_only-affine", "ideal")])
def test_tasks_learned_together_are_tasks_learned_alone(name, kind):
    chip, method, data = tiny.chip(kind), tiny.METHODS[name], turned(3)
    before = tiny.leaves(chip)
    together = adapt_together(chip, data, method=method, keys=KEYS, config=CONFIG)
    tiny.assert_same_bits(chip, before)
    assert len({task.meta["history"][-1]["loss"] for task in together}) == 3
    for task, images, key in zip(together, data, KEYS, strict=True):
        alone = adapt(chip, images, method=method, key=key, config=CONFIG)
        for got, wanted in zip(task.meta["history"], alone.meta["history"], strict=True):
            assert got["loss"] == pytest.approx(wanted["loss"], rel=1e-3)
            assert got["val_accuracy"] == pytest.approx(wanted["val_accuracy"], abs=2 / 48)
        assert task.meta["best_epoch"] in (0, 1) and task.meta["images"] == alone.meta["images"]
        for got, wanted in zip(jax.tree.leaves(task.trained), jax.tree.leaves(alone.trained), strict=True):
            assert got.shape == wanted.shape and got.dtype == wanted.dtype


def test_each_task_on_a_chip_of_its_own():
    """Their cells' errors differ, and their reads draw noise of their own."""
    chips, data = (tiny.chip("noisy"), tiny.chip("noisy", key=9)), turned(2)
    together = adapt_together(chips, data, method=tiny.METHODS["xbm"], keys=KEYS[:2], config=CONFIG)
    for task, chip, images, key in zip(together, chips, data, KEYS, strict=False):
        assert task.chip == tiny.mark(chip)
        alone = adapt(chip, images, method=tiny.METHODS["xbm"], key=key, config=CONFIG)
        assert task.meta["history"][0]["loss"] == pytest.approx(alone.meta["history"][0]["loss"], rel=1e-3)


def test_what_shares_no_step_is_learned_one_after_another(monkeypatch):
    monkeypatch.setattr(loop, "train_steps", None)
    name = "head_only"
    method, chip, data = tiny.METHODS[name], tiny.chip("ideal"), turned(2)
    tasks = adapt_together(chip, data, method=method, keys=KEYS[:2], config=CONFIG)
    alone = adapt(chip, data[1], method=method, key=KEYS[1], config=CONFIG)
    tiny.assert_same_bits(tasks[1].trained, alone.trained)


def test_steps_are_reported_once_for_all():
    rows = []
    adapt_together(
        tiny.chip("ideal"), turned(2), method=tiny.METHODS["xbm"], keys=KEYS[:2], config=CONFIG, report=rows.append
    )
    assert [row["step"] for row in rows] == list(range(1, 35))
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_no_task_is_no_work():
    assert adapt_together(tiny.chip("ideal"), [], method=tiny.METHODS["xbm"], keys=[]) == []


def test_tasks_that_do_not_fit_together_are_named():
    data = tiny.stripes()
    one_of_each = np.where(np.arange(len(data.y_train)) < 100, np.arange(len(data.y_train)), data.y_train)
    hundred = dataclasses.replace(data, name="hundred", class_names=tuple(map(str, range(100))), y_train=one_of_each)
    few = dataclasses.replace(data.subset(200, 160), name="few")
    train, test = (np.repeat(x, 2, 1) for x in (data.x_train, data.x_test))
    large = dataclasses.replace(data, name="large", x_train=train, x_test=test)
    chip, adc = tiny.chip("ideal"), tiny.chip("adc")

    def learn(other, chips=(chip, chip), keys=KEYS[:2]):
        adapt_together(chips, [data, other], method=tiny.METHODS["xbm"], keys=keys, config=CONFIG)

    with pytest.raises(DataError, match=r"width of the head of 'hundred' = 128: 64, as 'stripes' has"):
        learn(hundred)
    with pytest.raises(DataError, match=r"steps an epoch of 'few' = 10: 17, as 'stripes' has"):
        learn(few)
    with pytest.raises(DataError, match=r"input shapes of 'large' = \(24, 12, 3\): \(12, 12, 3\), as 'stripes' has"):
        learn(large)
    with pytest.raises(DataError, match=r"chips = \"another design for 'stripes'\": chips of one spec and backbone"):
        learn(data, chips=(chip, adc))
    with pytest.raises(DataError, match=r"keys = '3, 2 chips and 2 tasks to start from': one for each of 2 tasks"):
        learn(data, keys=KEYS)
