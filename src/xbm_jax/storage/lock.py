"""One writer at a time in a folder, among the processes of a machine or of a shared file system, and their threads.

The lock is the operating system's (``flock``): it goes when its holder ends, however that ends; its file says who that
is. Some file systems of clusters have no such locks. There ``.xbm-lock-owner`` beside it is the lock: whoever makes it
holds it and shows by its time that it is alive; whoever finds it dead takes it away.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xbm_jax.errors import OutputError

__all__ = ["LOCK", "OWNER", "SILENT_SECONDS", "WAIT_SECONDS", "locked"]

LOCK = ".xbm-lock"
"""The file that is locked. It stays: whoever removed it would let in two who hold locks of two files of that name."""

OWNER = ".xbm-lock-owner"
"""The file that is the lock where the file system has none."""

WAIT_SECONDS = 60.0
"""How long a writer waits for another before it gives up."""

SILENT_SECONDS = 20.0
"""How long the owner of a file may show no life before it counts as dead. Alive, it shows it five times as often."""

_POLL_SECONDS = 0.02
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_TAKING = ".xbm-lock-taking"


@contextmanager
def locked(folder: str | Path, wait_seconds: float | None = None) -> Iterator[None]:
    """Hold the lock of ``folder``, which must be there.

    Not for a thread that holds it already: it would wait for itself.

    Raises:
        OutputError: the lock cannot be had, or another writer, who is named, holds it for all of
            ``wait_seconds``, by default :data:`WAIT_SECONDS`.
    """
    path, wait_seconds = Path(folder) / LOCK, WAIT_SECONDS if wait_seconds is None else wait_seconds
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OutputError("lock", str(path), f"a file that can be written ({error.strerror})") from error
    try:
        if not _acquired(descriptor, path, wait_seconds):
            with _owned(path.with_name(OWNER), wait_seconds):
                yield
            return
        try:
            _sign(descriptor)
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process forked meanwhile has the descriptor too
    finally:
        os.close(descriptor)


def _acquired(descriptor: int, path: Path, wait_seconds: float) -> bool:
    """Wait for the system's lock; False where the file system has none."""
    until = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            _give_up_after(until, path, wait_seconds)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise OutputError("lock", str(path), f"a file system that has locks ({error.strerror})") from error
        time.sleep(_POLL_SECONDS)


@contextmanager
def _owned(path: Path, wait_seconds: float) -> Iterator[None]:
    """Hold a lock that is a file of one's own."""
    until, watch, ended = time.monotonic() + wait_seconds, _Watch(path), threading.Event()
    while not _made(path):
        if watch.dead():
            _take_from_the_dead(path, watch.owner)
            continue
        _give_up_after(until, path, wait_seconds)
        time.sleep(_POLL_SECONDS)
    pulse = threading.Thread(target=_show_life, args=(path, ended), daemon=True)
    pulse.start()
    try:
        yield
    finally:
        ended.set()
        pulse.join()
        path.unlink(missing_ok=True)


class _Watch:
    """Whether the owner of a file is dead: a process of this machine that has ended, or silent for too long."""

    def __init__(self, path: Path) -> None:
        self.path, self.owner, self._seen, self._since = path, "", 0, time.monotonic()

    def dead(self) -> bool:
        try:
            owner, seen = self.path.read_text(encoding="utf-8"), self.path.stat().st_mtime_ns
        except OSError:
            return False  # it has just gone
        if (owner, seen) != (self.owner, self._seen):
            self.owner, self._seen, self._since = owner, seen, time.monotonic()
        named = _parsed(owner)
        if named.get("host") == socket.gethostname() and not _runs(named.get("pid")):
            return True
        return time.monotonic() - self._since > SILENT_SECONDS  # by this machine's clock: others' may differ


def _made(path: Path) -> bool:
    """Whether the file was made just now, by this call."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError("lock", str(path), f"a file that can be written ({error.strerror})") from error
    try:
        _sign(descriptor)
    finally:
        os.close(descriptor)
    return True


def _take_from_the_dead(path: Path, owner: str) -> None:
    """Remove the file of a dead owner, if it still is that one's: one process at a time looks and removes."""
    taking = path.with_name(_TAKING)
    try:
        taking.mkdir()
    except OSError:
        time.sleep(_POLL_SECONDS)
        with suppress(OSError):
            if time.time() - taking.stat().st_mtime > SILENT_SECONDS:  # it was killed within these few lines
                taking.rmdir()
        return
    try:
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == owner:
                path.unlink()
    finally:
        with suppress(OSError):
            taking.rmdir()


def _show_life(path: Path, ended: threading.Event) -> None:
    while not ended.wait(SILENT_SECONDS / 5):
        with suppress(OSError):
            os.utime(path)


def _sign(descriptor: int) -> None:
    """Say in the file who holds it; a file that does not take it is a lock all the same."""
    command = " ".join(sys.argv)[:200] or sys.executable
    who = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({**who, "command": command, "token": uuid.uuid4().hex}).encode(), 0)


def _give_up_after(until: float, path: Path, wait_seconds: float) -> None:
    if time.monotonic() > until:
        allowed = f"a lock that is free within {wait_seconds:g} s; {_holder(path)} is writing there"
        raise OutputError("lock", str(path), allowed)


def _holder(path: Path) -> str:
    try:
        named = _parsed(path.read_text(encoding="utf-8"))
    except OSError:
        named = {}
    if not named:
        return "another process"
    return "process {pid} of {host}, since {since} ({command}),".format_map({k: named.get(k, "?") for k in _SAID})


_SAID = ("pid", "host", "since", "command")


def _parsed(text: str) -> dict[str, Any]:
    try:
        named = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return named if isinstance(named, dict) else {}


def _runs(pid: Any) -> bool:
    """Whether a process of this machine is alive; if that cannot be known, it is."""
    if type(pid) is not int or pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
