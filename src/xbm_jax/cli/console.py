"""What the commands share: how they print, and how they see early that they can write."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from xbm_jax.errors import OutputError
from xbm_jax.tasks import store

__all__ = ["say", "writable"]


def say(console: Console, text: str) -> None:
    """Print a line as it is: brackets in a path are no markup, and nothing but the terminal itself wraps it."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def writable(option: str, folder: Path) -> None:
    """Make ``folder``; raises OutputError, naming the option that asked for it, where it cannot be written."""
    try:
        store.checked_directory(folder)
    except OutputError as error:
        raise OutputError(option, str(folder), error.allowed) from error
