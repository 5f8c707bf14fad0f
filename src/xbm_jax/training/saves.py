"""Where and how often a training saves its state."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from xbm_jax.crossbar.validate import keep_int, keep_number
from xbm_jax.errors import DataError, OutputError
from xbm_jax.paths import as_path
from xbm_jax.storage import store

__all__ = ["Saves", "as_saves", "check_place"]


@dataclass(frozen=True)
class Saves:
    """Where a run is saved, how often, and what its log holds.

    It is saved after every epoch, and when a signal asks to stop (:func:`xbm_jax.training.interruptible`).

    Args:
        folder: of this run alone.
        every_seconds: within long epochs, as often.
        keep: how many saves are kept, the newest; a damaged one is passed over.
        log_steps: every so many steps a line of ``<folder>/log.jsonl``; a line an epoch in any case.
    """

    folder: str | PathLike[str]
    every_seconds: float = 60.0
    keep: int = 2
    log_steps: int = 50

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | PathLike):
            raise OutputError("Saves.folder", type(self.folder).__name__, "a path")
        try:
            object.__setattr__(self, "folder", as_path(self.folder))
        except DataError as error:
            raise OutputError("Saves.folder", str(self.folder), error.allowed) from None
        keep_number(self, "every_seconds", low=0.0)
        keep_int(self, "keep", 1, 1000)
        keep_int(self, "log_steps", 1, 1_000_000)

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)


def as_saves(save: Any) -> Saves | None:
    """What ``save=`` of :func:`~xbm_jax.training.adapt` means: a folder, :class:`Saves`, or nothing.

    Raises:
        OutputError: neither of these.
    """
    if save is None or isinstance(save, Saves):
        return save
    if not isinstance(save, str | PathLike):
        raise OutputError("save", type(save).__name__, "a path, Saves(path, ...), or None")
    return Saves(save)


def check_place(folder: Path) -> None:
    """Make the folder and see that it can be written.

    Raises:
        OutputError: it cannot.
    """
    try:
        store.checked_directory(folder)
    except OutputError as error:
        raise OutputError("save", str(folder), error.allowed) from error
