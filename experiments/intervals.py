"""How sure a comparison is: intervals over the two things that chance decides, test images and trainings.

A comparison of two methods on a task is a table of differences ``d[s, i]``: whether the one is right on test image i
after training s (a seed: a chip, a choice of images and a training of its own), less whether the other is, with the
same seed. Images and seeds cross, so that the entries are not independent: an image that is hard is hard after every
training, and a training that went well did so on all images. With

    d[s, i] = mean + u[i] + v[s] + e[s, i],     Var(mean) = var_u / N + var_v / S + var_e / (N S)

and the mean squares of a two-way table of S seeds and N images without repetition,

    MS_u = S Var_i(mean_s d),   MS_v = N Var_s(mean_i d),
    MS_e = sum (d - mean_s d - mean_i d + mean d)**2 / ((S - 1) (N - 1)),

the unbiased estimate of the mean's variance is MS_v / (N S) + (MS_u - MS_e) / (N S): a part of few seeds and a part of
many images (Searle, Casella and McCulloch 1992, Variance Components, ch. 4; to add the variances over images and over
seeds counts var_e twice). Each part has its own quantile, Student's t with S - 1 degrees of freedom and the normal one:

    half width = sqrt( (t**2 MS_v + z**2 max(MS_u - MS_e, 0)) / (N S) )

(Howe 1974, J. Am. Stat. Assoc. 69, 789). It holds the mean at least as often as it says; with three seeds or more it is
hardly wider than it has to be, with two it is wide: two trainings tell little. A single t with effective degrees of
freedom (Satterthwaite, Hillis) is narrower there and holds the mean in 87 of 100 cases instead of 95.

Over several tasks the mean is over these very tasks, not over tasks one might have had. Images of different tasks are
apart, a seed is the same in all of them (it is one chip): chance of training is that of a seed's mean over tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from xbm_jax.errors import DataError

__all__ = ["Interval", "mean_difference"]


@dataclass(frozen=True)
class Interval:
    """A mean and half the width of its interval, as shares.

    ``seeds``: trainings behind it. With one their chance is unknown: the interval is of the test images alone.
    ``half`` is also the smallest difference that such a comparison can see.
    """

    mean: float
    half: float
    seeds: int

    @property
    def of_images_alone(self) -> bool:
        """Whether chance of training is not in it."""
        return self.seeds < 2

    @property
    def verdict(self) -> str:
        """``"better"`` or ``"worse"`` where the interval leaves no doubt, else ``"undecided"``; of one seed always."""
        if self.of_images_alone or abs(self.mean) <= self.half:
            return "undecided"
        return "better" if self.mean > 0 else "worse"

    def points(self) -> str:
        """In percentage points; a star where it is of the test images alone."""
        return f"{100 * self.mean:+.1f} ± {100 * self.half:.1f}" + ("*" if self.of_images_alone else "")


def mean_difference(tasks: Sequence[np.ndarray], level: float = 0.95) -> Interval:
    """The mean over tasks of the differences' means, with an interval over test images and seeds.

    Args:
        tasks: for each task the differences [seeds, images], of the same seeds in the same order.
        level: how often the interval holds the true mean.
    """
    tables = [np.asarray(table, float) for table in tasks]
    seeds = len(tables[0])
    if any(len(table) != seeds for table in tables):
        raise DataError("tasks", [table.shape for table in tables], "as many seeds of every task")
    mean = float(np.mean([table.mean() for table in tables]))
    tail = (1 + level) / 2
    if seeds == 1:
        variance = sum(table[0].var(ddof=1) / table.shape[1] for table in tables) / len(tables) ** 2
        return Interval(mean, float(ndtri(tail)) * math.sqrt(variance), seeds)
    of_seeds = np.mean([table.mean(1) for table in tables], 0).var(ddof=1) / seeds
    of_images = sum(_of_images(table) for table in tables) / len(tables) ** 2
    half = math.hypot(stdtrit(seeds - 1, tail) * math.sqrt(of_seeds), ndtri(tail) * math.sqrt(of_images))
    return Interval(mean, half, seeds)


def _of_images(table: np.ndarray) -> float:
    """The part of the mean's variance that more seeds would not lessen: (MS_u - MS_e) / (N S), at least 0."""
    seeds, images = table.shape
    over_seeds, over_images = table.mean(0), table.mean(1, keepdims=True)
    of_image = seeds * over_seeds.var(ddof=1)
    rest = np.sum((table - over_seeds - over_images + table.mean()) ** 2) / ((seeds - 1) * (images - 1))
    return max(of_image - rest, 0.0) / table.size
