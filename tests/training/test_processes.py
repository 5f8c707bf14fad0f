"""Two processes that learn one task, are killed, and are carried on by a single one."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import xbm_jax as xbm
from tasks import tiny
from training import processes

SCRIPT = Path(processes.__file__)


def started(folder, process, count, port, *last):
    given = [sys.executable, str(SCRIPT), str(folder), *map(str, (process, count, port, *last))]
    source = {"PYTHONPATH": os.pathsep.join([str(Path(xbm.__file__).parents[1]), *sys.path])}
    return subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | source)


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def said(process, code):
    out, errors = process.communicate(timeout=280)
    assert process.returncode == code, errors[-3000:]
    lines = [line for line in out.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


def both(folder, *last, code=0):
    port = free_port()
    running = [started(folder, i, 2, port, *last) for i in range(2)]
    try:
        return [said(process, code) for process in running]
    finally:
        for process in running:
            process.kill()


@pytest.mark.timeout(600)
def test_two_processes_are_killed_and_one_carries_on(tmp_path):
    """Losses of all layouts are equal to rounding, mask bits are equal; the bank is one process's work."""
    alone = processes.said(processes.learned(None, None))
    assert both(tmp_path, 25, code=-signal.SIGKILL) == [{}, {}]
    saved = xbm.training.read_log(tmp_path / "run")
    assert max(row["step"] for row in saved) == 17 and not (tmp_path / "bank").exists()

    ended = said(started(tmp_path, 0, 1, 0), 0)
    assert ended["devices"] == processes.DEVICES
    np.testing.assert_allclose(ended["losses"], alone["losses"], rtol=2e-3)
    assert ended["bits"] == alone["bits"]
    task = xbm.MaskBank.open(tmp_path / "bank", tiny.chip("adc")).get("stripes")
    assert task.meta["history"][0]["loss"] == ended["losses"][0]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_end_as_one(tmp_path):
    one, other = both(tmp_path)
    assert one == other and one["devices"] == 2 * processes.DEVICES
    alone = processes.said(processes.learned(None, None))
    np.testing.assert_allclose(one["losses"], alone["losses"], rtol=2e-3)
    assert one["bits"] == alone["bits"]
    assert xbm.MaskBank.open(tmp_path / "bank", tiny.chip("adc")).names == ["stripes"]
    assert jax.process_count() == 1
