"""Paths as users write them: in one place, for data, weights, chips, banks and the command line."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from xbm_jax.errors import DataError

__all__ = ["as_path"]


def as_path(path: str | PathLike[str]) -> Path:
    """The path, its tilde expanded: no shell does so within an argument.

    Raises:
        DataError: an empty path, or the home folder of nobody.
    """
    if not str(path):
        raise DataError("path", str(path), "a path; the folder where you are is .")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError("path", str(path), "the home folder of a user of this machine") from error
