"""What a number was measured on, and whether the machine did anything else meanwhile."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from xbm_jax.report import run_context

__all__ = ["Watched", "machine"]

_RESTS = 0.5
"""Load average of the last minute up to which a machine was at rest before a run."""

_OTHERS = 0.1
"""Processors that others may have kept busy meanwhile, on average."""

_STAT = Path("/proc/stat")


@cache
def machine() -> dict[str, Any]:
    """Device, processors and versions."""
    context = run_context({}, seed=0)
    return {"machine": {**context["device"], "cpus": context["cpus"]}, "versions": context["versions"]}


class Watched:
    """The machine's load from now on: that of the last minute before, and what others than this process do.

    A run's own threads are in the load average after it. So where the system says how long its processors were busy,
    what is not this process's, or its finished children's, is others'; elsewhere the load may not be above the
    processors by more than a rest.
    """

    def __init__(self) -> None:
        self.before = _load()
        self._start = self._now()

    def seen(self) -> dict[str, Any]:
        """``{load_before, load_after, others, quiet}``; loads and others in processors, ``None`` where not known."""
        after, others, cpus = _load(), self._others(), machine()["machine"]["cpus"]
        rested = self.before is None or self.before <= _RESTS
        alone = others <= _OTHERS if others is not None else after is None or after <= cpus + _RESTS
        return {"load_before": self.before, "load_after": after, "others": others, "quiet": rested and alone}

    def again(self) -> Watched:
        """Watched from now on, as part of the same run: its load before stays."""
        self._start = self._now()
        return self

    def _now(self) -> tuple[float, float | None, float]:
        return time.perf_counter(), _busy_seconds(), sum(os.times()[:4])

    def _others(self) -> float | None:
        (began, busy, own), (now, busy_now, own_now) = self._start, self._now()
        if busy is None or busy_now is None or now - began < 0.1:  # the system counts in hundredths of a second
            return None
        return round(max(0.0, (busy_now - busy) - (own_now - own)) / (now - began), 3)


def _load() -> float | None:
    with suppress(OSError, AttributeError):  # no such thing on Windows
        return round(os.getloadavg()[0], 2)
    return None


def _busy_seconds() -> float | None:
    """Of all processors since the start, and what a host took from this machine; ``None`` where no file says so."""
    with suppress(OSError, ValueError, IndexError):
        user, nice, system, _, _, irq, softirq, steal = map(int, _STAT.read_text().split("\n")[0].split()[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return None
