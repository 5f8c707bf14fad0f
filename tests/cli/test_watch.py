"""``xbm watch``: what a terminal shows of a run's log, whole or torn, finished or not yet begun."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli import small
from xbm_jax.cli.watch import runs_in
from xbm_jax.report.live import shown_run, sparkline, time_left
from xbm_jax.training.log import LOG, Log

RATES = {"masks": 1e-3, "head": 1e-2}


def step(number: int, seconds: float, **more: Any) -> dict[str, Any]:
    row = {"epoch": number // 10, "step": number, "steps": 40, "loss": 2.0 / number, "accuracy": number / 40}
    return {**row, "rates": RATES, "images_per_second": 320.0, "seconds": seconds, **more}


def write(folder: Path, *steps: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with Log(folder) as log:
        log.note("begin", {"step": 0, "epoch": 0, "seconds": 0.0, "learns": [{"task": "birds", "method": "xbm"}]})
        for row in steps:
            log.add("step", row)
    return folder


def text(found: Any) -> str:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(found)
        return console.export_text()


def test_a_run_is_shown_by_its_newest_step(tmp_path, capsys):
    write(tmp_path, step(10, 5.0, flips=12), step(20, 8.0, flips=3))
    assert small.run("watch", tmp_path) == 0  # no terminal: once
    shown = capsys.readouterr().out
    for words in ("birds xbm", "20 of 40", "0:06 left", "50.0 %", "flips (step)", "rate of masks", "0.001", "320"):
        assert words in shown


def test_the_run_written_to_last_is_shown(tmp_path, capsys):
    old, new = (write(tmp_path / "bank" / ".runs" / name, step(10, 5.0)) for name in ("old", "new"))
    os.utime(old / LOG, (1, 1))
    assert runs_in(tmp_path) == [old, new] and runs_in(tmp_path / "bank") == [old, new] and runs_in(new) == [new]
    assert small.run("watch", tmp_path / "bank", "--once") == 0
    assert "10 of 40" in capsys.readouterr().out


def test_nothing_to_watch(tmp_path, capsys):
    assert small.run("watch", tmp_path) == 1
    assert capsys.readouterr().out == f"Nothing is being learned in {tmp_path}.\n"
    assert small.run("watch", tmp_path / "none") == 2
    assert "watch = " in capsys.readouterr().err
    assert small.run("watch", tmp_path, "--seconds", "0") == 2
    assert "--seconds = 0.0: at least 0.1" in capsys.readouterr().err


def begin(**more: Any) -> dict[str, Any]:
    return {"kind": "begin", "step": 0, "seconds": 0.0, **more}


@pytest.mark.parametrize(
    ("rows", "seconds"),
    [
        ([], None),
        ([begin()], None),
        ([begin(), {"kind": "step", **step(10, 5.0)}], 15.0),
        ([begin(), {"kind": "step", **step(10, 105.0)}, {"kind": "step", **step(20, 110.0)}], 10.0),  # compiled first
        ([{"kind": "step", **step(10, 5.0)}, begin(step=10, seconds=5.0), {"kind": "step", **step(20, 25.0)}], 40.0),
        ([begin(), {"kind": "step", **step(40, 20.0)}], 0.0),
        ([begin(), {"kind": "step", "step": 3, "seconds": 1.0}], None),  # a log of before
    ],
)
def test_time_left(rows, seconds):
    assert time_left(rows) == (None if seconds is None else pytest.approx(seconds))


def test_a_row_without_most_of_it_and_a_quiet_run(tmp_path):
    rows = [
        begin(learns=[{"task": "[red]a\n", "method": "m"}]),
        {"kind": "epoch", "epoch": 0, "step": 5, "seconds": 3.0, "loss": 1.0, "val_x": "nan"},
    ]
    shown = text(shown_run("n", rows, quiet=500.0))
    assert "[red]a\\n m" in shown and "no new line for 8:20" in shown and "loss (epoch)" in shown
    assert "no step yet" in text(shown_run("name", [begin()]))


def test_bars_go_from_the_lowest_to_the_highest():
    assert sparkline([0, 1, 2, 7]) == "▁▂▃█" and sparkline([3.0, 3.0]) == "▁▁"
    assert len(sparkline(list(range(1000)), 40)) == 40
