"""Axes of small charts: where a value lies, and which values are labelled."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Axis", "axis_of", "short"]

_ROUND = (1, 2, 5, 10)
_TICKS = 5


@dataclass(frozen=True)
class Axis:
    """A linear or a logarithmic axis from ``low`` to ``high``; ``whole``: of counts, where nothing lies in between."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, from 0 at ``low`` to 1 at ``high``."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values within, about :data:`_TICKS` of them."""
        if self.log:
            return self._log_ticks()
        step = max(_round_up((self.high - self.low) / _TICKS), 1.0 if self.whole else 0.0)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _log_ticks(self) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        few = len(decades) <= 3
        stride = max(1, math.ceil(len(decades) / (_TICKS + 1)))
        found = [m * 10.0**d for d in decades if d % stride == 0 for m in ((1, 2, 5) if few else (1,))]
        return [value for value in found if self.low <= value * (1 + 1e-9) and value <= self.high * (1 + 1e-9)]


def axis_of(values: Iterable[float], log: bool = False) -> Axis:
    """The axis of some finite values, with room at both ends; a log axis wants all of them positive."""
    found = list(values)
    low, high = min(found), max(found)
    if log:
        return Axis(low / 1.6, high * 1.6, log=True)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    return Axis(low - room, high + room, whole=all(float(value).is_integer() for value in found))


def short(value: float) -> str:
    """A number in few letters: 12,500 as 12.5k, 3.2e-07 as 320n; what no prefix names as a power of ten."""
    if value == 0:
        return "0"
    if 1e-2 <= abs(value) < 1e4:
        return f"{value:.4g}"
    power = math.floor(math.log10(abs(value) * (1 + 1e-12)) / 3)
    prefix = {-5: "f", -4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}.get(power)
    return f"{value:.2e}" if prefix is None else f"{value / 10.0 ** (3 * power):.3g}{prefix}"


def _round_up(step: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in _ROUND if step <= m * power * (1 + 1e-9))
