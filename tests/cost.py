"""Which cases of a test run every time: one or two of a kind; the rest are slow tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest


def slow_but(quick: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases, all marked slow but the quick ones; of a mapping its values, chosen and shown by name."""
    kept = list(quick)
    named = list(cases.items()) if isinstance(cases, Mapping) else [(case, case) for case in cases]
    unknown = [name for name in kept if name not in [name for name, _ in named]]
    assert not unknown, f"quick cases that are none: {unknown}"
    return [_case(name, value, quick=name in kept) for name, value in named]


def _case(name: Any, value: Any, *, quick: bool) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    shown = "-".join(map(str, name)) if isinstance(name, tuple) else str(name)
    return pytest.param(*values, id=shown, marks=[] if quick else [pytest.mark.slow])
