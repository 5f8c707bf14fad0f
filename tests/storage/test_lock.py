"""One writer at a time, never a wait without end."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from xbm_jax.errors import OutputError
from xbm_jax.storage import lock
from xbm_jax.storage.lock import LOCK, OWNER, locked


def test_threads_take_turns(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(5):
            with locked(tmp_path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert most == [1] * 15
    assert [p.name for p in tmp_path.iterdir()] == [LOCK]


def test_a_lock_that_is_held_too_long_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.1)
    wanted = r"lock = '.*\.xbm-lock': a lock that is free within 0\.1 s; process \d+ of .* is writing there"
    with locked(tmp_path), pytest.raises(OutputError, match=wanted), locked(tmp_path):
        pytest.fail("two hold it")
    with locked(tmp_path):
        pass


HOLD = """
import fcntl, os, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_the_lock_goes_with_a_holder_that_is_killed(tmp_path, monkeypatch):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / LOCK)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        threading.Timer(0.2, os.kill, (holder.pid, signal.SIGKILL)).start()
        with locked(tmp_path):
            assert holder.wait() == -signal.SIGKILL


def test_a_failure_within_lets_go(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        raise KeyboardInterrupt
    with locked(tmp_path):
        pass


def test_a_lock_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / LOCK).mkdir()
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(OutputError, match=r"lock = .*a file that can be written"), locked(folder):
            pass


HELD = """
import sys, time
from xbm_jax.storage.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def test_who_holds_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.1)
    holder = subprocess.Popen([sys.executable, "-c", HELD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(OutputError, match=rf"process {holder.pid} of .*, since \d{{4}}-.* is writing"),
            locked(tmp_path),
        ):
            pytest.fail("two hold it")
        holder.kill()
    with locked(tmp_path):  # what the dead one wrote into the file holds nobody off
        pass
    assert (tmp_path / LOCK).read_text() == ""


# ---------------------------------------------------------------------------------------------------------------------
# A file system without locks


@pytest.fixture
def without_locks(monkeypatch):
    def flock(*_args):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", flock)


def test_a_file_is_the_lock_where_the_system_has_none(tmp_path, monkeypatch, without_locks):
    test_threads_take_turns(tmp_path)
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.1)
    wanted = rf"{OWNER}.*process {os.getpid()} of "
    with locked(tmp_path), pytest.raises(OutputError, match=wanted), locked(tmp_path):
        pytest.fail("two hold it")
    assert not (tmp_path / OWNER).exists()


def test_a_dead_owner_of_this_machine_is_followed_at_once(tmp_path, without_locks):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / OWNER).write_text(json.dumps({"host": socket.gethostname(), "pid": gone.pid}))
    began = time.monotonic()
    with locked(tmp_path):
        assert json.loads((tmp_path / OWNER).read_text())["pid"] == os.getpid()
    assert time.monotonic() - began < 5


def test_a_silent_owner_elsewhere_is_followed_and_a_living_one_is_not(tmp_path, monkeypatch, without_locks):
    monkeypatch.setattr(lock, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(lock, "WAIT_SECONDS", 1.2)
    owner = tmp_path / OWNER
    owner.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    ended = threading.Event()
    alive = threading.Thread(target=lock._show_life, args=(owner, ended))
    alive.start()
    with pytest.raises(OutputError, match="process 1 of elsewhere"), locked(tmp_path):
        pytest.fail("a living one was taken for dead")
    ended.set()
    alive.join()
    with locked(tmp_path):
        assert json.loads(owner.read_text())["pid"] == os.getpid()


def test_a_lock_of_files_is_taken_once_by_many(tmp_path, monkeypatch, without_locks):
    (tmp_path / OWNER).write_text("")  # of nobody that can be named: silent
    monkeypatch.setattr(lock, "SILENT_SECONDS", 0.2)
    test_threads_take_turns(tmp_path)
