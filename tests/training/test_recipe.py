"""Settings that cannot be, and the learning-rate schedule."""

import dataclasses
import itertools
import math

import jax
import pytest

from tasks import tiny
from xbm_jax.errors import SpecError
from xbm_jax.masks import Annealed, Binary, Column, Method, Rule, methods
from xbm_jax.training import Recipe, Schedule
from xbm_jax.training.run import Run


def test_defaults_are_possible():
    assert Recipe() == Recipe()
    assert len({Recipe(), Recipe(), Recipe(epochs=3)}) == 2


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
        ("mask_schedule", "cosine", "a Schedule, or None"),
        ("mask_lr", -1.0, "at least 0"),
        ("optimizer", "lion", "'adam', 'sgd'"),
        ("objective", "mse", "an Objective"),
    ],
)
def test_impossible_values_are_named(field, value, allowed):
    with pytest.raises(SpecError, match=rf"Recipe\.{field} = .*{allowed}"):
        Recipe(**{field: value})


def run_with(schedule, epochs=3, batch_size=32):
    config = Recipe(epochs=epochs, batch_size=batch_size, schedule=schedule)
    run = Run(tiny.chip("ideal"), tiny.stripes(), methods.head_only(), config, jax.random.key(0), lambda _: None)
    return run, [float(run.pace(step).factors["masks"]) for step in range(run.all_steps)]


def test_cosine_falls_from_one_to_zero():
    run, rates = run_with("cosine")
    total = 3 * run.steps
    assert run.steps == (320 - 48) // 32
    assert rates[0] == 1.0
    assert rates[total // 2] == pytest.approx(0.5)
    assert rates == [pytest.approx((1 + math.cos(math.pi * s / total)) / 2, abs=1e-7) for s in range(total)]
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert Schedule("cosine").factor(total, total) == 0.0


@pytest.mark.parametrize(("epochs", "full", "tenth"), [(1, 4, 4), (2, 8, 8), (3, 12, 12), (5, 20, 20)])
def test_step_falls_to_a_tenth_in_the_second_half_of_the_steps(epochs, full, tenth):
    """However many epochs they are: of 30 the last 15, which is Piggyback's recipe."""
    assert run_with("step", epochs)[1] == [1.0] * full + [pytest.approx(0.1)] * tenth


def test_of_an_odd_number_of_steps_the_middle_one_is_full():
    assert run_with("step", epochs=1, batch_size=90)[1] == [1.0, 1.0, pytest.approx(0.1)]


def test_constant_stays():
    assert set(run_with("constant")[1]) == {1.0}


def test_masks_may_have_a_schedule_and_rates_of_their_own():
    recipe = Recipe(mask_schedule=Schedule("constant", until=0.5), mask_lr=0.5, head_lr=0.25)
    factors = [recipe.factors(methods.xbm(), step, 8) for step in range(8)]
    assert [f["masks"] for f in factors] == [1.0] * 4 + [0.0] * 4
    assert [f["norms"] for f in factors] == [f["head"] for f in factors]
    assert factors[4]["head"] == pytest.approx(0.5)
    assert recipe.rates(methods.xbm(), 100) == {"masks": 0.5, "norms": methods.xbm().norm_lr, "head": 0.25}


def test_a_rules_values_may_stand_before_the_rest():
    @dataclasses.dataclass(frozen=True)
    class Frozen(Rule):
        @property
        def until(self):
            return 0.25

    factors = [Recipe(schedule="constant").factors(Method("frozen", Frozen()), step, 8) for step in range(8)]
    assert [f["masks"] for f in factors] == [1.0, 1.0] + [0.0] * 6 and {f["head"] for f in factors} == {1.0}


def test_a_cosine_that_ends_early_is_a_shorter_one():
    early = [Schedule("cosine", until=0.5).factor(step, 16) for step in range(16)]
    assert early == [Schedule("cosine").factor(step, 8) for step in range(8)] + [0.0] * 8


def test_the_schedule_of_a_rules_values_ends_where_they_stand_or_earlier_where_it_is_asked():
    method = methods.masked("annealed", Column(), Binary(), Annealed(soft_until=0.5))
    found = [Recipe().factors(method, step, 16)["masks"] for step in range(16)]
    assert found == [Schedule("cosine").factor(step, 8) for step in range(8)] + [0.0] * 8
    earlier = Recipe(mask_schedule=Schedule("constant", until=0.25))
    assert [earlier.factors(method, step, 8)["masks"] for step in range(8)] == [1.0] * 2 + [0.0] * 6


def test_a_rate_of_so_many_steps_follows_from_the_number_of_steps():
    """Noise alone moves a logit by ``rate * sqrt(steps)``, which is the same whatever the number of steps."""
    method = dataclasses.replace(methods.xbm("affine"), mask_lr=0.5, mask_lr_steps=100)
    rates = {steps: Recipe().rates(method, steps)["masks"] for steps in (25, 100, 10_000)}
    assert rates == {25: 1.0, 100: 0.5, 10_000: 0.05}
    assert Recipe(mask_lr=0.3).rates(method, 10_000)["masks"] == 0.3
    assert Recipe().rates(dataclasses.replace(method, mask_lr_steps=None), 25)["masks"] == 0.5
    with pytest.raises(SpecError, match=r"Method.mask_lr_steps = 0"):
        dataclasses.replace(method, mask_lr_steps=0)
