"""A training that is saved: killed, stopped, out of space or damaged, it ends as one that was left alone."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

from cost import slow_but
from tasks import tiny
from training import killed
from training.killed import STEPS, digest_of, learned
from xbm_jax.data import Streamed
from xbm_jax.errors import BankError, DataError, Interrupted, OutputError, SpecError, TrainingError
from xbm_jax.masks import methods
from xbm_jax.models import redrawn
from xbm_jax.storage import store
from xbm_jax.storage.lock import locked
from xbm_jax.training import Recipe, Saves, adapt, asked_digest, forget, interruptible, read_log
from xbm_jax.training.log import Log
from xbm_jax.training.run import Run

learning, loop, saved = (import_module(f"xbm_jax.training.{name}") for name in ("learning", "loop", "saved"))


class Stop(Exception):
    """What a test ends a training with."""


class StopAt:
    """A report that ends the training at a step, from 1 on, or at the end of an epoch."""

    def __init__(self, step: int = 0, epoch: int = -1) -> None:
        self.step, self.last = step, epoch

    def __call__(self, seen) -> None:
        if seen["step"] == self.step:
            raise Stop

    def epoch(self, row) -> None:
        if row["epoch"] == self.last:
            raise Stop


@cache
def wanted(case: str) -> str:
    """What a training that is left alone ends with."""
    return digest_of(learned(case))


@pytest.mark.parametrize("case", slow_but(["xma2"], killed.CASES))
def test_a_training_that_is_cut_short_again_and_again_ends_bit_equal(case, tmp_path):
    """At the first step, within epochs, at their last steps, and where a rule's phase turns."""
    if case == "head_only":
        stops = [StopAt(epoch=epoch) for epoch in (0, 1, 2)]
    else:
        stops = [*map(StopAt, (1, 7, STEPS, STEPS + 1, 2 * STEPS)), StopAt(epoch=2)]
    for stop in stops:
        with pytest.raises(Stop):
            learned(case, Saves(tmp_path, every_seconds=0, log_steps=1), stop)
    assert digest_of(learned(case, tmp_path)) == wanted(case)


def test_a_finished_training_gives_its_task_at_once(tmp_path, monkeypatch):
    alone = digest_of(learned("augmented", epochs=1))
    assert digest_of(learned("augmented", tmp_path, epochs=1)) == alone
    before = (tmp_path / "log.jsonl").read_bytes()
    for name in ("train_step", "score"):
        monkeypatch.setattr(loop, name, None)
    (again,) = learned("augmented", tmp_path, epochs=1)
    assert digest_of([again]) == alone and again.meta["seconds"] > 0
    assert isinstance(again.meta["augment"]["scale"], tuple)
    assert (tmp_path / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize("trial", slow_but([0, 1], range(8)))
def test_sigkill_at_a_random_moment_loses_nothing(trial, tmp_path):
    rng = random.Random(trial)
    case = killed.CASES[trial % len(killed.CASES)] if trial > 1 else "xbm"
    cut = [killed.killed(tmp_path, case, rng.uniform(0, 3)) for _ in range(1 if trial < 2 else 3)]
    assert any(cut)
    assert digest_of(learned(case, tmp_path)) == wanted(case)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(number, tmp_path):
    def report(seen):
        if seen["step"] == 5:
            signal.raise_signal(number)

    usual = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (
        pytest.raises(Interrupted, match=f"stopped by {number.name}; all of it is saved in") as stopped,
        interruptible(),
    ):
        learned("xbm", tmp_path, report)
    assert (stopped.value.number, stopped.value.folder, stopped.value.exit_code) == (number, tmp_path, 128 + number)
    arrays, _ = store.load(tmp_path / "state")
    assert arrays["0/step"] == 13 and arrays["0/losses"].shape == (13,)  # eight steps were under way
    assert digest_of(learned("xbm", tmp_path)) == wanted("xbm")
    signal.signal(signal.SIGINT, usual[signal.SIGINT])
    assert {n: signal.getsignal(n) for n in usual} == usual


def test_a_signal_after_the_last_step_ends_the_call_and_the_task_is_there(tmp_path, monkeypatch):
    finished = learning.finished

    def late(*args, **options):
        signal.raise_signal(signal.SIGTERM)
        return finished(*args, **options)

    alone = wanted("xbm")
    monkeypatch.setattr(learning, "finished", late)
    with pytest.raises(Interrupted), interruptible():
        learned("xbm", tmp_path)
    monkeypatch.setattr(learning, "finished", None)  # it is not called any more
    assert digest_of(learned("xbm", tmp_path)) == alone


def test_a_full_disk_is_an_error_and_the_last_save_stands(tmp_path, monkeypatch):
    saves, writes = store.save, []

    def full(folder, *args, **options):
        writes.append(folder)
        if len(writes) == 2:
            raise OutputError(
                "folder", str(folder), "a folder that takes what is to be stored (No space left on device)"
            )
        saves(folder, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store, "save", full)
        with pytest.raises(OutputError, match="No space left on device"):
            learned("xbm", tmp_path)
    arrays, _ = store.load(tmp_path / "state")
    assert arrays["0/epoch"] == 1 and len(writes) == 2
    assert digest_of(learned("xbm", tmp_path)) == wanted("xbm")


def test_a_log_that_the_disk_does_not_take_is_an_error(tmp_path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"log\.jsonl': a file, or none"):
        learned("xbm", tmp_path)
    (tmp_path / "log.jsonl").unlink()
    with Path("/dev/full").open("wb", buffering=0) as full, Log(tmp_path) as log:
        log._file.close()
        log._file = full
        with pytest.raises(OutputError, match=r"log\.jsonl': a file that takes the log \(No space left on device\)"):
            log.note("step", {"step": 1})


def test_a_place_that_cannot_be_written_is_named_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "train_step", None)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with pytest.raises(OutputError, match=f"save = '{place}': a writable folder"):
            learned("xbm", place)


