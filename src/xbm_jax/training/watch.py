"""What stands beside a training, whether it is saved or not: signals are heeded, and its report is told of epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from xbm_jax.training.clock import Clock
from xbm_jax.training.interrupt import heed
from xbm_jax.training.run import Run, begin
from xbm_jax.training.state import RunState

__all__ = ["Watch"]


class Watch:
    """Of a training that is not saved: signals are heeded, and a report that has an ``epoch`` is told of epochs."""

    metas: list[dict[str, Any]] | None = None
    """Of the tasks of a run that was finished before."""

    def __init__(self, runs: Sequence[Run], clock: Clock) -> None:
        self.runs, self.clock = runs, clock
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long all has taken."""
        return time.monotonic() - self._began

    def states(self) -> list[RunState]:
        """Where the runs begin."""
        return [begin(run) for run in self.runs]

    def stepped(self, step: int, seen: dict[str, jax.Array], standing: Callable[[], list[RunState]]) -> None:
        """After every step, from 0 on."""
        del step, seen, standing
        heed()

    def ended(self, states: list[RunState]) -> None:
        """After every epoch."""
        self.tell_epoch(self.row(states))
        heed()

    def done(self, states: list[RunState], metas: list[dict[str, Any]]) -> None:
        """After all of it."""

    def row(self, states: Sequence[RunState]) -> dict[str, Any]:
        """What is to be told of an epoch that ended; of several tasks the means, and each."""
        first, epoch = self.runs[0], int(states[0].epoch)
        found = np.array([np.asarray(state.history)[epoch - 1] for state in states])
        names = ("loss", f"val_{first.recipe.objective.metric}")
        row = {"epoch": epoch - 1, "step": int(states[0].step), **dict(zip(names, found.mean(0).tolist(), strict=True))}
        if len(states) > 1:
            each = zip(self.runs, found.tolist(), strict=True)
            row["each"] = [{"task": run.data.name, **dict(zip(names, own, strict=True))} for run, own in each]
        rate = first.recipe.batch_size * len(self.runs) * self.clock.rate
        return {**row, "images_per_second": rate, "seconds": self.seconds}

    def tell_epoch(self, row: dict[str, Any]) -> None:
        """Give a row to the report, if it wants epochs too."""
        tell = getattr(self.runs[0].report, "epoch", None)
        if tell is not None:
            tell(row)
