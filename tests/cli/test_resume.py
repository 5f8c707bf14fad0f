"""``xbm adapt`` that is stopped within a task, and what else it can be told of a run."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from cli import small
from tasks import tiny
from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.cli import commands
from xbm_jax.storage.lock import locked
from xbm_jax.training import adapt, read_log


@pytest.fixture
def on_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """``xbm adapt`` of a small task with the small backbone; its exit code."""
    small.register(monkeypatch)
    task, weights = small.write_npz(tmp_path / "halves.npz"), small.write_weights(tmp_path / "w.npz")
    usual = ("--task", f"npz:{task}", "--model", "tiny", "--weights", weights, "--batch-size", "16", "--epochs", "3")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return lambda *more, bank="bank": small.run("adapt", *usual, "--bank", tmp_path / bank, *more)


def stopped_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> list[int]:
    """A signal comes at a step; lists the steps that are taken."""
    steps: list[int] = []

    def watched(*args: Any, report: Any, **options: Any) -> Any:
        def seen(row: dict[str, Any]) -> None:
            steps.append(row["step"])
            report(row)
            if row["step"] == step:
                signal.raise_signal(number)

        return adapt(*args, report=seen, **options)

    monkeypatch.setattr(commands, "adapt", watched)
    return steps


def task_in(bank: Path) -> Any:
    return MaskBank.open(bank, load_chip(bank / "chip")).get("halves")


def test_the_same_command_carries_on_within_a_task(on_small, tmp_path, capsys, monkeypatch):
    bank = tmp_path / "bank"
    with monkeypatch.context() as patch:
        steps = stopped_at(patch, 3)
        assert on_small() == 143
        assert capsys.readouterr().err.strip().startswith("xbm: interrupted; what is finished is kept, run the same")
        assert on_small("--epochs", "2") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(
            f"xbm: --bank = '{bank}': --restart, to begin it anew (save = '{bank}/.runs/halves': a new"
        )
        assert line.endswith("the run in it has recipe.epochs 3, not 2)")
        assert steps == [1, 2, 3, 4]  # what is under way is finished
        steps = stopped_at(patch, 5, signal.SIGINT)
        assert on_small() == 130 and steps == [5, 6]
        steps = stopped_at(patch, 0)
        assert on_small("--log", "jsonl") == 0 and steps == []
    assert not (bank / ".runs").exists()
    log = [json.loads(line) for line in (bank / "logs" / "halves.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log if row["kind"] == "epoch"] == [0, 1, 2]
    assert on_small(bank="whole") == 0
    tiny.assert_same_bits(task_in(bank), task_in(tmp_path / "whole"))


def test_a_run_can_be_begun_anew_and_traced(on_small, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_at(patch, 3)
        assert on_small() == 143
        assert read_log(tmp_path / "bank" / ".runs" / "halves")[-1]["kind"] == "epoch"
        steps, traced = stopped_at(patch, 0), []
        patch.setattr(jax.profiler, "start_trace", traced.append)
        patch.setattr(jax.profiler, "stop_trace", lambda: traced.append("stopped"))
        assert on_small("--restart", "--epochs", "2", "--profile", tmp_path / "trace") == 0
    assert steps == [1, 2, 3, 4] and traced == [str(tmp_path / "trace"), "stopped"]
    assert task_in(tmp_path / "bank").meta["epochs"] == 2


def test_what_another_process_learns_is_refused_by_name(on_small, tmp_path, capsys):
    run = tmp_path / "bank" / ".runs" / "halves"
    run.mkdir(parents=True)
    with locked(run):
        for more in ((), ("--restart",)):
            assert on_small(*more) == 2
            assert "a folder that no other process learns in" in capsys.readouterr().err
    assert on_small("--epochs", "1") == 0


@pytest.mark.parametrize("outlet", ["tensorboard", "wandb"])
def test_other_logs_are_opened_and_closed(outlet, on_small, tmp_path, monkeypatch):
    said: list[Any] = []

    def opened(*args: Any, **options: Any) -> Any:
        said.append((args, options))
        return SimpleNamespace(
            add_scalar=lambda *point: said.append(point),
            log=lambda row, step: said.append(row),
            close=lambda: said.append("closed"),
            finish=lambda: said.append("closed"),
        )

    monkeypatch.setattr(commands, "adapt", small.made_up)
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=opened))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=opened))
    assert on_small("--log", outlet, "--no-compact") == 0
    # Without a step TensorBoard has nothing to write.
    assert said == {"tensorboard": [], "wandb": [((), {"project": "xbm_jax", "name": "halves"}), "closed"]}[outlet]


def test_a_log_without_its_library_is_named_before_the_first_step(on_small, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(commands, "adapt", None)
    assert on_small("--log", "wandb") == 2
    assert "xbm: log = 'wandb': an installed library: `pip install 'xbm_jax[wandb]'`" in capsys.readouterr().err
