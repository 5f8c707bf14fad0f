"""Where a training's numbers go while it runs: TensorBoard, Weights & Biases, a profiler's trace; several at once.

Each is a ``report`` of :func:`xbm_jax.adapt`, called after every step, whose ``epoch`` is called after every epoch; and
a context manager that closes what it opened. The log of a saved run (``save=``) is written in any case.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any, Self

import jax

from xbm_jax.crossbar.validate import check_int
from xbm_jax.errors import OutputError
from xbm_jax.paths import as_path

__all__ = ["Outlet", "all_of", "profiled", "to_tensorboard", "to_wandb"]

_AT = ("epoch", "step", "steps", "seconds", "each")
"""What says when; the rest are numbers to show."""


class Outlet:
    """The base of all: takes rows and does nothing with them."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, row: dict[str, Any]) -> None:
        """Take what a step gave."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Take what an epoch gave."""

    def close(self) -> None:
        """Nothing more comes."""


def all_of(*reports: Callable[[dict[str, Any]], None]) -> Outlet:
    """One report that gives what it takes to all, and to those that have an ``epoch`` the epochs too."""
    return _All(reports)


def to_tensorboard(folder: str | PathLike[str], every: int = 10) -> Outlet:
    """Write events for TensorBoard by ``tensorboardX`` (the extra ``tensorboard``); ``every``: so many steps a point.

    Points are ``train/loss``, ``train/accuracy`` (or what the objective calls its score), ``train/images_per_second``;
    ``epoch/loss``, ``epoch/val_accuracy``. Where a run carries on, later points of the run before are hidden.

    Raises:
        OutputError: the library is not installed.
    """
    return _TensorBoard(_library("tensorboardX", "tensorboard"), str(as_path(folder)), every)


def to_wandb(every: int = 10, **init: Any) -> Outlet:
    """Log to Weights & Biases; ``init`` goes to ``wandb.init``. Needs ``wandb`` (the extra of that name).

    For a run that may be carried on give an ``id`` of your own and ``resume="allow"``.

    Raises:
        OutputError: the library is not installed.
    """
    return _Wandb(_library("wandb", "wandb"), every, init)


def profiled(folder: str | PathLike[str], first: int = 2, last: int = 7) -> Outlet:
    """Trace steps ``first`` to ``last`` of this process by JAX's profiler; the first of all, which compiles, is none.

    A head on frozen features has no steps of its own and gives no trace.

    Raises:
        SpecError: not 2 <= first <= last.
    """
    return _Profiled(str(as_path(folder)), check_int("first", first, 2, 10**9), check_int("last", last, first, 10**9))


class _All(Outlet):
    def __init__(self, reports: tuple[Callable[[dict[str, Any]], None], ...]) -> None:
        self._reports = reports

    def __call__(self, row: dict[str, Any]) -> None:
        for report in self._reports:
            report(row)

    def epoch(self, row: dict[str, Any]) -> None:
        for report in self._reports:
            getattr(report, "epoch", _nothing)(row)

    def close(self) -> None:
        for report in self._reports:
            getattr(report, "close", _nothing)()


class _Numbers(Outlet):
    """Of rows the numbers, of steps one in so many."""

    def __init__(self, every: int) -> None:
        self._every = check_int("every", every, 1, 10**9)

    def __call__(self, row: dict[str, Any]) -> None:
        if row["step"] % self._every == 0 or row["step"] == row["steps"]:
            self._take(row["step"], _numbers("train", row))

    def epoch(self, row: dict[str, Any]) -> None:
        self._take(row["step"], _numbers("epoch", row))

    def _take(self, step: int, numbers: dict[str, float]) -> None:
        raise NotImplementedError


class _TensorBoard(_Numbers):
    def __init__(self, library: Any, folder: str, every: int) -> None:
        super().__init__(every)
        self._library, self._folder, self._writer = library, folder, None

    def _take(self, step: int, numbers: dict[str, float]) -> None:
        if self._writer is None:
            self._writer = self._library.SummaryWriter(self._folder, purge_step=step)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Wandb(_Numbers):
    def __init__(self, library: Any, every: int, init: Mapping[str, Any]) -> None:
        super().__init__(every)
        self._run = library.init(**init)

    def _take(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()


class _Profiled(Outlet):
    def __init__(self, folder: str, first: int, last: int) -> None:
        self._folder, self._first, self._last, self._steps, self._running = folder, first, last, 0, False

    def __call__(self, row: dict[str, Any]) -> None:
        self._steps += 1
        if self._steps == self._first - 1:
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif self._steps == self._last:
            self.close()

    def close(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()


def _library(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise OutputError("log", extra, f"an installed library: `pip install 'xbm_jax[{extra}]'` ({error})") from None


def _numbers(kind: str, row: Mapping[str, Any]) -> dict[str, float]:
    return {f"{kind}/{name}": float(value) for name, value in row.items() if name not in _AT}


def _nothing(*_: Any) -> None:
    """In the place of a method that a report does not have."""
