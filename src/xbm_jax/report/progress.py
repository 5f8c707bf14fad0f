"""Progress bars for training: on a terminal only, and too seldom to slow anything."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["TrainingBar", "TrainingProgress"]

_MAX_HZ = 10.0


class TrainingProgress:
    """Shows the bar of what is being learned: steps, loss, accuracy, images per second, time left.

    A context manager; the terminal is as it was when it ends, on Ctrl-C too. The bar goes when the next one starts, so
    print a line per finished task through the same console. Where the console is no terminal nothing is written.

        with TrainingProgress(console) as progress:
            task = adapt(chip, data, method=method, key=key, report=progress.task("fashion_mnist: xbm").report)

    Args:
        console: where to draw; rich's own default if not given.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = console or Console()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal or console.is_dumb_terminal,
            transient=True,
            expand=True,
            refresh_per_second=_MAX_HZ,
        )
        self._bar: TrainingBar | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def task(self, label: str, total_steps: int | None = None) -> TrainingBar:
        """Start a bar in place of the one before; without a total it pulses until a report tells it."""
        if self._bar is not None:
            self._bar.remove()
        self._bar = TrainingBar(self._progress, label, total_steps)
        return self._bar


class TrainingBar:
    """One bar; made by :meth:`TrainingProgress.task`."""

    def __init__(self, progress: Progress, label: str, total_steps: int | None) -> None:
        self._progress = progress
        self._total = total_steps
        self._next_draw = 0.0
        self._shown: dict[str, Any] = {"loss": None, "accuracy": None, "images_per_second": None}
        self._id: TaskID = progress.add_task(label, total=total_steps, numbers="")

    def update(self, step: int, *, loss: Any = None, accuracy: Any = None, images_per_second: Any = None) -> None:
        """Say that ``step`` steps are done; numbers may be arrays still being computed, those left out stay.

        Between two drawings this returns at once, without waiting for an array's value.
        """
        now = time.monotonic()
        if self._progress.disable or (now < self._next_draw and step != self._total):
            return
        self._next_draw = now + 1 / _MAX_HZ
        given = {"loss": loss, "accuracy": accuracy, "images_per_second": images_per_second}
        self._shown |= {name: float(value) for name, value in given.items() if value is not None}
        self._progress.update(self._id, completed=step, total=self._total, numbers=_numbers(**self._shown))

    def report(self, seen: Mapping[str, Any]) -> None:
        """:meth:`update` from what :func:`~xbm_jax.training.adapt` reports after a step."""
        self._total = seen.get("steps", self._total)
        self.update(seen["step"], **{name: seen.get(name) for name in self._shown})

    def remove(self) -> None:
        """Take the bar away; a second time does nothing."""
        if self._id in self._progress.task_ids:
            self._progress.remove_task(self._id)


def _numbers(loss: float | None, accuracy: float | None, images_per_second: float | None) -> str:
    """Fixed widths, so that the bar beside them does not jump."""
    parts = []
    if loss is not None:
        parts.append(f"loss {loss:6.3f}")
    if accuracy is not None:
        parts.append(f"acc {100 * accuracy:5.1f} %")
    if images_per_second is not None:
        parts.append(f"{images_per_second:7,.0f} img/s")
    return "  ".join(parts)
