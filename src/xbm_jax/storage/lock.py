"""One writer at a time in a folder, among the processes of a machine and the threads of a process."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xbm_jax.errors import OutputError

__all__ = ["LOCK", "WAIT_SECONDS", "locked"]

LOCK = ".xbm-lock"
"""The file that is locked. It stays: whoever removed it would let in two who hold locks of two files of that name."""

WAIT_SECONDS = 60.0
"""How long a writer waits for another before it gives up."""

_POLL_SECONDS = 0.02


@contextmanager
def locked(folder: str | Path, wait_seconds: float | None = None) -> Iterator[None]:
    """Hold the lock of ``folder``, which must be there. It goes when its holder ends, however that ends.

    Not for a thread that holds it already: it would wait for itself.

    Raises:
        OutputError: the lock cannot be had, or another writer holds it for all of ``wait_seconds``, by default
            :data:`WAIT_SECONDS`.
    """
    path = Path(folder) / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OutputError("lock", str(path), f"a file that can be written ({error.strerror})") from error
    try:
        _acquire(descriptor, path, WAIT_SECONDS if wait_seconds is None else wait_seconds)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process forked meanwhile has the descriptor too
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, wait_seconds: float) -> None:
    until = time.monotonic() + wait_seconds
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                allowed = f"a lock that is free within {wait_seconds:g} s; another process is writing there"
                raise OutputError("lock", str(path), allowed) from error
        except OSError as error:
            raise OutputError("lock", str(path), f"a file system that has locks ({error.strerror})") from error
        time.sleep(_POLL_SECONDS)
