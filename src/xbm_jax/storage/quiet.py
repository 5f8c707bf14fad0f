"""Calls of Orbax that fail with one sentence and leave nothing behind: no lines on the terminal, no work in flight.

Orbax reads and writes all arrays at once, each in a coroutine. When one fails it closes the event loop at once: the
others end later, in TensorStore's threads, and every one of them prints a traceback of a closed loop. Beside that Orbax
logs what it then raises. Here its loops finish what they began before they close, and its log is not printed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

__all__ = ["CallError", "quietly"]

_DRAIN_SECONDS = 30.0
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")
_ONE_AT_A_TIME = threading.RLock()  # what is replaced meanwhile is the whole process's


class CallError(Exception):
    """The call failed; the text says why in one line."""


def quietly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``function(*args, **kwargs)``, a function of Orbax.

    Raises:
        CallError: whatever kind of exception it raised; Orbax and TensorStore raise many.
    """
    with _silence():
        try:
            return function(*args, **kwargs)
        except Exception as error:
            reason = _reason(error)
        # Out here nothing holds Orbax's traceback and the coroutines in it, which complain when they are freed.
        gc.collect()
    raise CallError(reason)


@contextmanager
def _silence() -> Iterator[None]:
    logger = logging.getLogger("absl")
    # Where a loop runs already, Orbax makes its own by uvloop.
    makers: list[Any] = [asyncio, *filter(None, [sys.modules.get("uvloop")])]
    with _ONE_AT_A_TIME, warnings.catch_warnings(), ExitStack() as undo:
        warnings.simplefilter("ignore")  # Orbax warns of its own deprecations and of missing multi-host settings.
        logger.addFilter(_not_of_orbax)
        undo.callback(logger.removeFilter, _not_of_orbax)
        for module in makers:
            undo.callback(setattr, module, "new_event_loop", module.new_event_loop)
            module.new_event_loop = _draining_for_orbax(module.new_event_loop)
        yield


def _draining_for_orbax(make: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[], asyncio.AbstractEventLoop]:
    """``make``, whose loops finish their tasks before they close and print nothing, if it is Orbax that asks."""

    def new_event_loop() -> asyncio.AbstractEventLoop:
        loop = make()
        if sys._getframe(1).f_globals.get("__name__", "").startswith("orbax."):
            loop.set_exception_handler(lambda *_: None)
            loop.close = partial(_drain_and_close, loop, loop.close)
        return loop

    return new_event_loop


def _drain_and_close(loop: asyncio.AbstractEventLoop, close: Callable[[], None]) -> None:
    pending = set() if loop.is_closed() or loop.is_running() else asyncio.all_tasks(loop)
    if pending:
        loop.run_until_complete(asyncio.wait(pending, timeout=_DRAIN_SECONDS))
    close()


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return f"{os.sep}orbax{os.sep}" not in record.pathname


def _reason(error: Exception) -> str:
    """What the operating system says, if it was that; else the first line of the error."""
    code = _OS_ERROR.search(str(error))
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
