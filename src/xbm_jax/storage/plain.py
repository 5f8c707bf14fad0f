"""Any value as plain JSON, one way: to say what something was made with, and to see whether two are the same."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

__all__ = ["differences", "plain"]

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def plain(value: Any) -> Any:
    """JSON values: a dataclass is its class name and fields, what JSON has no word for is text.

    Functions are their names: two of one name are the same. An object's address is no part of its text.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case np.generic():
            return plain(value.item())
        case np.ndarray() | jax.Array():
            return plain(np.asarray(value).tolist())
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case set() | frozenset():
            return sorted((plain(item) for item in value), key=str)
        case functools.partial():
            return {"partial": plain(value.func), "args": plain(value.args), "options": plain(value.keywords)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    return value.__qualname__ if hasattr(value, "__qualname__") else _ADDRESS.sub("", str(value))


def differences(one: Any, other: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Path, value and other value of every place where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = [*one, *(name for name in other if name not in one)]
        below = [differences(one.get(n), other.get(n), f"{path}.{n}" if path else n) for n in names]
        return [found for each in below for found in each]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        below = [differences(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(one, other, strict=True))]
        return [found for each in below for found in each]
    return [] if one == other else [(path, one, other)]
