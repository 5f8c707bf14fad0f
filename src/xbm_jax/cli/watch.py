"""``xbm watch``: a training while it goes on, from the log that its run writes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xbm_jax.cli.console import Output, say
from xbm_jax.cli.options import Watch
from xbm_jax.errors import DataError
from xbm_jax.report.live import shown_run
from xbm_jax.training.log import LOG, read_lines

__all__ = ["runs_in", "watch_command"]

_ALLOWED = "the folder of a saved run, or of a bank or quickstart that a task is being learned for"


def watch_command(options: Watch) -> int:
    """Show the newest run of a place until it is gone or the user leaves; 1 where none is there, else 0.

    Raises:
        DataError: no such place.
    """
    if options.seconds < 0.1:
        raise DataError("--seconds", options.seconds, "at least 0.1")
    place, console = options.place, Output()
    if not place.is_dir():
        raise DataError("watch", str(place), _ALLOWED)
    if options.once or not console.is_terminal:
        found = _newest(place)
        if found is None:
            say(console, f"Nothing is being learned in {place}.")
            return 1
        console.print(found)
        return 0
    from rich.live import Live

    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(_newest(place) or f"Nothing is being learned in {place} now; Ctrl-C leaves.", refresh=True)
                time.sleep(options.seconds)
    except KeyboardInterrupt:  # the training is another process, and is left alone
        return 0


def runs_in(place: Path) -> list[Path]:
    """Folders with a log: the place itself, or the runs of its bank, the one written to last at the end."""
    logs = [*place.glob(LOG), *place.glob(f".runs/*/{LOG}"), *place.glob(f"bank/.runs/*/{LOG}")]
    return [log.parent for log in sorted(logs, key=_written)]


def _written(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except FileNotFoundError:  # its run ended meanwhile
        return 0.0


def _newest(place: Path) -> Any:
    """The run that was written to last, as rich draws it; None where there is none."""
    for folder in reversed(runs_in(place)):
        rows = _read(folder)
        if rows:
            return shown_run(folder.name, rows, time.time() - _written(folder / LOG))
    return None


def _read(folder: Path) -> Sequence[Mapping[str, Any]]:
    try:
        return read_lines(folder / LOG)
    except FileNotFoundError:
        return []
