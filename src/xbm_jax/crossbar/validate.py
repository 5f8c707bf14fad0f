"""Checks that a specification's fields are possible; each failure names the field, the value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from xbm_jax.errors import SpecError

__all__ = ["check_choice", "check_int", "check_number", "unstorable"]


def check_int(field: str, value: Any, low: int, high: int) -> None:
    """Raise unless ``value`` is an integer (not a bool) with ``low <= value <= high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SpecError(field, value, f"an integer from {low} to {high}")


def check_number(
    field: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False, inf: bool = False
) -> None:
    """Raise unless ``value`` is a real number in [low, high] (above ``low`` if ``open_low``); finite unless ``inf``."""
    bounds = f"a {'' if inf else 'finite '}number {'above' if open_low else 'at least'} {low:g}"
    allowed = bounds + ("" if math.isinf(high) else f" and at most {high:g}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        raise SpecError(field, value, allowed)
    if (math.isinf(value) and not inf) or value > high or value < low or (open_low and value == low):
        raise SpecError(field, value, allowed)


def check_choice(field: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``; a string "False" is never taken for a bool."""
    if not isinstance(value, str) or value not in choices:
        raise SpecError(field, value, "one of " + ", ".join(repr(c) for c in choices))


def unstorable(field: str, value: Any) -> str | None:
    """The first part of ``value`` that no file can hold, a function say, by its name below ``field``; else ``None``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(f"{field}.{f.name}", getattr(value, f.name)) for f in dataclasses.fields(value)]
    elif isinstance(value, (tuple, list)):
        parts = [(f"{field}[{i}]", part) for i, part in enumerate(value)]
    else:
        return None if value is None or isinstance(value, (bool, int, float, str)) else field
    return next((found for name, part in parts if (found := unstorable(name, part))), None)
