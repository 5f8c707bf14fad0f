"""Ctrl-C and SIGTERM on the command line: the exit code of a call and of a real process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

import xbm_jax.cli
from cli import small


@pytest.fixture(autouse=True)
def python_handles_sigint():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "exit_code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_exit_code_of_a_call_and_of_a_process(number, exit_code, monkeypatch, capsys):
    def interrupted(_command):
        signal.raise_signal(signal.Signals[number])

    monkeypatch.setattr(xbm_jax.cli, "_run", interrupted)
    assert small.run("bank", "list", "b") == exit_code
    message = "xbm: interrupted; what is finished is kept, run the same command again to carry on"
    assert capsys.readouterr().err.strip() == message
    code = (
        "import atexit, signal, sys, xbm_jax.cli as cli\n"
        "atexit.register(print, 'the usual way out')\n"
        f"cli._run = lambda _: (print('working'), signal.raise_signal(signal.{number}))\n"
        "sys.argv = ['xbm', 'bank', 'list', 'b']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (exit_code, "working\n", message)
