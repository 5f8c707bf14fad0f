"""Where a training's numbers go: stand-ins for the two libraries, and JAX's own profiler."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from xbm_jax.errors import OutputError, SpecError
from xbm_jax.report import Outlet, all_of, profiled, to_tensorboard, to_wandb
from xbm_jax.training import Recipe, adapt

STEPS = [
    {"epoch": 0, "step": n, "steps": 6, "loss": 1 / n, "accuracy": n / 8, "images_per_second": 5.0} for n in range(1, 7)
]
EPOCH = {"epoch": 0, "step": 6, "loss": 0.5, "val_accuracy": 0.25, "images_per_second": 5.0, "seconds": 1.0, "each": []}


class Heard(Outlet):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def __call__(self, row: dict[str, Any]) -> None:
        self.told.append(row["step"])

    def epoch(self, row: dict[str, Any]) -> None:
        self.told.append(row)

    def close(self) -> None:
        self.told.append("closed")


def fed(outlet: Outlet, steps: list[dict[str, Any]] = STEPS) -> None:
    with outlet:
        for row in steps:
            outlet(row)
        outlet.epoch(EPOCH)


def test_all_are_told_and_closed_and_a_function_is_one_too() -> None:
    heard, seen = Heard(), []
    fed(all_of(heard, seen.append))
    assert heard.told == [1, 2, 3, 4, 5, 6, EPOCH, "closed"]
    assert seen == STEPS
    with Outlet() as silent:
        silent(STEPS[0])
        silent.epoch(EPOCH)


def test_tensorboard_gets_points_from_the_step_that_is_carried_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            points.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            points.append((name, value, step))

        def close(self) -> None:
            points.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=SummaryWriter))
    fed(to_tensorboard("events", every=4), STEPS[3:])
    assert points == [
        ("events", 4),
        *[("train/loss", 0.25, 4), ("train/accuracy", 0.5, 4), ("train/images_per_second", 5.0, 4)],
        *[("train/loss", 1 / 6, 6), ("train/accuracy", 0.75, 6), ("train/images_per_second", 5.0, 6)],
        *[("epoch/loss", 0.5, 6), ("epoch/val_accuracy", 0.25, 6), ("epoch/images_per_second", 5.0, 6)],
        "closed",
    ]


def test_tensorboard_itself_reads_no_other_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    fed(to_tensorboard(tmp_path))
    (events,) = tmp_path.iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content and b"epoch/val_accuracy" in content


def test_wandb_gets_points(monkeypatch: pytest.MonkeyPatch) -> None:
    points: list[Any] = []
    run = SimpleNamespace(log=lambda row, step: points.append((step, row)), finish=lambda: points.append("finished"))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **given: points.append(given) or run))
    fed(to_wandb(every=3, project="p", id="x"))
    assert points[0] == {"project": "p", "id": "x"} and points[-1] == "finished"
    assert [step for step, _ in points[1:-1]] == [3, 6, 6]
    assert points[1][1] == {"train/loss": 1 / 3, "train/accuracy": 0.375, "train/images_per_second": 5.0}


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: to_tensorboard("x"),
            OutputError,
            r"log = 'tensorboard': an installed library: .*\[tensorboard\]",
        ),
        (lambda: to_wandb(), OutputError, r"log = 'wandb': an installed library: `pip install 'xbm_jax\[wandb\]'`"),
        (lambda: profiled("x", first=1), SpecError, "first = 1: an integer from 2"),
        (lambda: profiled("x", first=5, last=4), SpecError, "last = 4: an integer from 5"),
    ],
)
def test_what_is_not_there_is_named(make, kind, message, monkeypatch) -> None:
    for name in ("tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(kind, match=message):
        make()


def test_every_is_a_number_of_steps(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace())
    with pytest.raises(SpecError, match="every = 0: an integer from 1"):
        to_tensorboard("x", every=0)


def test_steps_two_to_seven_are_traced(monkeypatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    with profiled("trace") as outlet:
        for step in range(101, 120):  # a run that carries on
            calls.append(step)
            outlet({"step": step, "steps": 200})
    assert calls[:3] == [101, "trace", 102] and calls.index("stop") == calls.index(107) + 1
    assert calls.count("stop") == calls.count("trace") == 1
    with profiled("trace") as outlet:
        outlet({"step": 1, "steps": 1})
    assert calls[-2:] == ["trace", "stop"]  # however few there are


@pytest.mark.slow
def test_a_trace_of_a_training_is_on_disk(tmp_path: Path) -> None:
    from tasks import tiny

    with profiled(tmp_path) as outlet:
        config, key = Recipe(epochs=1, batch_size=16), jax.random.key(0)
        adapt(tiny.chip("ideal"), tiny.stripes(), method=tiny.METHODS["xbm"], key=key, config=config, report=outlet)
    assert list(tmp_path.rglob("*.xplane.pb"))
