"""Intervals of comparisons: what they hold in simulation, and their parts against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from experiments.intervals import Interval, mean_difference

from xbm_jax.errors import DataError

TRUTH = 0.03


def tables(
    rng: np.random.Generator, seeds: int, of_seed: float, tasks: int = 2, images: int = 200, correlated: bool = True
) -> list[np.ndarray]:
    """Differences with effects of images, of seeds (one effect in all tasks, or one in each) and of neither."""
    shift = of_seed * rng.standard_normal((1 if correlated else tasks, seeds, 1))
    hard, rest = 0.3 * rng.standard_normal((tasks, 1, images)), 0.3 * rng.standard_normal((tasks, seeds, images))
    return list(TRUTH + shift + hard + rest)


@pytest.mark.parametrize("correlated", [True, False])
@pytest.mark.parametrize("of_seed", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_hold_the_mean_as_often_as_they_say(seeds: int, of_seed: float, correlated: bool) -> None:
    rng, count = np.random.default_rng(seeds), 800
    found = [mean_difference(tables(rng, seeds, of_seed, correlated=correlated)) for _ in range(count)]
    held = np.mean([abs(i.mean - TRUTH) <= i.half for i in found])
    assert (
        0.93 <= held <= 0.99
    )  # 0.95 give or take 2.6 standard errors below; by its part of few seeds it may hold more


def test_seeds_on_the_same_images_are_no_images_of_their_own() -> None:
    """Taken as such, half of the intervals miss where seeds have an effect of their own."""
    rng, held, two = np.random.default_rng(0), 0, 0
    for _ in range(400):
        drawn = tables(rng, 3, 0.06)
        alone = 1.96 * np.sqrt(sum(t.var() / t.size for t in drawn)) / len(drawn)
        interval = mean_difference(drawn)
        held += abs(np.mean(drawn) - TRUTH) <= alone
        two += abs(interval.mean - TRUTH) <= interval.half
    assert held < 0.6 * 400 < 0.93 * 400 <= two


def test_two_seeds_are_enough_to_be_honest() -> None:
    rng = np.random.default_rng(0)
    found = [mean_difference(tables(rng, 2, 0.1)) for _ in range(800)]
    assert np.mean([abs(i.mean - TRUTH) <= i.half for i in found]) >= 0.93


def test_with_one_seed_the_interval_is_of_the_images_alone() -> None:
    d = tables(np.random.default_rng(0), 1, 0.0)
    interval = mean_difference(d)
    wanted = 1.959964 * np.sqrt(sum(t.var(ddof=1) / t.size for t in d)) / 2
    assert interval.half == pytest.approx(wanted) and interval.of_images_alone and interval.points().endswith("*")


def test_seeds_that_agree_leave_the_chance_of_images() -> None:
    d = np.repeat(np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (1, 300)), 4, 0)
    interval = mean_difference([d])
    assert interval.half == pytest.approx(1.959964 * np.sqrt(d[0].var(ddof=1) / 300)) and not interval.of_images_alone


def test_images_that_agree_leave_the_chance_of_seeds() -> None:
    """Student's t of the seeds' means: 4.3027 with two degrees of freedom."""
    means = np.array([[0.1], [0.2], [0.6]])
    interval = mean_difference([np.repeat(means, 50, 1)])
    assert interval.mean == pytest.approx(0.3)
    assert interval.half == pytest.approx(4.302653 * means.std(ddof=1) / np.sqrt(3))
    assert interval.points() == "+30.0 ± 65.7"


def test_tasks_need_the_same_seeds() -> None:
    with pytest.raises(DataError, match="as many seeds of every task"):
        mean_difference([np.zeros((2, 5)), np.zeros((3, 5))])


@pytest.mark.parametrize(
    ("mean", "half", "seeds", "verdict"),
    [(0.02, 0.01, 3, "better"), (-0.02, 0.01, 3, "worse"), (0.01, 0.01, 3, "undecided"), (0.2, 0.01, 1, "undecided")],
)
def test_better_is_said_only_above_what_can_be_seen(mean: float, half: float, seeds: int, verdict: str) -> None:
    assert Interval(mean, half, seeds).verdict == verdict
