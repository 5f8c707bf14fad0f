"""The main job on a small backbone and small tasks: what it writes, and how it carries on after an interruption."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli import small
from tasks import tiny
from xbm_jax import models
from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.cli import quickstart, reopen
from xbm_jax.report import read_results
from xbm_jax.storage.lock import LOCK
from xbm_jax.tasks import predict
from xbm_jax.training import TrainConfig, adapt

REOPEN, ASKED = quickstart.REOPEN, quickstart._asked_in_new_process
METHODS = ("head_only", "norm_only", "xbm")
ENTRIES = [f"{task}.{method}" for task in quickstart.TASKS for method in METHODS]
FIELDS = {
    *("task", "method", "accuracy", "val_accuracy", "mask_bits", "norm_bits", "head_bits", "cells_written"),
    *("rows", "seconds", "images_per_second", "seed"),
}
WRITTEN = {LOCK, "REPORT.md", "accuracy_against_bits.png", "bank", "chip", "config.json", "report.html", "results.json"}


@pytest.fixture(scope="module")
def small_job():
    """The small backbone, three small tasks and two epochs; the new process knows the backbone too."""

    def program(backbone, spec, key):
        return models.calibrate(models.program(backbone, spec, key), tiny.stripes().x_train[:64])

    with pytest.MonkeyPatch.context() as patch:
        small.register(patch)
        patch.setattr(quickstart, "load_backbone", lambda _name: tiny.weights())
        patch.setattr(quickstart, "program", program)
        patch.setattr(quickstart, "load", small.load)
        patch.setattr(quickstart, "TRAIN", TrainConfig(epochs=2, batch_size=32, eval_batch_size=64))
        patch.setattr(quickstart, "REOPEN", (small.__file__,))
        patch.setattr(quickstart, "REWRITING", quickstart.REWRITING[:1])  # programming anew takes long to compile
        yield


@pytest.fixture(scope="module")
def finished(small_job, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a job that ran to its end, and what it printed."""
    out = tmp_path_factory.mktemp("whole") / "run 1"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert small.run("quickstart", "--out", out) == 0
    return out, printed.getvalue()


@pytest.fixture(autouse=True)
def in_this_process(finished, monkeypatch):
    """After the first job, the others ask no new process, which would take seconds each."""

    def asked(out: Path, batch: bytes) -> dict[str, Any]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            reopen.main(str(out), io.BytesIO(batch))
        return json.loads(printed.getvalue())

    monkeypatch.setattr(quickstart, "_asked_in_new_process", asked)


@pytest.fixture
def again(finished, tmp_path) -> Path:
    """A copy of the finished job, to run in."""
    return shutil.copytree(finished[0], tmp_path / "run")


def bank_of(out: Path) -> MaskBank:
    return MaskBank.open(out / "bank", load_chip(out / "chip"))


def learning(monkeypatch, interrupt: str = "") -> list[str]:
    """What is learned from now on; in the middle of the entry ``interrupt`` comes a Ctrl-C."""
    learned = []

    def watched(chip, data, *, method, report, **options):
        entry = f"{data.name}.{method.name}"

        def report_or_stop(seen):
            if entry == interrupt and seen["step"] == 3:
                raise KeyboardInterrupt
            report(seen)

        task = adapt(chip, data, method=method, report=report_or_stop, **options)
        learned.append(entry)
        return task

    monkeypatch.setattr(quickstart, "adapt", watched)
    return learned


def test_results_have_a_row_per_task_and_method(finished):
    rows, context = read_results(finished[0] / "results.json")
    assert [f"{row.task}.{row.method}" for row in rows] == ENTRIES
    for row in json.loads((finished[0] / "results.json").read_text())["rows"]:
        assert set(row) >= FIELDS
    mask_bits = {"head_only": 0, "norm_only": 0, "xbm": (1 + 2 + 2) * tiny.WIDTH}  # 27, 72 and 72 rows on arrays of 64
    for row in rows:
        assert row.mask_bits == mask_bits[row.method]
        assert row.norm_bits == (0 if row.method == "head_only" else 16 * 2 * 3 * tiny.WIDTH)
        assert row.head_bits == 4 * (8 * tiny.WIDTH + 2 * 16)
        assert (row.cells_written, row.rows, row.seed, row.weight_bits_stored) == (0, 64, 0, 0)
        assert row.accuracy == bank_of(finished[0]).meta(f"{row.task}.{row.method}")["accuracy"]
    assert context["config"]["train"]["epochs"] == 2
    assert {"versions", "seed", "device", "config", "date"} <= set(context)


