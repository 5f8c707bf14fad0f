"""Ctrl-C that always gets through.

Python's garbage collector calls JAX back, and what is raised there, KeyboardInterrupt too, is printed and dropped: a
Ctrl-C of the wrong millisecond would be lost. So the handler remembers it, and the next training step raises it again.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

__all__ = ["heeding", "interruptible"]


class _CtrlC:
    """The handler of SIGINT while a command runs."""

    came = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Remember a Ctrl-C within; where somebody else handles or ignores SIGINT nothing is changed."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    unraisable = sys.unraisablehook
    signal.signal(signal.SIGINT, _CtrlC())
    sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else unraisable(lost)
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        signal.signal(signal.SIGINT, signal.default_int_handler)


def heeding(report: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """A ``report`` for training that raises KeyboardInterrupt where an earlier one was dropped."""

    def reported(seen: dict[str, Any]) -> None:
        handler = signal.getsignal(signal.SIGINT)
        if isinstance(handler, _CtrlC) and handler.came:
            raise KeyboardInterrupt
        report(seen)

    return reported
