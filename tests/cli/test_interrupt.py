"""Ctrl-C: the handler, a Ctrl-C that JAX drops, and the exit code of a real process."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading

import pytest

import xbm_jax.cli
from cli import small
from xbm_jax.cli.interrupt import heeding, interruptible


@pytest.fixture(autouse=True)
def python_handles_sigint():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_dropped_ctrl_c_is_raised_at_the_next_step():
    steps = []

    def press(_phase: str, _info: dict) -> None:
        signal.raise_signal(signal.SIGINT)

    with interruptible():
        report = heeding(steps.append)
        report({"step": 1})
        gc.callbacks.append(press)
        try:
            gc.collect()  # raises and drops it, without a word
        finally:
            gc.callbacks.remove(press)
        with pytest.raises(KeyboardInterrupt):
            report({"step": 2})
    assert steps == [{"step": 1}]
    heeding(steps.append)({"step": 3})
    assert steps[-1] == {"step": 3}


def test_ctrl_c_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert sys.unraisablehook is not None


def test_handlers_of_others_stay():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_leave_signals_alone():
    found = []

    def work() -> None:
        with interruptible():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_exit_code_of_a_call_and_of_a_process(monkeypatch, capsys):
    def interrupted(_command):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(xbm_jax.cli, "_run", interrupted)
    assert small.run("bank", "list", "b") == 130
    message = "xbm: interrupted; what is finished is kept, run the same command again to carry on"
    assert capsys.readouterr().err.strip() == message
    code = (
        "import atexit, signal, sys, xbm_jax.cli as cli\n"
        "atexit.register(print, 'the usual way out')\n"
        "cli._run = lambda _: (print('working'), signal.raise_signal(signal.SIGINT))\n"
        "sys.argv = ['xbm', 'bank', 'list', 'b']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "working\n", message)