def test_folder_holds_the_run_and_nothing_half_written(finished):
    out, _ = finished
    assert {path.name for path in out.iterdir()} == WRITTEN
    assert (out / "accuracy_against_bits.png").read_bytes().startswith(b"\x89PNG")
    assert bank_of(out).names == sorted(ENTRIES)
    assert small.leftovers(out) == []


def test_page_and_output_tell_the_same(finished):
    out, printed = finished
    page = (out / "REPORT.md").read_text()
    same = r"96 of 96 predictions as before saving; every prediction is the one before saving\. No cell was written\."
    for text in (page, printed):
        assert re.search(r"the chip predicts the class that the float network does in \d+\.\d% of cases", text)
        assert re.search(rf"served 96 images of 3 tasks .* one compiled function \(1 compilation\): {same}", text)
    assert "](accuracy_against_bits.png)" in page and '"seed": 0' in page
    lines = printed.splitlines()
    assert lines[0] == "tiny: 1,368 weights on arrays (3 layers); 40 stay digital: linear/kernel."
    assert lines[1].startswith("Wrote tiny (1,")
    assert [line.split()[:2] for line in lines[3:12]] == [entry.split(".") for entry in ENTRIES]
    assert lines[-3:] == [
        f"  xbm bank list '{out}'/bank",
        "  xbm adapt --task folder:MY_IMAGES --image-size 32 --bank runs/mine",
        f"  xbm quickstart --full --out '{out}'",
    ]


