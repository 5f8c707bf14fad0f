"""Frozen dataclasses (specs, devices, methods) to JSON and back, by class name.

A class is found among the subclasses of the public bases, so that a user's own device or rule, once imported, can be
read back; nothing is imported because a file says so. Names are all that a file holds: a user's class may not have one
of ours, and of two of a user's the one that was defined last (a notebook's cell, run again) is meant.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from xbm_jax.crossbar import Adc, Cell, ChannelOrder, Conv, CrossbarSpec, Curve, Device, Faults, Wires
from xbm_jax.crossbar.validate import left_out, unstorable
from xbm_jax.errors import BankError
from xbm_jax.masks import Alphabet, Estimator, Granularity, Head, Method, Rule

__all__ = ["decode", "encode"]

_SPECS: tuple[type, ...] = (Adc, Cell, ChannelOrder, Conv, CrossbarSpec, Curve, Device, Faults, Wires)
_METHODS: tuple[type, ...] = (Alphabet, Estimator, Granularity, Head, Method, Rule)


def encode(value: Any, field: str = "value") -> Any:
    """``value`` as JSON-like data: dataclasses become ``{"class": name, field: ...}``, tuples lists, inf ``"inf"``.

    A field marked ``UNLESS_DEFAULT`` is left out at its default: chips and banks are compared by this text, and those
    of before the field was there are still the same ones.

    Raises:
        BankError: something that cannot be stored, named below ``field``.
    """
    if found := unstorable(field, value):
        raise BankError(found, value, "dataclasses, numbers, strings and tuples: nothing else can be stored")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        _check_class(field, cls)
        parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if not left_out(value, f)}
        return {"class": cls.__name__, **{name: encode(part, f"{field}.{name}") for name, part in parts.items()}}
    if isinstance(value, (tuple, list)):
        return [encode(v, field) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"class": "float", "value": str(value)}
    return value


def decode(data: Any) -> Any:
    """Undo :func:`encode`.

    Raises:
        BankError: the data name a class that is not known here, or fields that it does not have.
    """
    if isinstance(data, list):
        return tuple(decode(v) for v in data)
    if not isinstance(data, dict):
        return data
    fields = {name: decode(v) for name, v in data.items() if name != "class"}
    name = data.get("class")
    if name == "float":
        return float(fields["value"])
    known = _known_classes()
    if name not in known:
        allowed = "a known class (import the module that defines yours first): " + ", ".join(known)
        raise BankError("class", name, allowed)
    try:
        return known[name](**fields)
    except TypeError as error:
        raise BankError(f"{name}", sorted(fields), f"the fields of {name} ({error})") from error


def _check_class(field: str, cls: type) -> None:
    """Raise unless the class's name will lead back to it."""
    named, found = f"{cls.__module__}.{cls.__name__}", _known_classes().get(cls.__name__)
    if found is None:
        raise BankError(field, named, "a class derived from " + ", ".join(c.__name__ for c in _SPECS + _METHODS))
    if _ours(found) and not _ours(cls):
        raise BankError(field, named, f"a class of another name: {cls.__name__} is one of the package's")


def _known_classes() -> dict[str, type]:
    found: dict[str, type] = {}
    pending = [*_SPECS, *_METHODS]
    while pending:
        cls = pending.pop()
        if cls.__name__ not in found or (_ours(cls) and not _ours(found[cls.__name__])):
            found[cls.__name__] = cls
        pending.extend(cls.__subclasses__())
    return dict(sorted(found.items()))


def _ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]
