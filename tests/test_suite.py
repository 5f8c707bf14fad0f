"""The comparisons: which jobs there are, that they carry on, what rows and tables say; trained on tiny tasks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from experiments.intervals import mean_difference
from experiments.suite import chips as suite_chips
from experiments.suite import forgetting as suite_forgetting
from experiments.suite import jobs as suite_jobs
from experiments.suite import pages as suite_report
from experiments.suite import parts as suite_parts
from experiments.suite import run as suite
from experiments.suite.parts import Job, coded, decoded

import xbm_jax as xbm
from tasks import tiny
from xbm_jax.masks import methods

FIELDS = [
    "suite",
    "backbone",
    "task",
    "method",
    "chip",
    "seed",
    "norm_policy",
    "accuracy",
    "val_accuracy",
    "mask_bits",
    "norm_bits",
    "head_bits",
    "weight_bits_stored",
    "cells_written",
    "images",
    "epochs",
    "seconds",
]


def made_up_row(job: Job, accuracy: float = 0.5, **more: Any) -> dict[str, Any]:
    right = np.arange(40) < 40 * accuracy
    numbers = dict.fromkeys(FIELDS, 0) | {"norm_policy": "full", "accuracy": accuracy, "test_images": 40}
    place = {"suite": job.comparison, "hits": coded(right)} | dataclasses.asdict(job)
    place.pop("comparison")
    return {"job": job.name, **numbers, **place, **more}


def test_a_comparison_may_slow_every_method_and_the_others_are_left_alone() -> None:
    large, small = suite_jobs.GRIDS["large_suite"], suite_jobs.GRIDS["small_suite"]
    xma = large.tuned(methods.xma())
    assert (xma.mask_lr, xma.norm_lr, xma.head_lr) == (pytest.approx(6e-3), 1e-3, 1e-3)
    assert large.tuned(methods.xbm()) == dataclasses.replace(methods.xbm(), norm_lr=1e-3, head_lr=1e-3)
    assert all(small.tuned(make()) == make() for make in methods.METHODS.values())


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rows are made up instead of trained; the jobs that were asked for are listed."""
    asked: list[str] = []

    def run(config: Any, jobs: list[Job]) -> list[dict[str, Any]]:
        del config
        asked.extend(job.name for job in jobs)
        return [made_up_row(job, 0.25 if job.method == "head_only" else 0.75) for job in jobs]

    monkeypatch.setattr(suite_jobs, "run", run)
    return asked


def small(folder: Path, **changes: Any) -> suite.Config:
    options = {"tasks": ("usps",), "methods": ("head_only", "piggyback"), "only": ("small_suite",)} | changes
    return suite.Config(data=folder, out=folder / "results", **options)


def test_finished_jobs_are_not_done_again(tmp_path: Path, learned: list[str]) -> None:
    suite.main(small(tmp_path))
    first = ["cifar-resnet20 usps verified head_only 0", "cifar-resnet20 usps verified piggyback 0"]
    assert learned[:2] == first and learned[2:] == [
        "cifar-resnet20 usps relaxed piggyback 0",
        "cifar-resnet20 usps ideal piggyback 0",
    ]
    made = (tmp_path / "results/small_suite.json").read_bytes()
    suite.main(small(tmp_path))
    assert (tmp_path / "results/small_suite.json").read_bytes() == made  # the date is that of its rows
    suite.main(small(tmp_path, methods=("head_only", "piggyback", "xbm"), chips=("verified",), seeds=(0, 1)))
    assert learned[4:] == [
        "cifar-resnet20 usps verified xbm 0",
        *(f"cifar-resnet20 usps verified {m} 1" for m in ("head_only", "xbm", "piggyback")),
    ]
    content = json.loads((tmp_path / "results/small_suite.json").read_text())
    assert [row["job"] for row in content["rows"]] == learned
    assert set(FIELDS) <= set(content["rows"][0])
    assert len(content["context"]["commands"]) == 1 and content["context"]["config"]["images"] == 2500
    assert "| head_only | 25.0 | -50.0 ±" in (tmp_path / "results/small_suite.md").read_text()


def test_other_settings_need_another_folder(tmp_path: Path, learned: list[str]) -> None:
    suite.main(small(tmp_path))
    with pytest.raises(xbm.OutputError, match=r"a new folder: its rows have other images, training"):
        suite.main(small(tmp_path, images=100, epochs=1))
    assert len(learned) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": Path("none")}, r"--data = 'none': a folder with the tasks' \.npz files"),
        ({"seeds": ()}, r"--seeds = \(\): at least one"),
        ({"tasks": ("usps", "ups")}, r"--tasks = 'ups': some of .*fashion_mnist"),
        ({"methods": ("pigback",)}, r"--methods = 'pigback': some of .*piggyback"),
        ({"chips": ("worn",)}, r"--chips = 'worn': some of ideal, relaxed, verified"),
        ({"backbones": ("resnet",)}, r"--backbones = 'resnet': some of cifar-resnet20"),
    ],
)
def test_what_no_grid_has_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(xbm.DataError, match=message):
        small(**{"folder": tmp_path, **changes}) if "data" not in changes else suite.Config(**changes)