def test_data_that_can_no_longer_be_read_are_an_error(tmp_path, monkeypatch):
    batch = Run.batch

    def gone(run, index, epoch, step, *rows):
        if (epoch, step) == (1, 3):
            raise OSError(5, "Input/output error")
        return batch(run, index, epoch, step, *rows)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "batch", gone)
        with pytest.raises(DataError, match=r"data = 'stripes': examples that can be read \(Input/output error\)"):
            learned("xbm", tmp_path)
    assert digest_of(learned("xbm", tmp_path)) == wanted("xbm")


def test_a_loss_that_is_none_is_not_saved(tmp_path):
    config = Recipe(epochs=2, batch_size=16, norm_lr=1e30, head_lr=1e30)
    options = {"method": tiny.METHODS["xbm"], "key": jax.random.key(1), "config": config}
    with pytest.raises(TrainingError, match="loss at step"):
        adapt(tiny.chip("ideal"), tiny.stripes(), **options, save=Saves(tmp_path, every_seconds=0))
    arrays, _ = store.load(tmp_path / "state")
    assert np.isfinite(arrays["0/losses"]).all()
    with pytest.raises(TrainingError, match="loss at step") as error:
        adapt(tiny.chip("ideal"), tiny.stripes(), **options, save=tmp_path)
    assert error.value.state is not None


# ---------------------------------------------------------------------------------------------------------------------
# Whose save it is


def given(**changes):
    """What a run is given, some of it another."""
    usual = {
        "chip": tiny.chip("ideal"),
        "data": tiny.stripes(),
        "method": tiny.METHODS["xbm"],
        "key": jax.random.key(1),
        "recipe": Recipe(epochs=1, batch_size=16),
    }
    return Run(**{**usual, **changes})


def with_other_labels():
    return dataclasses.replace(tiny.stripes(), y_test=(tiny.stripes().y_test + 1) % 4)


def recalibrated(chip):
    tiles = {path: dataclasses.replace(t, input_scale=t.input_scale * 2) for path, t in chip.tiles.items()}
    return dataclasses.replace(chip, tiles=tiles)


