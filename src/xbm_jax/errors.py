"""Errors that a user can act on: each names the field, the value it got and what is allowed.

All derive from :class:`XbmError`, itself a ``ValueError``, so that ``except ValueError`` keeps working.
"""

from __future__ import annotations

import signal
import sys
import warnings
from pathlib import Path
from typing import Any

__all__ = [
    "BankError",
    "DataError",
    "Interrupted",
    "MethodError",
    "ModelError",
    "OutputError",
    "SpecError",
    "TrainingError",
    "WeightsError",
    "XbmError",
    "warn",
]


class XbmError(ValueError):
    """A wrong input; ``str(error)`` reads ``field = value: what is allowed``."""

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(f"{field} = {_short(value)}: {allowed}")


class SpecError(XbmError):
    """A crossbar specification that no chip can have."""


class ModelError(XbmError):
    """An unknown backbone, or one that does not fit what is asked of it."""


class WeightsError(XbmError):
    """Pretrained weights that do not fit the backbone; lists every mismatch at once."""


class MethodError(XbmError):
    """An unknown adaption method or an option that it does not have."""


class DataError(XbmError):
    """Images or labels that cannot be learned from."""


class BankError(XbmError):
    """A mask bank, or a task, that is damaged, incomplete or belongs to another chip."""


class TrainingError(XbmError):
    """Training that cannot go on: a loss that is no number any more.

    ``state``: of the run as it was after the last epoch that went well, where there is one. ``run``, ``step``: which
    step of which run gave such a loss, where one did.
    """

    state: Any = None
    run: Any = None
    step: int | None = None


class OutputError(XbmError):
    """A place on disk that cannot be written."""


class Interrupted(KeyboardInterrupt):
    """A signal asked a training to stop; where there is a ``folder`` all of it is saved there.

    No :class:`XbmError`, and no ``Exception`` either: nothing that mends errors may swallow it.

    Attributes:
        number: the signal's.
        folder: where the same call carries on from; ``None`` where nothing was to be saved.
    """

    def __init__(self, number: int, folder: Path | None = None) -> None:
        self.number, self.folder = number, folder
        saved = "" if folder is None else f"; all of it is saved in {folder}, the same call carries on"
        super().__init__(f"stopped by {signal.Signals(number).name}{saved}")

    @property
    def exit_code(self) -> int:
        """What a program that stops by it leaves with, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


_PACKAGE = str(Path(__file__).parent)


def warn(text: str) -> None:
    """A ``UserWarning`` at the line outside of the package that led to it, however deep within it was found."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=level + 1)


def _short(value: Any, limit: int = 200) -> str:
    """``repr(value)``, cut to ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
