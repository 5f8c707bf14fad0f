"""Numbers that are none: named by step, epoch, task and rates, with the state of before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xbm_jax.errors import TrainingError
from xbm_jax.training.checks import first_not_finite
from xbm_jax.training.run import Run
from xbm_jax.training.state import RunState

__all__ = ["check_losses", "check_score", "check_state"]


def check_losses(run: Run, state: RunState, losses: Sequence[float] | np.ndarray, first: int) -> None:
    """Raise TrainingError at the first loss that is not finite; they are those of the steps from ``first`` on."""
    for step, loss in enumerate(losses, first):
        if not math.isfinite(loss):
            place = f"step {step + 1} of {run.all_steps}, epoch {step // run.steps + 1}"
            error = _error(run, state, f"loss at {place},", float(loss), step)
            error.run, error.step = run, step
            raise error


def check_state(run: Run, state: RunState, train: Any) -> None:
    """Raise TrainingError if an epoch leaves anything learned, or a running statistic, that is not finite.

    A loss tells of the weights before its step, and of those alone that it depends on: a ReLU may end NaN as zero.
    """
    broken = first_not_finite({"trained": train.trained}) or first_not_finite({"statistics": train.stats})
    if broken is not None:
        epoch = int(state.epoch) + 1
        raise _error(run, state, f"{broken} after epoch {epoch}", "not finite", epoch * run.steps)


def check_score(run: Run, state: RunState, broken: int, examples: int) -> None:
    """Raise TrainingError if outputs are not finite: NaN counts as the largest, as a guess that it never was."""
    if broken:
        taken = min(int(state.epoch) + 1, run.recipe.epochs) * run.steps
        raise _error(run, state, "logits", f"not finite for {broken} of {examples} images", taken)


def _error(run: Run, state: RunState, what: str, value: Any, taken: int) -> TrainingError:
    """The error that says what is not finite after so many steps, and by which rates they were taken."""
    named = {"masks": "mask_lr", "norms": "norm_lr", "head": "head_lr"}
    rates = ", ".join(
        f"{named[group]} = {rate:g}" for group, rate in run.recipe.rates(run.method, run.all_steps).items()
    )
    factor = run.recipe.factors(run.method, max(taken - 1, 0), run.all_steps)["head"]
    cause = f"lower the learning rates, {rates}, times {factor:.3g} at the last step"
    allowed = f"finite numbers; {cause if taken else 'no step was taken yet, so look at the chip and at start'}"
    error = TrainingError(f"{what} of {run.data.name!r}{run.place}", value, allowed)
    error.state = state
    return error
