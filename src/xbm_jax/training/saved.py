"""A training that is saved: its whole state after epochs and in between, what carries it on, and its log.

    <folder>/state/000007  a save, whole: the arrays of every run's state by path, and what the runs were asked
    <folder>/log.jsonl     a line an epoch, and for one step in so many
    <folder>/.xbm-lock     held by the process that learns

A state is written by a thread of its own while the next steps are taken; of a run and a state alone the rest follows
bit for bit, so that a run which is killed and carried on ends as one that was not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from xbm_jax.errors import BankError, Interrupted, OutputError, warn
from xbm_jax.paths import as_path
from xbm_jax.storage import generations, store
from xbm_jax.storage.lock import LOCK, locked
from xbm_jax.storage.trees import from_named, named
from xbm_jax.training.asked import asked, check_asked
from xbm_jax.training.clock import Clock
from xbm_jax.training.interrupt import heed, saving_first, stop_asked
from xbm_jax.training.log import LOG, Log
from xbm_jax.training.run import Run
from xbm_jax.training.saves import Saves, check_place
from xbm_jax.training.state import RunState
from xbm_jax.training.watch import Watch
from xbm_jax.training.writer import Writer

__all__ = ["forget", "told", "watching"]

_FORM = 1
_STATE = "state"


class _Save(NamedTuple):
    """What is written: a state for each run, and the tasks' ``meta`` once they are done."""

    states: list[RunState]
    seconds: float
    metas: list[dict[str, Any]] | None = None


