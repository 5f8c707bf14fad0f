"""Every experiment runs in a tiny configuration and carries on where it was cut short."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import chip_sweeps, rows_and_bits, search_designs
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
@pytest.mark.slow
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


# ---------------------------------------------------------------------------------------------------------------------
# chip_sweeps


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """Noise in ten classes: an .npz of the right kind."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "test"):
        arrays[f"x_{split}"] = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
        arrays[f"y_{split}"] = np.arange(20) % 10
    np.savez(tmp_path / "small.npz", **arrays)
    return tmp_path / "small.npz"


def sweep_config(data: Path, out: Path, *sweeps: Any) -> chip_sweeps.Config:
    counts = {"images": 20, "serial_images": 10, "chip_images": 10, "chips": 2, "few_chips": 2}
    return chip_sweeps.Config(data, out, sweeps, calibration_images=10, **counts)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_sweep_in_earnest(small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A point of each kind: the float network, ideal cells on given ranges, and, slower to compile, a population."""
    config, asked = sweep_config(small_file, tmp_path / "docs", "sigma"), []
    first = list(chip_sweeps.sigma(config))[:count]
    monkeypatch.setattr(chip_sweeps, "points", lambda config: iter(first))
    records = chip_sweeps.main(config)
    kinds = [("float network", 0, 0, 10), ("of g_max", 0, 1, 10), ("of g_max", 0.5, 2, 10)]
    assert [(r["series"], r["x"], r["chips"], r["images"]) for r in records] == kinds[:count]
    assert [r["std"] is None for r in records] == [True, True, False][:count]
    assert all(0 <= r["mean"] <= 1 for r in records)
    assert (config.out / "figures" / "sigma.png").read_bytes().startswith(b"\x89PNG")
    assert (config.out / "tables" / "sigma.md").read_text() == chip_sweeps.table("sigma", records)
    content = json.loads((config.out / "chip_sweeps.json").read_text())
    assert content["points"] == records and content["context"]["config"]["seed"] == 0
    monkeypatch.setattr(chip_sweeps, "measure", lambda *a: asked.append(a[2]))
    assert chip_sweeps.main(config) == records and asked == []  # carried on: nothing is measured twice


def test_every_sweep_has_its_points_once(small_file: Path, tmp_path: Path) -> None:
    config = sweep_config(small_file, tmp_path, *chip_sweeps.AXES)
    planned = list(chip_sweeps.points(config))
    assert {point.sweep for point in planned} == set(chip_sweeps.AXES) == set(chip_sweeps.FIXED)
    assert len({point.name for point in planned}) == len(planned)
    assert {point.x for point in planned if point.sweep == "adc_bits" and point.chips} == set(range(4, 11))
    modes = {point.ranges.adc.range for point in planned if point.sweep == "adc_bits" and point.ranges}
    assert modes == {"calibrated", "max", "granular"}


def made_up(config: Any, data: Any, point: chip_sweeps.Point) -> dict[str, Any]:
    """A record that was not measured."""
    del config, data
    std = 0.01 if point.chips > 1 else None
    place = {"sweep": point.sweep, "panel": point.panel, "series": point.series, "x": point.x}
    return {**place, "images": min(point.images, 20), "chips": point.chips, "mean": 0.5, "std": std, "accuracies": []}


def test_sweeps_resume_by_what_was_asked(small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(chip_sweeps, "measure", lambda *a: asked.append(a[2].name) or made_up(*a))
    config = sweep_config(small_file, tmp_path / "docs", "stuck", "wires")
    chip_sweeps.main(config)
    everything = len(asked)
    assert {p.name for p in (tmp_path / "docs" / "tables").iterdir()} == {"stuck.md", "wires.md"}
    chip_sweeps.main(dataclasses.replace(config, few_chips=3))
    assert {name[0] for name in asked[everything:]} == {"stuck"} and len(asked) == everything + 10
    with pytest.raises(xbm.OutputError, match="other seed"):
        chip_sweeps.main(dataclasses.replace(config, seed=1))


@pytest.mark.parametrize("wrong", [{"chips": 1}, {"few_chips": 0}, {"images": 9}, {"calibration_images": 0}])
def test_bad_sweep_options_are_named(small_file: Path, tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(xbm.DataError, match=next(iter(wrong))):
        dataclasses.replace(sweep_config(small_file, tmp_path), **wrong)


# ---------------------------------------------------------------------------------------------------------------------
# search_designs


@pytest.fixture
def search_config(small_file: Path, tmp_path: Path) -> search_designs.Config:
    small_file.rename(small_file.with_name("cifar10.npz"))
    counts = {"images": 10, "calibration_images": 10, "test_images": 20}
    return search_designs.Config(small_file.parent, tmp_path / "out", **counts)  # type: ignore[arg-type]


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_search_in_earnest(search_config: search_designs.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_designs, "grid", lambda: xbm.hardware.designs(rows=(256,), adc_bits=(4, 8)))
    records = search_designs.main(search_config)
    assert [r["design"] for r in records] == [search_designs.FLOAT, *(d.name for d in search_designs.grid())]
    coarse, fine = records[1:]
    for name in search_designs.TECHNOLOGIES:
        assert 0 < coarse["costs"][name]["joules"] < fine["costs"][name]["joules"]
    assert 0 <= coarse["test"] <= 1  # the cheapest is on the front, whatever it reaches
    content = json.loads((search_config.out / "search_designs.json").read_text())
    assert content["designs"] == records and content["context"]["config"]["seed"] == 0


@pytest.fixture
def made_up_search(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Accuracies follow converter bits and energies heights, so that the front is known; what was asked is listed."""
    asked: list[str] = []

    def measured(config: Any, data: Any, missing: Any) -> Any:
        for design in missing:
            asked.append(design.name)
            costs = {"joules": 1e-6 * design.rows + 1e-9 * design.adc_bits, "seconds": 1e-4, "m2": 1e-6}
            record = {"design": design.name, **dataclasses.asdict(design), "test": None}
            priced = dict.fromkeys(search_designs.TECHNOLOGIES, costs)
            yield {**record, "validation": design.adc_bits / 10, "costs": priced}

    def tested(config: Any, data: Any, records: Any) -> Any:
        for record in records:
            asked.append(f"test {record['design']}")
            record["test"] = 0.5
            yield record

    reference = {"design": search_designs.FLOAT, "validation": 0.9, "test": 0.9, "costs": {}}
    monkeypatch.setattr(search_designs, "measured", measured)
    monkeypatch.setattr(search_designs, "tested", tested)
    monkeypatch.setattr(search_designs, "float_network", lambda *_: reference)
    return asked


def test_a_search_carries_on_and_tests_the_front_alone(
    search_config: search_designs.Config, made_up_search: list[str]
) -> None:
    plan = search_designs.grid()
    assert len(plan) >= 60 and len({design.name for design in plan}) == len(plan)
    first = search_designs.main(search_config)
    least = {bits: min(d.rows for d in plan if d.adc_bits >= bits) for bits in (4, 5, 6, 7, 8)}
    front = {f"test {d.name}" for d in plan if d.rows == least[d.adc_bits]}
    assert made_up_search[: len(plan)] == [design.name for design in plan]
    assert set(made_up_search[len(plan) :]) == front
    assert search_designs.main(search_config) == first and len(made_up_search) == len(plan) + len(front)
    text = (search_config.out / "search_designs.md").read_text()
    assert text.count("\n| ") == 1 + len(front) + 1 and "float network" in text
    assert (search_config.out / "search_designs.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(xbm.OutputError, match="other seed"):
        search_designs.main(dataclasses.replace(search_config, seed=1))


def test_a_search_validates_on_images_that_it_does_not_calibrate_on(search_config: search_designs.Config) -> None:
    data = search_designs.load_source(search_config)
    images, labels = search_designs.validation(search_config, data)
    seen = xbm.data.calibration_images(data, 10, 0)
    assert not {x.tobytes() for x in images} & {x.tobytes() for x in seen}
    assert len(images) == len(labels) == 10
    with pytest.raises(xbm.DataError, match="20 training images"):
        search_designs.load_source(dataclasses.replace(search_config, images=11))
    with pytest.raises(xbm.DataError, match="test_images"):
        dataclasses.replace(search_config, test_images=9)
