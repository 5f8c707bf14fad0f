from __future__ import annotations

import io
import os
import subprocess
import sys
import time

import jax.numpy as jnp
import pytest
from rich.console import Console

from xbm_jax.report import TrainingProgress

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def terminal(**options) -> Console:
    environment = {"TERM": "xterm", "COLUMNS": "100"}
    return Console(file=io.StringIO(), force_terminal=True, width=100, _environ=environment, **options)


def written(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


def seen(step: int, steps: int = 20) -> dict[str, float]:
    return {"epoch": 0, "step": step, "steps": steps, "loss": 1.5, "accuracy": 0.25, "images_per_second": 2345.0}


class Unready:
    """Stands for an array that is still being computed; counts who waits for it."""

    waited = 0

    def __float__(self) -> float:
        self.waited += 1
        return 0.5


@pytest.mark.parametrize("dumb", [False, True])
def test_nothing_is_written_off_a_terminal(dumb):
    console = Console(file=io.StringIO(), force_terminal=dumb, _environ={"TERM": "dumb"})
    value = Unready()
    with TrainingProgress(console) as progress:
        bar = progress.task("fashion_mnist: xbm", 2)
        bar.update(1, loss=value)
        bar.update(2, loss=value)
        bar.report(seen(3))
    assert written(console) == ""
    assert value.waited == 0


def test_bar_shows_what_is_learned_on_a_terminal():
    console = terminal(color_system=None)
    with TrainingProgress(console) as progress:
        bar = progress.task("[b]fashion: xbm", 20)
        bar.update(10, loss=jnp.float32(0.5), accuracy=0.813, images_per_second=1234.5)
        bar.update(20, loss=0.25)
    last = written(console).rsplit("[b]fashion: xbm", 1)[1]
    assert "loss  0.250" in last  # the last step is always drawn
    assert "acc  81.3 %" in last and "1,234 img/s" in last  # what is not given stays
    assert "━" in last
    assert "00:0" in last


def test_report_takes_the_total_from_the_training_loop():
    console = terminal(color_system=None)
    with TrainingProgress(console) as progress:
        bar = progress.task("quickdraw: norm_only")
        bar.report(seen(1, steps=2))
        bar.report(seen(2, steps=2))
        task = progress._progress.tasks[0]
        assert (task.completed, task.total, task.finished) == (2, 2, True)
    assert "loss  1.500  acc  25.0 %    2,345 img/s" in written(console)


def test_next_bar_takes_the_place_of_the_one_before():
    with TrainingProgress(terminal()) as progress:
        first = progress.task("first", 1)
        first.remove()
        first.remove()
        progress.task("second", 1)
        progress.task("third", 1)
        assert [task.description for task in progress._progress.tasks] == ["third"]


def test_steps_between_drawings_cost_nothing():
    value = Unready()
    with TrainingProgress(terminal()) as progress:
        bar = progress.task("fast", 1_000_000)
        start = time.monotonic()
        for step in range(1, 2_001):
            bar.update(step, loss=value)
        took = time.monotonic() - start
    assert 1 <= value.waited <= 2 + took * 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_terminal_is_restored(error):
    console = terminal()

    def learn():
        with TrainingProgress(console) as progress:
            progress.task("cut short", 10).update(1, loss=1.0)
            raise error

    with pytest.raises(error):
        learn()
    text = written(console)
    assert HIDE in text
    assert text.rindex(SHOW) > text.rindex(HIDE)
    before = len(text)
    time.sleep(0.25)
    assert len(written(console)) == before  # nothing goes on drawing


def test_default_console_is_standard_output(capsys):
    with TrainingProgress() as progress:
        progress.task("quiet", 1).update(1)
    assert capsys.readouterr().out == ""


def test_importing_report_brings_in_no_drawing():
    names = ("matplotlib", "rich.progress")  # rich itself comes with flax
    code = f"import sys, xbm_jax.report; print([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
