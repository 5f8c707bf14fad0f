"""What the commands share: how they print, and how they see early that they can write."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from xbm_jax.errors import OutputError
from xbm_jax.storage import store

__all__ = ["Output", "complain", "flushed", "printable", "say", "writable"]

_LONGEST = 255
"""Bytes of a file's name, on every file system in use."""


class Output(Console):
    """Standard output; a reader that went away is an error for :func:`xbm_jax.cli.main`, as it is for ``print``."""

    def on_broken_pipe(self) -> None:
        """Rich's own would leave the program here, with its own exit code."""
        raise BrokenPipeError


def say(console: Console, text: str) -> None:
    """Print a line as it is: brackets and colons in a path are no markup, and only the terminal itself wraps it."""
    console.print(Text(text), soft_wrap=True)


def complain(text: str) -> None:
    """A line on standard error."""
    print(f"xbm: {text}", file=sys.stderr)


def printable() -> None:
    """Have what standard output and error cannot encode printed as escapes: no path may end a command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # None where there is no output, or another's
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def flushed() -> None:
    """See that all output has left: what a full disk or a closed pipe refuses is an error of the command."""
    if sys.stdout is not None:
        sys.stdout.flush()


def writable(option: str, folder: Path, file: str | None = None) -> None:
    """See that ``folder`` is there, or can be made, and be written (``file`` in it too); nothing on disk changes.

    Raises:
        OutputError: it cannot; names the option that asked for it.
    """
    try:
        whole, there = folder.resolve(), Path(os.path.abspath(folder))  # a dangling link is one, wherever it points
        if any(len(part.encode()) > _LONGEST for part in whole.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        while not _is_there(there):
            there = there.parent
        store.checked_directory(there)
    except OSError as error:
        raise OutputError(option, str(folder), f"a writable folder ({error.strerror})") from error
    except UnicodeEncodeError as error:
        raise OutputError(option, str(folder), "a path that is text in UTF-8") from error
    except OutputError as error:
        raise OutputError(option, str(folder), error.allowed) from error
    if file is not None and (whole / file).is_dir():
        raise OutputError(option, str(folder), f"a folder where {file} is no folder")
    if any(character in str(whole) for character in "[]*?"):  # as the store has it of folders that are there
        raise OutputError(option, str(folder), "a path without [ ] * ?")


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True
