"""One writer at a time, never a wait without end."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from xbm_jax.errors import OutputError
from xbm_jax.storage import lock
from xbm_jax.storage.lock import LOCK, locked


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
    wanted = r"lock = '.*\.xbm-lock': a lock that is free within 0\.1 s; another process is writing there"
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