OTHERS = {
    "cells": (
        lambda: {"chip": tiny.chip("ideal", key=7)},
        r"chip\.cells [0-9a-f]{12}, not [0-9a-f]{12}; chip\.as read",
    ),
    "calibration": (lambda: {"chip": recalibrated(tiny.chip("ideal"))}, r"chip\.calibration"),
    "age": (lambda: {"chip": tiny.chip("noisy").at(1e6)}, r"chip\."),
    "data": (lambda: {"data": with_other_labels()}, r"data\.examples"),
    "name": (
        lambda: {"data": dataclasses.replace(tiny.stripes(), name="bars")},
        r"data\.name \"stripes\", not \"bars\"",
    ),
    "method": (lambda: {"method": tiny.METHODS["lora"]}, r"method\.name \"xbm\", not \"lora\""),
    "rate": (
        lambda: {"method": dataclasses.replace(tiny.METHODS["xbm"], mask_lr=1.0)},
        r"method\.mask_lr 0\.003, not 1",
    ),
    "recipe": (lambda: {"recipe": Recipe(epochs=2, batch_size=16)}, r"recipe\.epochs 1, not 2$"),
    "key": (lambda: {"key": jax.random.key(2)}, r"key\.words\[1\] 1, not 2$"),
    "generator": (lambda: {"key": jax.random.key(1, impl="rbg")}, r"key\.kind \"threefry2x32\", not \"rbg\""),
    "start": (lambda: {"start": tiny.made_up_task(tiny.chip("ideal"), methods.xbm())}, r"start null, not"),
    "chips": (lambda: {"chip_of_step": redrawn}, r"chip_of_step null, not \"redrawn\"$"),
}


@pytest.mark.parametrize("field", OTHERS)
def test_another_run_is_refused_by_what_differs(field, tmp_path):
    changes, message = OTHERS[field]
    store.save(tmp_path / "state", {"x": np.zeros(1)}, {"asked": [saved.asked(given())], "seconds": 0.0, "metas": None})
    other = given(**changes())
    with pytest.raises(OutputError, match=f"^save = '{tmp_path}': a new folder: the run in it has .*{message}"):
        adapt(
            *(other.chip, other.data),
            **{name: getattr(other, name) for name in ("method", "key", "start", "chip_of_step")},
            config=other.recipe,
            save=tmp_path,
        )
    assert asked_digest(other) != asked_digest(given())
    assert asked_digest(given()) == asked_digest(given(data=dataclasses.replace(tiny.stripes())))


def test_tasks_learned_together_are_not_one_of_them(tmp_path):
    with pytest.raises(Stop):
        learned("xbm", tmp_path, StopAt(epoch=0))
    with pytest.raises(OutputError, match="the run in it has 1 tasks, not 2"):
        learned("together", tmp_path)


def test_one_process_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(OutputError, match="a folder that no other process learns in"):
        learned("xbm", tmp_path)
    with locked(tmp_path), pytest.raises(OutputError, match="a folder that no other process learns in"):
        forget(tmp_path)


def test_images_that_stay_on_disk_carry_on_and_are_told_apart(tmp_path):
    data = tiny.stripes()
    streams = [
        Streamed(data.x_train.__getitem__, np.arange(len(data.x_train)), data.x_train.shape[1:], source)
        for source in ("here", "there")
    ]
    options = {"method": tiny.METHODS["head_only"], "key": jax.random.key(1), "config": killed.RECIPE}

    def learned_from(images, report=None):
        given = dataclasses.replace(data, x_train=images)
        return adapt(tiny.chip("ideal"), given, **options, save=tmp_path, report=report)

    with pytest.raises(Stop):
        learned_from(streams[0], StopAt(epoch=1))
    with pytest.raises(OutputError, match=r"has data\.examples [0-9a-f]{12}, not"):
        learned_from(streams[1])
    tiny.assert_same_bits(learned_from(streams[0]).trained, learned("head_only")[0].trained)


# ---------------------------------------------------------------------------------------------------------------------
# Damage