class _Saved(Watch):
    """Of a training that is saved in a folder; of several processes the first writes, and all carry on from it."""

    def __init__(self, runs: Sequence[Run], clock: Clock, saves: Saves, log: Log | None) -> None:
        super().__init__(runs, clock)
        self._saves, self._log = saves, log
        self._asked = [asked(run) for run in runs]
        self._there = _newest(saves.path / _STATE)
        self._before, self._last = 0.0, time.monotonic()
        if self._there is not None:
            described = self._there[1]
            check_asked(saves.path, described["asked"], self._asked)
            self._before, self.metas = described["seconds"], described["metas"]
        self.writer: Writer[_Save] = Writer(self._write)

    @property
    def seconds(self) -> float:
        return self._before + super().seconds

    def states(self) -> list[RunState]:
        states, there = super().states(), self._there
        if there is not None:
            template = [s.replace(losses=np.zeros(there[1]["losses"])) for s in states]
            states, self._there = from_named(there[0], template), None
        if self.metas is None and self._log is not None:
            at = {"step": int(states[0].step), "epoch": int(states[0].epoch), "jax": jax.__version__}
            at["learns"] = [{"task": run.data.name, "method": run.method.name} for run in self.runs]
            self._log.note("begin", {**at, "platform": jax.default_backend(), "seconds": self._before})
        return states

    def stepped(self, step: int, seen: dict[str, jax.Array], standing: Callable[[], list[RunState]]) -> None:
        self.writer.check()
        whole = (step + 1) % self._saves.log_steps == 0
        if whole:
            self._tell("step", self._step_row(step, seen))
        if jax.process_count() == 1 or whole:
            stop, due = self._agreed(time.monotonic() - self._last >= self._saves.every_seconds)
            if stop or due:
                self._put(_Save(standing(), self.seconds))
            self._stop(stop)

    def ended(self, states: list[RunState]) -> None:
        row = self.row(states)
        self._tell("epoch", row)
        self._put(_Save(states, self.seconds))
        self.tell_epoch(row)
        self._stop(self._agreed(False)[0])

    def done(self, states: list[RunState], metas: list[dict[str, Any]]) -> None:
        self._put(_Save(states, self.seconds, metas))
        self.writer.flush()

    def _agreed(self, due: bool) -> tuple[int, bool]:
        """The signal to stop by, or 0, and whether a save is due: the same in all processes, as they save together."""
        if jax.process_count() == 1:
            return stop_asked(), due
        from jax.experimental.multihost_utils import process_allgather

        found = np.asarray(process_allgather(np.array([stop_asked(), int(due)])))
        return int(found[:, 0].max()), bool(found[:, 1].any())

    def _stop(self, number: int) -> None:
        """Stop by a signal, if there is one, once all is written."""
        if number:
            self.writer.flush()
            heed(self._saves.path)
            raise Interrupted(number, self._saves.path)  # it came to another process

    def _tell(self, kind: str, row: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.add(kind, row)

    def _put(self, save: _Save) -> None:
        if self._log is not None:
            self.writer.put(save)
        self._last = time.monotonic()

    def _write(self, save: _Save) -> None:
        arrays = {name: np.asarray(array) for name, array in named(save.states).items()}
        losses = len(save.states[0].losses)
        described = {"asked": self._asked, "seconds": save.seconds, "losses": losses, "metas": save.metas}
        store.save(self._saves.path / _STATE, arrays, described, form=_FORM, keep=self._saves.keep)

    def _step_row(self, step: int, seen: dict[str, jax.Array]) -> dict[str, Any]:
        first = self.runs[0]
        whole = first.layout.host({"loss": seen["loss"], "score": seen["score"]})
        loss, score = (float(np.mean(np.asarray(whole[name], np.float64))) for name in ("loss", "score"))
        self.clock.read(seen["loss"])
        rates, factors = first.recipe.rates(first.method, first.all_steps), first.pace(step).factors
        return {
            "epoch": step // first.steps,
            "step": step + 1,
            "steps": first.all_steps,
            "loss": loss,
            first.recipe.objective.metric: score,
            "rates": {group: rate * float(factors[group]) for group, rate in rates.items()},
            "images_per_second": first.recipe.batch_size * len(self.runs) * self.clock.rate,
            "seconds": self.seconds,
        }


@contextmanager
def watching(saves: Saves | None, runs: Sequence[Run], clock: Clock) -> Iterator[Watch]:
    """The watch of a training; within, a folder that is saved to is this training's alone.

    Raises:
        OutputError: a folder that cannot be written, that another process learns in, or that another run is saved in.
        BankError: saves that are all damaged.
    """
    if saves is None:
        yield Watch(runs, clock)
        return
    with ExitStack() as held:
        log = None
        if jax.process_index() == 0:
            check_place(saves.path)
            held.enter_context(_alone(saves.path))
            log = Log(saves.path)
        held.enter_context(saving_first(saves.path))
        if log is not None:
            held.enter_context(log)
        watch = _Saved(runs, clock, saves, log)
        held.enter_context(watch.writer)
        yield watch


def forget(folder: str | os.PathLike[str]) -> None:
    """Remove a run that is saved in a folder, and the folder if nothing else is in it; nothing where there is none.

    Raises:
        OutputError: it cannot be removed, or a process learns in it.
    """
    path = as_path(folder)
    if not path.is_dir():
        return
    with _alone(path):
        if (path / _STATE).is_dir():
            generations.take_away(path / _STATE)
        (path / LOG).unlink(missing_ok=True)
        (path / LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # raised where anything is in it
        path.rmdir()


def told(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What the newest save of a run says, without its arrays; ``None`` where none is there yet.

    ``asked``: of each task, chip, data, method, recipe and key in words; ``seconds``; ``metas``: what was measured of
    each task once all is done, until then ``None``.

    Raises:
        BankError: a damaged save.
    """
    state = as_path(folder) / _STATE
    return store.load_metadata(state, form=_FORM) if generations.exists(state) else None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder of a run, or say that another process does."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder, wait_seconds=0))
        except OutputError as error:
            allowed = f"a folder that no other process learns in ({error})"
            raise OutputError("save", str(folder), allowed) from error
        yield


def _newest(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The newest save that is whole, if there is any; damaged ones after it are warned of."""
    damaged: BankError | None = None
    for number in reversed(generations.generations(folder)):
        try:
            found = store.load(folder, form=_FORM, generation=number)
        except BankError as error:
            damaged = damaged or error
            continue
        if damaged is not None:
            warn(f"the newest save in {folder} is damaged, the run carries on from one before it ({damaged})")
        return found
    if damaged is not None:
        allowed = f"a save that is whole; xbm.training.forget(folder) lets the run begin anew ({damaged})"
        raise BankError("save", str(folder), allowed)
    return None
