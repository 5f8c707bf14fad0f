"""What every stored thing says of itself: the number of its form and the version of the package that wrote it.

A thing without a number was written before there were any: it has form 1. The number rises where what is stored changes
so that an older version would misread it, not with every version.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from xbm_jax.errors import BankError

__all__ = ["check_form", "stamp"]


def stamp(form: int) -> dict[str, Any]:
    """The form's number and this package's version, to be stored with a thing."""
    return {"format": form, "version": _version()}


def check_form(field: str, stored: dict[str, Any], newest: int) -> None:
    """Raise unless this version reads the form that ``stored`` names.

    Raises:
        BankError: a form that is newer than ``newest``, or no form at all; it names who wrote it.
    """
    form = stored.get("format", 1)
    if type(form) is not int or not 1 <= form <= newest:
        read = "1" if newest == 1 else f"1 to {newest}"
        writer = f"version {stored['version']}" if "version" in stored else "an unnamed version"
        allowed = f"{read}, what this version, {_version()}, reads; {writer} wrote this"
        raise BankError(f"{field}.format", form, allowed)


def _version() -> str:
    return metadata.version("xbm_jax")
