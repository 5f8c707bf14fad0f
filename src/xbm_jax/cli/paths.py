"""Paths on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from xbm_jax.errors import DataError
from xbm_jax.paths import as_path

__all__ = ["UserPath", "made_by", "typed_path"]


def typed_path(given: list[str]) -> Path:
    """A path as typed, its tilde expanded: no shell does so after an equals sign."""
    (text,) = given
    if not text:
        raise ValueError("an empty path; the folder where you are is .")
    try:
        return as_path(text)
    except DataError:
        raise ValueError(f"no user of this machine has the home folder of {text}") from None


def made_by(convert: Callable[[list[str]], Any], kind: type) -> tyro.constructors.PrimitiveConstructorSpec:
    """How tyro makes a ``kind`` of what was typed."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=convert,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


UserPath = Annotated[Path, made_by(typed_path, Path)]
"""A path as typed, its tilde expanded."""
