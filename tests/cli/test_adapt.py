"""``xbm adapt`` and ``xbm bank`` on a user's own data, from end to end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from cli import small
from tasks import tiny
from xbm_jax.cli import commands
from xbm_jax.tasks import MaskBank, describe, load_chip, predict

ADAPT = ("adapt", "--epochs", "1", "--batch-size", "16")


@pytest.fixture
def with_tiny(monkeypatch):
    small.register(monkeypatch)


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    """A bank of the bundled ResNet-20 with a task from an array file."""
    root = tmp_path_factory.mktemp("adapt")
    small.write_npz(root / "halves.npz")
    assert small.run(*ADAPT, "--task", f"npz:{root / 'halves.npz'}", "--bank", root / "bank") == 0
    return root / "bank"


def test_array_task_is_in_the_bank(bank):
    described = describe(bank)
    (task,) = (described["tasks"][name] for name in ["halves"])
    assert (task["method"]["name"], task["method"]["norms"], task["classes"]) == ("xbm", "full", 2)
    meta = task["meta"]
    assert meta["images"] == {"train": 34, "validation": 6, "test": 20}
    assert meta["class_names"] == list(small.CLASSES)
    assert (meta["epochs"], meta["batch_size"]) == (1, 16)
    assert small.leftovers(bank) == []


def test_folder_task_joins_it_on_the_same_chip(bank, tmp_path, capsys):
    folder = small.write_folder(tmp_path / "my pictures")
    before = tiny.leaves(load_chip(bank / "chip"))
    assert small.run(*ADAPT, "--task", f"folder:{folder}", "--bank", bank) == 0
    tiny.assert_same_bits(load_chip(bank / "chip"), before)
    shown = capsys.readouterr()
    (line,) = shown.out.splitlines()
    assert shown.err == ""
    assert line.startswith("my_pictures: ") and line.endswith(f"0 cells written. Stored in {bank}.")
    assert " of 20 test images (validation " in line
    assert "; 4,400 mask, 0 weight, 88,064 norm and 4,160 head bits; " in line
    task = MaskBank.open(bank, load_chip(bank / "chip")).get("my_pictures")
    assert f" {task.meta['accuracy']:.1%} of" in line
    assert task.meta["class_names"] == list(small.CLASSES)


def test_stored_task_predicts_what_was_reported(bank):
    chip = load_chip(bank / "chip")
    task = MaskBank.open(bank, chip).get("halves")
    arrays = small.arrays()
    guess = np.argmax(predict(chip, task, arrays["x_test"], key=jax.random.key(0)), -1)
    assert np.mean(guess == arrays["y_test"]) == task.meta["accuracy"]


def test_list_names_every_task(bank, capsys):
    described = describe(bank)
    assert small.run("bank", "list", bank) == 0
    shown = capsys.readouterr().out
    assert f"cifar-resnet20, chip {described['chip']['identity'][:12]}, 64 rows" in shown
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    assert rows == [
        [name, "xbm", "2", f"{task['meta']['accuracy']:.1%}", "full"] for name, task in described["tasks"].items()
    ]


def test_show_is_json_of_everything_or_of_one_task(bank, capsys):
    assert small.run("bank", "show", bank) == 0
    assert json.loads(capsys.readouterr().out) == describe(bank)
    assert small.run("bank", "show", bank, "--task", "halves") == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown["tasks"]) == ["halves"] and shown["chip"] == describe(bank)["chip"]


def torch_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's names and layouts of the small backbone's arrays."""
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var", "bias": "bias"}
    layouts = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    renamed = {}
    for path, array in arrays.items():
        layer, leaf = path.rsplit("/", 1)
        renamed[f"{layer}.{leaves[leaf]}"] = np.ascontiguousarray(array.transpose(layouts[array.ndim]))
    return renamed


def test_own_weights_are_calibrated_on_the_tasks_images(tmp_path, capsys, with_tiny):
    small.write_weights(tmp_path / "ours.npz")
    save_file(torch_names(small.own_weights()), tmp_path / "theirs.safetensors")
    task = small.write_npz(tmp_path / "halves.npz")
    for file, bank in (("ours.npz", "a"), ("theirs.safetensors", "b")):
        given = ("--model", "tiny", "--weights", tmp_path / file, "--bank", tmp_path / bank)
        assert small.run(*ADAPT, "--task", f"npz:{task}", *given, "--method", "head-only", "--name", "halves+") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "Measuring input scales and converter ranges on 40 training images."
        assert lines[1].startswith("halves+: ") and len(lines) == 2
    ours, theirs = (load_chip(tmp_path / bank / "chip") for bank in "ab")
    assert ours.calibrated
    tiny.assert_same_bits(theirs, ours)
    tasks = [MaskBank.open(tmp_path / bank, ours).get("halves+") for bank in "ab"]
    tiny.assert_same_bits(tasks[1], tasks[0])
    assert (tmp_path / "a" / "tasks" / "halves+").is_dir()


def test_resized_grey_task_replaces_one_of_its_name_and_is_not_measured_again(tmp_path, capsys, monkeypatch, with_tiny):
    small.write_weights(tmp_path / "w.npz")
    task = small.write_npz(tmp_path / "grey.npz", **small.arrays(size=20, channels=1))
    seen = []

    def made_up(chip, data, *, method, **_):
        seen.append(data.x_train.shape)
        meta = {"accuracy": len(seen) / 4, "val_accuracy": 0.5, "images": {"test": 20}}
        return tiny.made_up_task(chip, method, data.num_classes).replace(meta=meta)

    monkeypatch.setattr(commands, "adapt", made_up)
    given = ("--model", "tiny", "--weights", tmp_path / "w.npz", "--bank", tmp_path / "bank", "--image-size", "16")
    for norms in ("frozen", "affine"):
        assert small.run(*ADAPT, "--task", f"npz:{task}", *given, "--norms", norms) == 0
    assert seen == [(40, 16, 16, 3)] * 2
    assert capsys.readouterr().out.count("Measuring") == 1
    (stored,) = describe(tmp_path / "bank")["tasks"].values()
    assert (stored["meta"]["accuracy"], stored["method"]["norms"]) == (0.5, "affine")


def test_interrupt_stores_nothing(tmp_path, capsys, monkeypatch, with_tiny):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "adapt", interrupted)
    small.write_weights(tmp_path / "w.npz")
    task = small.write_npz(tmp_path / "halves.npz")
    given = ("--model", "tiny", "--weights", tmp_path / "w.npz", "--bank", tmp_path / "bank")
    assert small.run(*ADAPT, "--task", f"npz:{task}", *given) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [path for path in (tmp_path / "bank").rglob("*") if path.is_file()] == []


def test_a_training_that_diverges_is_one_line_and_leaves_nothing(with_tiny, tmp_path, capsys, monkeypatch):
    fast = dataclasses.replace(tiny.METHODS["norm_only-full"], norm_lr=1e30, head_lr=1e30)
    monkeypatch.setattr(commands.methods, "by_name", lambda *_, **__: fast)
    small.write_npz(tmp_path / "halves.npz")
    small.write_weights(tmp_path / "tiny.npz")
    model = ("--model", "tiny", "--weights", tmp_path / "tiny.npz")
    arguments = (*ADAPT, *model, "--task", f"npz:{tmp_path / 'halves.npz'}", "--bank", tmp_path / "bank")
    assert small.run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xbm: loss at step 2 of 2, epoch 1, of 'halves' = nan: finite numbers; lower the learning")
    assert not any(path.is_file() for path in (tmp_path / "bank").rglob("*"))
