"""Every experiment runs in a tiny configuration and carries on where it was cut short."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from experiments import rows_and_bits
from experiments.tasks import local_task

import xbm_jax as xbm
from xbm_jax import report

TINY = rows_and_bits.Config(images=64, test_images=20, epochs=1, calibration_images=16)


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Rows are made up instead of trained; what was asked for is listed."""
    asked: list[tuple] = []

    def learn(config: Any, seed: int, rows: int, name: str, console: Any) -> report.Row:
        del config, console
        asked.append((seed, rows, name))
        bits = {"xbm": 281_600 // rows, "norm_only": 0, "piggyback": 267_696}[name]
        accuracy = {"xbm": 0.8 + seed / 100, "norm_only": 0.6, "piggyback": 0.85}[name]
        return report.Row("fashion_mnist", name, accuracy, 0.8, bits, 88_064, 20_800, 0, rows, 1.0, 100.0, seed)

    monkeypatch.setattr(rows_and_bits, "learn", learn)
    return asked


@pytest.mark.timeout(600)
def test_one_chip_in_earnest(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, out=tmp_path / "run", rows=(128,), ends=())
    (row,) = rows_and_bits.main(config)
    # ceil(K / 128) * N: 1 * 16 + 6 * 2 * 16 + 2 * 32 + 5 * 3 * 32 + 3 * 64 + 5 * 5 * 64
    assert (row.method, row.rows, row.mask_bits, row.cells_written) == ("xbm", 128, 2544, 0)
    rows, context = report.read_results(config.out / "results.json")
    assert rows == [row]
    assert context["config"]["images"] == 64 and context["seed"] == 0 and context["versions"]["jax"]
    assert rows_and_bits.calibrated_chip(config, 0, 128).calibrated
    assert (config.out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "figure.png" in (config.out / "REPORT.md").read_text()


def test_the_plan_has_every_row_once() -> None:
    planned = list(dataclasses.replace(TINY, seeds=(0, 1)).plan)
    wanted = {(s, r, "xbm") for s in (0, 1) for r in (32, 64, 128)}
    wanted |= {(s, 64, end) for s in (0, 1) for end in ("norm_only", "piggyback")}
    assert set(planned) == wanted and len(planned) == len(wanted)
    elsewhere = list(dataclasses.replace(TINY, rows=(32,), ends_at=128, ends=("norm_only",)).plan)
    assert elsewhere == [(0, 32, "xbm"), (0, 128, "norm_only")]


def test_a_run_cut_short_carries_on(tmp_path: Path, learned: list[tuple], monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(TINY, out=tmp_path)
    whole, honest = list(config.plan), rows_and_bits.learn

    def third_fails(*asked: Any) -> report.Row:
        if len(learned) == 2:
            raise KeyboardInterrupt
        return honest(*asked)

    monkeypatch.setattr(rows_and_bits, "learn", third_fails)
    with pytest.raises(KeyboardInterrupt):
        rows_and_bits.main(config)
    assert len(report.read_results(tmp_path / "results.json")[0]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]

    monkeypatch.setattr(rows_and_bits, "learn", honest)
    first = rows_and_bits.main(config)
    assert learned == whole  # none twice
    assert rows_and_bits.main(config) == first and learned == whole
    rows_and_bits.main(dataclasses.replace(config, seeds=(0, 1)))
    assert learned == whole + [(1, rows, name) for _, rows, name in whole]
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "figure.png", "REPORT.md"}


def test_rows_of_other_settings_are_not_mixed(tmp_path: Path, learned: list[tuple]) -> None:
    config = dataclasses.replace(TINY, out=tmp_path)
    rows_and_bits.main(config)
    before = (tmp_path / "results.json").read_bytes()
    with pytest.raises(xbm.OutputError, match=r"other images, training"):
        rows_and_bits.main(dataclasses.replace(config, images=128, epochs=2))
    assert (tmp_path / "results.json").read_bytes() == before
    assert len(learned) == len(list(config.plan))


def test_bad_options_show_before_any_training(tmp_path: Path, learned: list[tuple]) -> None:
    with pytest.raises(xbm.SpecError, match="rows"):
        rows_and_bits.Config(rows=(64, 4))
    with pytest.raises(xbm.DataError, match="seeds"):
        rows_and_bits.Config(seeds=())
    (tmp_path / "file").write_text("")
    with pytest.raises(xbm.OutputError):
        rows_and_bits.main(dataclasses.replace(TINY, out=tmp_path / "file"))
    assert learned == []


def test_tasks_of_the_comparisons(shared_data: Callable[[str], Path]) -> None:
    """Counts that the sets' makers state; drawers of Omniglot's test characters drew no training one."""
    folder = shared_data("omniglot8").parent
    shared_data("gtsrb43_32px")
    omniglot = local_task("omniglot8", folder, image_size=16)
    assert (len(omniglot.y_train), len(omniglot.y_test), omniglot.num_classes) == (3630, 1210, 8)
    assert omniglot.x_train.shape[1:] == (16, 16, 1)
    signs = local_task("gtsrb43_32px", folder)
    assert (len(signs.y_train), len(signs.y_test), signs.num_classes) == (2580, 860, 43)


def test_a_missing_task_is_named(tmp_path: Path) -> None:
    for name in ("omniglot8", "other"):
        with pytest.raises(xbm.DataError, match=name):
            local_task(name, tmp_path)
