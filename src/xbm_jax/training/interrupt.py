"""Signals that ask to stop: Ctrl-C and SIGTERM, that always get through and let a training save first.

A library leaves signals alone; whoever owns the process asks for this with :func:`interruptible`. Python's garbage
collector calls JAX back, and what is raised there, KeyboardInterrupt too, is printed and dropped: a Ctrl-C of the wrong
millisecond would be lost. So the handler remembers it, and the next training step raises it again.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from xbm_jax.errors import Interrupted

__all__ = ["heed", "interruptible", "saving_first", "stop_asked"]

_USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
"""The signals, and the handlers of theirs that are nobody's."""


class _Handler:
    """The handler of both signals: raises at once, unless somebody saves first; the second time whoever does."""

    came: int | None = None
    saving = 0

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        again, self.came = self.came is not None, number
        if again or not self.saving:
            raise Interrupted(number)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM raise :class:`~xbm_jax.errors.Interrupted` within, after a save where there is one.

    A training with ``save=`` notes the first signal, ends its step, saves and then raises; a second signal raises at
    once, and what was saved before stands. Where somebody else handles or ignores a signal, or in another thread than
    the main one, nothing is changed.
    """
    ours = [number for number, usual in _USUAL.items() if signal.getsignal(number) is usual]
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    unraisable, handler = sys.unraisablehook, _Handler()
    for number in ours:
        signal.signal(number, handler)
    sys.unraisablehook = lambda lost: None if issubclass(lost.exc_type, KeyboardInterrupt) else unraisable(lost)
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        for number in ours:
            signal.signal(number, _USUAL[number])


@contextlib.contextmanager
def saving_first(folder: Path) -> Iterator[None]:
    """Have signals wait within for who calls :func:`heed`, and raise one that came too late for it at the end."""
    handler = _handler() if threading.current_thread() is threading.main_thread() else None
    if handler is None:
        yield
        return
    handler.saving += 1
    try:
        yield
    finally:
        handler.saving -= 1
    heed(folder)


def stop_asked() -> int:
    """The number of a signal that came and was not heeded yet; 0 if none did."""
    handler = _handler()
    return 0 if handler is None else handler.came or 0


def heed(folder: Path | None = None) -> None:
    """Raise :class:`~xbm_jax.errors.Interrupted` if a signal came; ``folder``: where all is saved by now."""
    handler = _handler()
    if handler is not None and handler.came is not None:
        number, handler.came = handler.came, None
        raise Interrupted(number, folder)


def _handler() -> _Handler | None:
    found = (signal.getsignal(number) for number in _USUAL)
    return next((handler for handler in found if isinstance(handler, _Handler)), None)
