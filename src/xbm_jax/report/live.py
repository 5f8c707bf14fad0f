"""A run's log as a terminal shows it: how far it is, what it reached, how its losses went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xbm_jax.report.names import as_text
from xbm_jax.report.web.tables import number
from xbm_jax.training.log import PLACES, learned_by

__all__ = ["shown_run", "sparkline", "time_left"]

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40
_ELSEWHERE = (*PLACES, "images_per_second")
_QUIET_SECONDS = 120.0

Rows = Sequence[Mapping[str, Any]]


def shown_run(name: str, rows: Rows, quiet: float = 0.0) -> Any:
    """A panel of a log's lines; ``quiet``: seconds since the last of them was written.

    Every number that the log has is shown, whatever its name: those of the newest step, those of the newest epoch, and
    how each went, newest at the right.
    """
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for cell in ("what", "now", "how it went"):
        table.add_column(cell, no_wrap=True)
    for what, now, went in _lines(rows):
        table.add_row(Text(as_text(what)), Text(now, justify="right"), Text(went))
    title = Text(as_text(learned_by(rows) or name))
    below = f"no new line for {_clock(quiet)}" if quiet > _QUIET_SECONDS else None
    return Panel(table, title=title, subtitle=below, expand=False)


def time_left(rows: Rows) -> float | None:
    """Seconds: steps that are left times those of a step since the newest process began; ``None`` where nobody knows.

    The first step, which compiles, counts where there is no other.
    """
    begun = max((i for i, row in enumerate(rows) if row.get("kind") == "begin"), default=-1)
    steps = [row for row in rows[begun + 1 :] if row.get("kind") == "step" and row.get("steps")]
    if not steps:
        return None
    first, last = steps[0], steps[-1]
    taken, seconds = last["step"] - first["step"], last["seconds"] - first["seconds"]
    if taken <= 0:
        since = rows[begun] if begun >= 0 else {"step": 0, "seconds": 0.0}
        taken, seconds = last["step"] - since["step"], last["seconds"] - since["seconds"]
    return max(0, last["steps"] - last["step"]) * seconds / taken if taken > 0 else None


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """The newest values as bars from the lowest to the highest of them, means of neighbours where there are many."""
    size = max(1, -(-len(values) // width))
    groups = [values[i : i + size] for i in range(0, len(values), size)]
    means = [sum(group) / len(group) for group in groups]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def _lines(rows: Rows) -> list[tuple[str, str, str]]:
    steps, epochs = ([row for row in rows if row.get("kind") == kind] for kind in ("step", "epoch"))
    last = max((*steps[-1:], *epochs[-1:]), key=lambda row: row["step"], default=None)
    if last is None:
        return [("begun", "no step yet", "")]
    total = next((row["steps"] for row in reversed(steps) if row.get("steps")), None)
    done = f"{last['step']:,}" if total is None else f"{last['step']:,} of {total:,}"
    left = time_left(rows)
    found = [
        ("step", done, "" if total is None else _bar(last["step"] / total)),
        ("epoch", str(last["epoch"] + 1), ""),
        ("time", _clock(last["seconds"]), "" if left is None else f"{_clock(left)} left"),
        ("images/s", f"{last.get('images_per_second', 0):,.0f}", ""),
    ]
    found += _numbers("step", steps) + _numbers("epoch", epochs)
    rates = (steps[-1].get("rates") or {}) if steps else {}
    return found + [(f"rate of {group}", f"{rate:.3g}", "") for group, rate in rates.items()]


def _numbers(kind: str, rows: Rows) -> list[tuple[str, str, str]]:
    """Of every number in the newest row: its value, and how it went."""
    names = [
        name
        for name, value in (rows[-1] if rows else {}).items()
        if name not in _ELSEWHERE and number(value) is not None
    ]
    found = []
    for name in names:
        values = [row[name] for row in rows if number(row.get(name)) is not None]
        found.append((f"{name.replace('_', ' ')} ({kind})", _value(name, values[-1]), sparkline(values)))
    return found


def _value(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if "accuracy" in name else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _bar(share: float, width: int = _WIDTH) -> str:
    full = round(min(1.0, share) * width)
    return "█" * full + "░" * (width - full)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
