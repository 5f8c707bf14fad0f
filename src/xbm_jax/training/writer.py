"""A thread that writes what it is given while its owner goes on; of what waits only the newest is written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar

__all__ = ["Writer"]

_T = TypeVar("_T")


class Writer(Generic[_T]):
    """Writes one value after another; what fails is raised by the next call of its owner, and nothing is written after.

    A context manager: at the end it waits for what is still to be written, also when it is left by an exception.
    """

    def __init__(self, write: Callable[[_T], None]) -> None:
        self._write = write
        self._next: list[_T] = []
        self._busy = self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        # A daemon: whoever leaves at once, by a second Ctrl-C, waits for nothing, and a save is whole or not at all.
        self._thread = threading.Thread(target=self._work, name="xbm-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()
        if kind is None:
            self.check()

    def put(self, value: _T) -> None:
        """Have a value written, in place of one that still waits."""
        self.check()
        with self._changed:
            self._next = [value]
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Wait until all is written, and raise what went wrong."""
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or not (self._next or self._busy))
        self.check()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next or self._ended)
                if not self._next:
                    return
                value, self._busy = self._next.pop(), True
            try:
                self._write(value)
            except BaseException as error:  # raised where somebody sees it
                self._error = error
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                if self._error is not None:
                    return