def damage(generation: Path, bit: int) -> None:
    """Flip a bit in the middle of every file of a save."""
    for path in filter(Path.is_file, generation.rglob("*")):
        content = bytearray(path.read_bytes())
        if content:
            content[len(content) // 2] ^= bit
            path.write_bytes(content)


def test_a_damaged_save_is_passed_over_with_a_warning(tmp_path):
    for epoch in (0, 1):
        with pytest.raises(Stop):
            learned("xbm", tmp_path, StopAt(epoch=epoch))
    damage(max((tmp_path / "state").glob("0*")), 4)
    with pytest.warns(UserWarning, match="the newest save in .* is damaged, the run carries on from one before it"):
        assert digest_of(learned("xbm", tmp_path)) == wanted("xbm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned("xbm", tmp_path)
    for path in (tmp_path / "state").glob("0*"):
        damage(path, 2)
    with pytest.raises(
        BankError, match=r"a save that is whole; xbm\.training\.forget\(folder\) lets the run begin anew"
    ):
        learned("xbm", tmp_path)
    forget(tmp_path)
    assert not tmp_path.exists()


def test_forget_leaves_what_is_not_a_runs(tmp_path):
    with pytest.raises(Stop):
        learned("xbm", tmp_path, StopAt(epoch=0))
    (tmp_path / "notes.txt").write_text("mine")
    forget(tmp_path)
    forget(tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: learned("xbm", 7), OutputError, r"save = 'int': a path, Saves\(path, \.\.\.\), or None"),
        (lambda: learned("xbm", ""), OutputError, r"Saves\.folder = '': a path"),
        (
            lambda: Saves(3),  # type: ignore[arg-type]
            OutputError,
            r"Saves\.folder = 'int': a path",
        ),
        (lambda: Saves("a", every_seconds=-1), SpecError, r"Saves\.every_seconds = -1: a finite number at least 0"),
        (lambda: Saves("a", keep=0), SpecError, r"Saves\.keep = 0: an integer from 1 to 1000"),
        (lambda: Saves("a", log_steps=0), SpecError, r"Saves\.log_steps = 0: an integer from 1"),
        (lambda: read_log("none"), BankError, r"folder = 'none': the folder of a saved run, with a log\.jsonl in it"),
    ],
)
def test_what_is_no_place_is_named(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


# ---------------------------------------------------------------------------------------------------------------------
# The log


def test_the_log_has_every_step_once_and_no_torn_line(tmp_path):
    for step in (5, 20, 21):
        with pytest.raises(Stop):
            learned("xbm", Saves(tmp_path, every_seconds=100, log_steps=2), StopAt(step))
        with (tmp_path / "log.jsonl").open("ab") as file:
            file.write(b'{"kind": "step", "epoch": 0, "st')
        assert read_log(tmp_path)[-1]["kind"] == "step"
    learned("xbm", Saves(tmp_path, log_steps=2))
    rows = read_log(tmp_path)
    steps = [row for row in rows if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(2, 3 * STEPS, 2))
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [0, 1, 2]
    assert [row["step"] for row in rows if row["kind"] == "begin"] == [0, 0, STEPS, STEPS]
    assert set(steps[0]) == {
        "kind",
        "epoch",
        "step",
        "loss",
        "accuracy",
        "rates",
        "images_per_second",
        "seconds",
        "steps",
    }
    assert set(steps[0]["rates"]) == {"masks", "norms", "head"}
    assert all(json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    history = [(row["loss"], row["val_accuracy"]) for row in rows if row["kind"] == "epoch"]
    (task,) = learned("xbm", tmp_path)
    assert history == [(row["loss"], row["val_accuracy"]) for row in task.meta["history"]]


def test_a_damaged_line_is_warned_of(tmp_path):
    learned("head_only", tmp_path)
    path = tmp_path / "log.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace('"step": 34', '"step": 36')
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match=r"log\.jsonl: lines 3 were damaged on disk and are left out"):
        assert [row["step"] for row in read_log(tmp_path)] == [0, 17, 51]


def test_tasks_learned_together_are_logged_each(tmp_path):
    tasks = learned("together", tmp_path)
    (row, *_) = (row for row in read_log(tmp_path) if row["kind"] == "epoch")
    assert [each["task"] for each in row["each"]] == ["stripes", "turned"]
    assert [each["loss"] for each in row["each"]] == [task.meta["history"][0]["loss"] for task in tasks]
    assert row["loss"] == pytest.approx(np.mean([each["loss"] for each in row["each"]]))