def test_a_job_that_fails_leaves_the_others(tmp_path: Path, learned: list[str], monkeypatch: Any) -> None:
    honest = suite_jobs.run

    def second_fails(config: Any, jobs: list[Job]) -> list[dict[str, Any]]:
        if learned:
            raise KeyboardInterrupt
        return honest(config, jobs)

    monkeypatch.setattr(suite_jobs, "run", second_fails)
    with pytest.raises(KeyboardInterrupt):
        suite.main(small(tmp_path))
    assert len(json.loads((tmp_path / "results/small_suite.json").read_text())["rows"]) == 1


def test_every_grid_names_methods_chips_and_backbones_that_exist() -> None:
    for name, grid in suite_jobs.GRIDS.items():
        assert set(grid.chips) <= set(suite_chips.CHIPS) and set(grid.backbones) <= set(suite_parts.PIXELS)
        for method in grid.methods:
            if method != suite_forgetting.ONE_NETWORK and name != "chip_in_the_loop":
                assert isinstance(suite_jobs.method_of(method)[0], xbm.Method)
    assert suite_jobs.method_of("xbm rows 16") == (methods.xbm(), {"rows": 16})
    assert suite_jobs.method_of("xbm active 16") == (methods.xbm(), {"rows": 128, "active_rows": 16})
    assert suite_jobs.method_of("xma bits 5")[0] == methods.xma(bits=5)


# ---------------------------------------------------------------------------------------------------------------------
# In earnest, on a network that is learned in a second


@pytest.fixture
def tiny_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> suite.Config:
    """Backbone and tasks are tiny ones."""
    chip = tiny.chip("adc")
    data = tiny.stripes()

    def data_of(config: Any, job: Job) -> xbm.Dataset:
        del config
        turned = 1 if job.task == "usps" else 0  # other labels: another task
        return dataclasses.replace(data, y_train=(data.y_train + turned) % 4, y_test=(data.y_test + turned) % 4)

    for module in (suite_parts, suite_jobs, suite_forgetting):
        monkeypatch.setattr(module, "data_of", data_of)
        monkeypatch.setattr(module, "chip_for", lambda *_: chip)
    return suite.Config(data=tmp_path, out=tmp_path, epochs=1, batch_size=16)


@pytest.mark.slow
def test_rows_say_what_learning_gave_and_cost(tiny_suite: suite.Config) -> None:
    job = Job("small_suite", "cifar-resnet20", "usps", "verified", "piggyback", 0)
    (row,) = suite_jobs.run(tiny_suite, [job])
    assert set(FIELDS) <= set(row) and json.loads(json.dumps(row)) == row
    assert row["mask_bits"] == 8 * (27 + 72 + 72) and row["cells_written"] >= 0 and row["images"] == 320
    assert row["accuracy"] == pytest.approx(decoded(row["hits"], 160).mean())


def test_how_the_source_survives_is_measured_once_on_each_chip(tmp_path: Path, monkeypatch: Any) -> None:
    chips, asked = [tiny.chip("ideal", key=key) for key in (0, 1)], []

    def hits(chip: xbm.Chip, *_: Any) -> np.ndarray:
        asked.append(chip)
        return np.array([True, chip is chips[0]])

    monkeypatch.setattr(suite_parts, "hits", hits)
    monkeypatch.setattr(suite_parts, "data_of", lambda *_: None)
    monkeypatch.setattr(suite_parts, "_SOURCE", {})
    job, config = Job("small_suite", "cifar-resnet20", "usps", "worn", "xbm", 0), suite.Config(data=tmp_path)
    assert suite_parts.source_accuracy(config, job, chips[0]) is None  # no images of the source task
    (tmp_path / "cifar10.npz").touch()
    assert [suite_parts.source_accuracy(config, job, chips[i]) for i in (0, 1, 0)] == [1.0, 0.5, 1.0]
    assert asked == chips