def test_interrupted_job_carries_on_and_ends_the_same(finished, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    learned = learning(monkeypatch, interrupt="quickdraw.xbm")
    assert small.run("quickstart", "--out", out) == 130
    assert capsys.readouterr().err.strip().startswith("xbm: interrupted; what is finished is kept")
    assert learned == ENTRIES[:5]
    assert bank_of(out).names == sorted(learned)
    assert {path.name for path in out.iterdir()} == {LOCK, "bank", "chip", "config.json"}
    assert small.leftovers(out) == []

    learned = learning(monkeypatch)
    assert small.run("quickstart", "--out", out) == 0
    assert learned == ENTRIES[5:]
    assert small.leftovers(out) == []
    tiny.assert_same_bits(load_chip(out / "chip"), load_chip(finished[0] / "chip"))
    whole, resumed = bank_of(finished[0]), bank_of(out)
    for entry in ENTRIES:
        tiny.assert_same_bits(resumed.get(entry), whole.get(entry))
    assert scores(out) == scores(finished[0])


def scores(out: Path) -> list[dict[str, Any]]:
    """The rows without what a clock measured."""
    rows, _ = read_results(out / "results.json")
    return [{k: v for k, v in row.to_json().items() if k not in ("seconds", "images_per_second")} for row in rows]


def test_interrupt_before_the_first_task_leaves_a_folder_to_carry_on_in(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(quickstart, "save_chip", interrupted)
        assert small.run("quickstart", "--out", tmp_path) == 130
    learning(monkeypatch, interrupt="fashion_mnist.norm_only")
    assert small.run("quickstart", "--out", tmp_path) == 130
    assert bank_of(tmp_path).names == ["fashion_mnist.head_only"]


@pytest.mark.slow
def test_same_job_again_learns_nothing_and_full_learns_the_rest(again, monkeypatch):
    out, before = again, scores(again)
    learned = learning(monkeypatch)
    assert small.run("quickstart", "--out", out) == 0
    assert learned == [] and scores(out) == before
    assert small.run("quickstart", "--out", out, "--full") == 0
    assert learned == [f"{task}.piggyback" for task in quickstart.TASKS]
    rows = scores(out)
    assert [row for row in rows if row["method"] in METHODS] == before
    rewriting = [row for row in rows if row["method"] not in METHODS]
    assert len(rewriting) == 3 and all(row["cells_written"] > 0 for row in rewriting)
    assert {row["mask_bits"] for row in rewriting} == {27 * tiny.WIDTH + 2 * 72 * tiny.WIDTH}


def test_another_seed_is_refused(finished, capsys):
    assert small.run("quickstart", "--out", finished[0], "--seed", "1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"xbm: --out = '{finished[0]}': a new folder: the run in it has another seed"


def test_another_chip_in_the_folder_is_refused(finished, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((finished[0] / "config.json").read_bytes())
    quickstart.save_chip(tiny.chip("ideal"), tmp_path / "chip")
    before = small.everything(tmp_path)
    assert small.run("quickstart", "--out", tmp_path) == 2
    assert small.everything(tmp_path) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"xbm: --out = '{tmp_path}': a new folder: the chip in it is another one"


def test_source_data_gives_accuracy_on_the_source_task(again, tmp_path, capsys):
    task = small.write_npz(tmp_path / "source.npz", **small.arrays(size=tiny.SIZE))
    assert small.run("quickstart", "--out", again, "--source-data", task) == 0
    pattern = r"Source task, 20 test images: float (\S+)%, chip (\S+)%; same class in (\S+)%\."
    found = re.search(pattern, capsys.readouterr().out)
    assert found is not None
    exact = np.argmax(tiny.weights().logits(small.arrays(size=tiny.SIZE)["x_test"]), -1)
    assert float(found[1]) == 100 * np.mean(exact == small.arrays(size=tiny.SIZE)["y_test"])


def test_source_data_of_too_many_classes_is_refused(tmp_path, capsys):
    task = small.write_npz(tmp_path / "source.npz", y_train=np.arange(40) % 7, class_names=np.arange(7).astype(str))
    assert small.run("quickstart", "--out", tmp_path / "run", "--source-data", task) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "xbm: --source-data = '7 classes': labels 0..4, the classes of tiny"
    assert not (tmp_path / "run").exists()


def test_new_process_answers_what_the_tasks_predict(finished, capsys):
    out, chip = finished[0], load_chip(finished[0] / "chip")
    names = ["omniglot.xbm", "quickdraw.norm_only"]
    images, tasks, index = reopen.probe_batch({name: small.load(name.split(".")[0]) for name in names})
    assert tasks == names * 32 and index[:4] == [0, 0, 1, 1]
    reopen.main(str(out), io.BytesIO(reopen.packed(images, tasks)))
    answers = json.loads(capsys.readouterr().out)
    for i, name in enumerate(names):
        guess = np.argmax(predict(chip, bank_of(out).get(name), images[i::2]), -1)
        assert answers["classes"][i::2] == guess.tolist()


def test_probe_of_a_short_test_split_takes_what_there_is():
    data = small.load("omniglot")
    images, tasks, index = reopen.probe_batch({"a": data, "b": data.subset(64, 5)})
    assert tasks.count("a") == 32 and tasks.count("b") == 5 == len(images) - 32
    assert index == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, *range(5, 32)]


def test_other_predictions_after_reopening_are_told(again, capsys, monkeypatch):
    answers = {"classes": [-1] * 96, "compilations": 1}
    monkeypatch.setattr(quickstart, "_asked_in_new_process", lambda _out, _batch: answers)
    assert small.run("quickstart", "--out", again) == 0
    assert "0 of 96 predictions as before saving; NOT all are those before saving" in capsys.readouterr().out


def test_new_process_that_fails_is_told(again, capsys, monkeypatch):
    monkeypatch.setattr(quickstart, "_asked_in_new_process", ASKED)
    monkeypatch.setattr(quickstart, "REOPEN", ("-c", "raise ValueError('torn')"))
    assert small.run("quickstart", "--out", again) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(": a chip and a bank that open again in a new process (ValueError: torn)")


def test_what_python_runs_is_the_module_that_serves():
    assert ("-m", reopen.__name__) == REOPEN  # the tests put the small backbone's script in its place


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_control_c_on_the_real_job(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-c", "from xbm_jax.cli import main; main()", "quickstart", "--out", str(out)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = out / "bank" / "tasks" / "fashion_mnist.head_only" / "000001"
    with subprocess.Popen(command, **pipes) as job:
        try:
            while not first.exists() and job.poll() is None:
                time.sleep(0.1)
            time.sleep(3)
            job.send_signal(signal.SIGINT)
            _, errors = job.communicate(timeout=120)
        finally:
            job.kill()
    assert job.returncode == 130
    assert errors.strip().startswith("xbm: interrupted") and len(errors.strip().splitlines()) == 1
    assert small.leftovers(out) == []
    written = os.stat(first).st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.stat(first).st_mtime_ns == written
    assert "96 of 96 predictions as before saving" in done.stdout
    rows, _ = read_results(out / "results.json")
    accuracy = {(row.task, row.method): row.accuracy for row in rows}
    assert len(accuracy) == 9
    assert accuracy["fashion_mnist", "xbm"] >= accuracy["fashion_mnist", "norm_only"] + 0.10
