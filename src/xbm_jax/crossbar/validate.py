"""Checks that a specification's fields are possible; each failure names the field, the value and what is allowed.

NumPy's integers and floats are numbers as Python's are, and are kept as Python's: a specification is hashed, compared
and stored by its values. Arrays (JAX's scalars among them), strings and truth values are no numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

from xbm_jax.errors import SpecError

__all__ = [
    "UNLESS_DEFAULT",
    "check_bool",
    "check_choice",
    "check_int",
    "check_number",
    "keep_int",
    "keep_number",
    "left_out",
    "unstorable",
]

UNLESS_DEFAULT = MappingProxyType({"stored": "unless default"})
"""Metadata of a field that files leave out at its default: those of before the field was there say the same then."""


def left_out(value: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether a dataclass's field is one that files leave out, as it stands."""
    return field.metadata == UNLESS_DEFAULT and getattr(value, field.name) == field.default


def check_int(field: str, value: Any, low: int, high: int) -> int:
    """``value`` as a plain integer; raises unless it is one (not a bool) with ``low <= value <= high``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise SpecError(field, value, f"an integer from {low} to {high}")
    return int(value)


def check_number(
    field: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False, inf: bool = False
) -> float:
    """``value`` as a plain number, an integer left one.

    Raises unless it is a real number in [low, high] (above ``low`` if ``open_low``); finite unless ``inf``.
    """
    bounds = f"a {'' if inf else 'finite '}number {'above' if open_low else 'at least'} {low:g}"
    allowed = bounds + ("" if math.isinf(high) else f" and at most {high:g}")
    number = _plain(value)
    if number is None or math.isnan(number):
        raise SpecError(field, value, allowed)
    if (math.isinf(number) and not inf) or number > high or number < low or (open_low and number == low):
        raise SpecError(field, value, allowed)
    return number


def keep_int(made: Any, name: str, low: int, high: int) -> None:
    """:func:`check_int` for a field of a frozen dataclass, which then holds the plain integer."""
    object.__setattr__(made, name, check_int(f"{type(made).__name__}.{name}", getattr(made, name), low, high))


def keep_number(made: Any, name: str, low: float = -math.inf, high: float = math.inf, **bounds: bool) -> None:
    """:func:`check_number` for a field of a frozen dataclass, which then holds the plain number."""
    number = check_number(f"{type(made).__name__}.{name}", getattr(made, name), low, high, **bounds)
    object.__setattr__(made, name, number)


def _plain(value: Any) -> float | None:
    """A real number as Python's, ``None`` for anything else, and for an integer that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return int(value) if isinstance(value, Integral) else number


def check_bool(name: str, value: Any) -> None:
    """Raise unless ``value`` is True or False; the string "False" is neither."""
    if not isinstance(value, bool):
        raise SpecError(name, value, "True or False")


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