@pytest.mark.slow
def test_seeds_learned_together_are_seeds_learned_apart(tiny_suite: suite.Config) -> None:
    jobs = [Job("small_suite", "cifar-resnet20", "usps", "verified", "piggyback", seed) for seed in (0, 1)]
    together = suite_jobs.run(tiny_suite, jobs)
    apart = [row for job in jobs for row in suite_jobs.run(tiny_suite, [job])]
    for a, b in zip(together, apart, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_seeds_are_learned_together_where_asked(tmp_path: Path, learned: list[str], monkeypatch: Any) -> None:
    """By default on an accelerator alone; seeds that are there are not learned again."""
    asked: list[list[int]] = []
    honest = suite_jobs.run

    def run(config: Any, jobs: list[Job]) -> list[dict[str, Any]]:
        asked.append([job.seed for job in jobs])
        return honest(config, jobs)

    monkeypatch.setattr(suite_jobs, "run", run)
    options: dict[str, Any] = {"methods": ("head_only",), "chips": ("verified",)}
    suite.main(small(tmp_path, **options, seeds=(0, 1)))
    assert asked == [[0], [1]]
    suite.main(small(tmp_path, **options, seeds=(0, 1, 2, 3), together=True))
    assert asked[2:] == [[2, 3]] and len(learned) == 4
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [len(jobs) for jobs in small(tmp_path, **options, seeds=(0, 1)).groups("small_suite")] == [2]


@pytest.mark.parametrize("method", [suite_forgetting.ONE_NETWORK, "xbm", "piggyback"])
@pytest.mark.slow
def test_forgetting(tiny_suite: suite.Config, method: str) -> None:
    """Masks answer for earlier tasks as before, to the last image; one network that is trained on does not."""
    job = Job("forgetting", "cifar-resnet20", "fashion_mnist+usps", "verified", method, 0)
    rows = suite_forgetting.rows(tiny_suite, job)
    assert [(r["step"], r["task"]) for r in rows] == [
        *((1, t) for t in ("cifar10", "fashion_mnist")),
        *((2, t) for t in ("cifar10", "fashion_mnist", "usps")),
    ]
    kept = [r["hits"] for r in rows if r["task"] == "fashion_mnist"]
    assert (kept[0] == kept[1]) is (method != suite_forgetting.ONE_NETWORK)
    first, last = rows[0], rows[-1]
    assert last["stored_bits"] > first["stored_bits"] > 0
    assert (last["written_so_far"] == 0) is (method == "xbm")
    assert last["cells_to_switch"] == 0  # the chip holds the last task
    back = next(r for r in rows if (r["step"], r["task"]) == (2, "fashion_mnist"))["cells_to_switch"]
    assert (back > 0) is (method == "piggyback")


# ---------------------------------------------------------------------------------------------------------------------
# Tables and figures


def compared_rows(hits: dict[tuple[str, str, int], np.ndarray]) -> list[dict[str, Any]]:
    """Rows by (task, method, seed)."""
    rows = []
    for (task, method, seed), right in hits.items():
        job = Job("small_suite", "b", task, "verified", method, seed)
        rows.append(made_up_row(job) | {"hits": coded(right), "test_images": len(right)})
    return rows


def test_paired_differences_against_the_formula() -> None:
    """Mean of the per-image differences, 1.96 standard errors of it; with one seed it says that it is no more."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(200) < 0.7, rng.random(200) < 0.6
    rows = compared_rows({("t", "xbm", 0): ours, ("t", "piggyback", 0): theirs})
    d = ours.astype(float) - theirs
    wanted = f"{100 * d.mean():+.1f} ± {196 * d.std(ddof=1) / np.sqrt(200):.1f}* undecided"
    assert suite_report.paired(rows, "xbm", "piggyback") == wanted
    assert suite_report.paired(rows, "xbm", "none") == "-"
    assert "*: one seed" in suite_report.suite_table(rows)


def test_a_comparison_takes_the_seeds_that_all_of_its_tasks_have() -> None:
    rng = np.random.default_rng(0)
    places = [(task, method, seed) for task in "tu" for method in ("xbm", "piggyback") for seed in range(3)]
    hits = {place: rng.random(50) < 0.5 for place in places}
    whole = suite_report.difference(compared_rows(hits), "xbm", "piggyback")
    difference = [[hits[t, "xbm", s].astype(float) - hits[t, "piggyback", s] for s in range(3)] for t in "tu"]
    assert (
        whole == mean_difference([np.array(d) for d in difference]) and whole is not None and not whole.of_images_alone
    )
    del hits["u", "piggyback", 1]
    part = suite_report.difference(compared_rows(hits), "xbm", "piggyback")
    assert part == mean_difference([np.array(d)[[0, 2]] for d in difference]) != whole
    del hits["u", "xbm", 0], hits["t", "xbm", 2]
    assert suite_report.paired(compared_rows(hits), "xbm", "piggyback") == "-"  # no seed that both tasks have


def two_starts(seed: int, val: tuple[float | None, float | None], test: tuple[float, float]) -> list[dict[str, Any]]:
    """Rows of both starts on one bad chip that lost 30 points."""
    rows = []
    for arm, accuracy, on_validation in zip(suite_report.STARTS, test, val, strict=True):
        job = Job("chip_in_the_loop", "cifar-resnet20", "usps", "worn", arm, seed)
        more = {"accuracy_ideal": 0.8, "accuracy_moved": 0.5, "recovered": (accuracy - 0.5) / 0.3}
        rows.append(made_up_row(job, accuracy, val_accuracy=on_validation, **more))
    return rows


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (two_starts(0, (0.9, 0.8), (0.65, 0.8)), "65.0 (50 %)"),  # not the better one on test images
        (two_starts(0, (0.7, 0.8), (0.65, 0.8)), "80.0 (100 %)"),
        (two_starts(0, (0.9, 0.8), (0.65, 0.8)) + two_starts(1, (0.7, 0.8), (0.65, 0.8)), "72.5 (75 %)"),
        (two_starts(0, (None, 0.8), (0.65, 0.8)), "unknown: no validation accuracy"),
        (two_starts(0, (0.9, 0.8), (0.65, 0.8))[:1], "-"),
    ],
)
def test_the_start_is_chosen_on_validation_images(rows: list[dict[str, Any]], said: str) -> None:
    assert f"| {suite_report.CHOSEN} | {said} |" in suite_report.chips_table(rows)


def test_figures_show_means_over_seeds() -> None:
    rows = [r | {"seed": seed, "accuracy": 0.1 * seed} for seed in (1, 3) for r in front_rows()]
    (first, *rest) = suite_report.over_seeds(rows, "task", "method")
    assert len(rest) == 4 and first["accuracy"] == pytest.approx(0.2) and first["mask_bits"] == 16_000


def bad_chip_rows() -> list[dict[str, Any]]:
    rows = []
    for chip in ("faults", "worn"):
        for arm, accuracy in (("moved", 0.5), ("norms measured", 0.6), ("learned on chip", 0.75)):
            job = Job("chip_in_the_loop", "cifar-resnet20", "usps", chip, arm, 0)
            more = {"accuracy_ideal": 0.8, "accuracy_moved": 0.5, "recovered": (accuracy - 0.5) / 0.3}
            rows.append(made_up_row(job, accuracy, unseen_mean=0.4, unseen_std=0.1, **more))
    return rows


def front_rows() -> list[dict[str, Any]]:
    bits = {"xbm rows 16": 16_000, "xbm rows 64": 4_400, "xma bits 3": 13_200, "ksm_binary": 30_000, "norm_only": 0}
    place = ("bits_front", "cifar-resnet20", "usps", "verified")
    return [made_up_row(Job(*place, method, 0)) | {"mask_bits": count} for method, count in bits.items()]


def forgetting_rows() -> list[dict[str, Any]]:
    rows = []
    for method in ("finetune", "xbm"):
        for step, after in enumerate(("usps", "notmnist"), 1):
            for task in ("cifar10", "usps", "notmnist")[: step + 1]:
                job = Job("forgetting", "cifar-resnet20", task, "verified", method, 0)
                more = {"after": after, "step": step, "stored_bits": 10, "written_so_far": 3}
                rows.append(made_up_row(job, **more) | {"job": f"cifar-resnet20 usps+notmnist verified {method} 0"})
    return rows


@pytest.mark.parametrize(
    ("comparison", "make", "said"),
    [
        ("chip_in_the_loop", bad_chip_rows, "| norms measured | 60.0 (33 %) | 60.0 (33 %) |"),
        ("bits_front", front_rows, "| xma bits 3 | 13,200 | 13,200 | 50.0 |"),
        ("forgetting", forgetting_rows, "| xbm | 50.0 | 50.0 | 50.0 | 10 | 3 |"),
    ],
)
def test_tables_and_figures(tmp_path: Path, comparison: str, make: Callable, said: str) -> None:
    suite_report.write(tmp_path, comparison, make())
    assert said in (tmp_path / f"{comparison}.md").read_text()
    assert (tmp_path / f"{comparison}.png").read_bytes().startswith(b"\x89PNG")


def test_hits_are_kept_a_bit_an_image() -> None:
    right = np.random.default_rng(0).random(37) < 0.5
    np.testing.assert_array_equal(decoded(coded(right), 37), right)


def test_a_fresh_chip_is_of_the_same_kind() -> None:
    from experiments.suite.bad_chips import _fresh

    chip, kind = tiny.chip("noisy"), suite_chips.CHIPS["drift"]
    other = _fresh(chip, jax.random.key(3), dataclasses.replace(kind, t_seconds=None))
    assert jax.tree.structure(other) == jax.tree.structure(chip)
