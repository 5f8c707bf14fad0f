"""Settings that cannot be, and the learning-rate schedule."""

import itertools
import math

import jax
import pytest

from tasks import tiny
from xbm_jax.errors import SpecError
from xbm_jax.masks import methods
from xbm_jax.training import TrainConfig
from xbm_jax.training.run import Run


def test_defaults_are_possible():
    assert TrainConfig() == TrainConfig()
    assert len({TrainConfig(), TrainConfig(), TrainConfig(epochs=3)}) == 2


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("epochs", 0, "an integer from 1"),
        ("epochs", 2.0, "an integer"),
        ("epochs", True, "an integer"),
        ("epochs", "3", "an integer"),
        ("batch_size", 1, "an integer from 2"),
        ("batch_size", None, "an integer"),
        ("validation_fraction", 0.0, "above 0"),
        ("validation_fraction", 0.95, "at most 0.9"),
        ("validation_fraction", -0.1, "above 0"),
        ("validation_fraction", math.nan, "a finite number"),
        ("validation_fraction", "0.1", "a finite number"),
        ("schedule", "linear", "'cosine', 'step', 'constant'"),
        ("schedule", None, "'cosine', 'step', 'constant'"),
        ("eval_batch_size", 0, "an integer from 1"),
        ("augment", True, "an Augment, or None"),
        ("augment", 8, "an Augment, or None"),
    ],
)
def test_impossible_values_are_named(field, value, allowed):
    with pytest.raises(SpecError, match=rf"TrainConfig\.{field} = .*{allowed}"):
        TrainConfig(**{field: value})


def run_with(schedule, epochs=3, batch_size=32):
    config = TrainConfig(epochs=epochs, batch_size=batch_size, schedule=schedule)
    return Run(tiny.chip("ideal"), tiny.stripes(), methods.head_only(), config, jax.random.key(0), lambda _: None)


def test_cosine_falls_from_one_to_zero():
    run = run_with("cosine")
    total = 3 * run.steps
    assert run.steps == (320 - 48) // 32
    rates = [run.rate(step) for step in range(total)]
    assert rates[0] == 1.0
    assert rates[total // 2] == pytest.approx(0.5)
    assert rates == [pytest.approx((1 + math.cos(math.pi * s / total)) / 2) for s in range(total)]
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert run.rate(total) == pytest.approx(0.0)


@pytest.mark.parametrize(("epochs", "full", "tenth"), [(1, 4, 4), (2, 8, 8), (3, 12, 12), (5, 20, 20)])
def test_step_falls_to_a_tenth_in_the_second_half_of_the_steps(epochs, full, tenth):
    """However many epochs they are: of 30 the last 15, which is Piggyback's recipe."""
    run = run_with("step", epochs)
    assert [run.rate(step) for step in range(8 * epochs)] == [1.0] * full + [0.1] * tenth


def test_of_an_odd_number_of_steps_the_middle_one_is_full():
    run = run_with("step", epochs=1, batch_size=90)
    assert [run.rate(step) for step in range(run.steps)] == [1.0, 1.0, 0.1]


def test_constant_stays():
    assert {run_with("constant").rate(step) for step in range(24)} == {1.0}
