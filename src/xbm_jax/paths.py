"""Paths as users write them: in one place, for data, weights, chips, banks and the command line."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from xbm_jax.errors import DataError

__all__ = ["as_path", "cache_folder"]


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


def cache_folder(name: str) -> Path:
    """Where what can be made again is kept: ``$XDG_CACHE_HOME/xbm_jax/NAME``, or below ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME")  # relative ones do not count, says their specification
    return (Path(home) if home and os.path.isabs(home) else as_path("~/.cache")) / "xbm_jax" / name
