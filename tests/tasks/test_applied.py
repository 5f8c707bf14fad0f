"""One program evaluates tasks of all methods that gate alike, learned or as a bank keeps them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.tasks import Task, compact, forward, predict, source_task
from xbm_jax.tasks.evaluation import _batch_features

IMAGES = tiny.stripes().x_test[:8]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch):
    """How many programs evaluated anything since the test began."""
    count = _batch_features._cache_size  # type: ignore[attr-defined]  # JAX's types leave it out
    before = count()
    return lambda: count() - before


def made(name: str) -> Task:
    return tiny.made_up_task(tiny.chip("adc"), tiny.METHODS[name])


def test_tasks_share_a_program_with_gates_of_columns_or_without_any(programs) -> None:
    chip = tiny.chip("adc")
    names = ["head_only", "norm_only-affine", "norm_only-full", "xbm", "xbm_levels"]
    for task in (source_task(chip), *map(made, names)):
        predict(chip, task, IMAGES, batch_size=7)
        predict(chip, compact(chip, task), IMAGES, batch_size=7)
    assert programs() == 1


def test_a_key_that_nothing_is_drawn_from_makes_no_program(programs) -> None:
    chip, task = tiny.chip("adc"), made("xbm")
    one = predict(chip, task, IMAGES, batch_size=5)
    other = predict(chip, task, IMAGES, batch_size=5, key=jax.random.key(3))
    assert programs() == 1 and np.array_equal(one, other)
    assert not chip.noisy and tiny.chip("noisy").noisy


@pytest.mark.parametrize("name", ["head_only", "norm_only-full", "xbm", "xbm_levels", "piggyback", "lora", "xma2"])
def test_it_answers_as_the_task_itself_does(name: str) -> None:
    chip, task = tiny.chip("adc"), made(name)
    own = np.asarray(forward(chip, task, IMAGES))
    np.testing.assert_allclose(predict(chip, task, IMAGES), own, rtol=1e-5, atol=1e-5 * np.abs(own).max())
