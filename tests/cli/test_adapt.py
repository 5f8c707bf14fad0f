"""``xbm adapt`` and ``xbm bank`` on a user's own data, from end to end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from cli import small
from tasks import tiny
from xbm_jax import models
from xbm_jax.banks import MaskBank, describe, load_chip
from xbm_jax.cli import commands
from xbm_jax.streams import Command, stream
from xbm_jax.tasks import predict

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


@pytest.mark.slow
def test_array_task_is_in_the_bank(bank):
    described = describe(bank)
    (task,) = (described["tasks"][name] for name in ["halves"])
    assert (task["method"]["name"], task["method"]["norms"], task["classes"]) == ("xbm", "full", 2)
    meta = task["meta"]
    assert meta["images"] == {"train": 34, "validation": 6, "test": 20}
    assert meta["class_names"] == list(small.CLASSES)
    assert (meta["epochs"], meta["batch_size"]) == (1, 16)
    assert small.leftovers(bank) == []


@pytest.mark.slow
def test_folder_task_joins_it_on_the_same_chip(bank, tmp_path, capsys):
    folder = small.write_folder(tmp_path / "my pictures")
    before = tiny.leaves(load_chip(bank / "chip"))
    assert small.run(*ADAPT, "--task", f"folder:{folder}", "--bank", bank) == 0
    tiny.assert_same_bits(load_chip(bank / "chip"), before)
    shown = capsys.readouterr()
    placed, line = shown.out.splitlines()
    assert shown.err == ""
    head = "640 stay digital: linear/kernel."
    assert placed == f"cifar-resnet20: 267,696 weights on arrays (19 layers); {head}"
    assert line.startswith("my_pictures: ") and line.endswith(f"0 cells written. Stored in {bank}.")
    assert " of 20 test images (validation " in line
    assert "; 4,400 mask, 0 weight, 22,016 norm and 1,088 head bits; " in line
    task = MaskBank.open(bank, load_chip(bank / "chip")).get("my_pictures")
    assert f" {task.meta['accuracy']:.1%} of" in line
    assert task.meta["class_names"] == list(small.CLASSES)


@pytest.mark.slow
def test_stored_task_predicts_what_was_reported(bank):
    chip = load_chip(bank / "chip")
    task = MaskBank.open(bank, chip).get("halves")
    arrays = small.arrays()
    guess = np.argmax(predict(chip, task, arrays["x_test"], key=jax.random.key(0)), -1)
    assert np.mean(guess == arrays["y_test"]) == task.meta["accuracy"]


@pytest.mark.slow
def test_list_names_every_task(bank, capsys):
    described = describe(bank)
    assert small.run("bank", "list", bank) == 0
    shown = capsys.readouterr().out
    assert f"cifar-resnet20, chip {described['chip']['identity'][:12]}, 64 rows" in shown
    assert [line.split() for line in shown.splitlines()[-len(described["tasks"]) :]] == [
        [name, "xbm", "2", f"{task['meta']['accuracy']:.1%}", "full"] for name, task in described["tasks"].items()
    ]


@pytest.mark.slow
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
        assert lines[0] == "tiny: 1,368 weights on arrays (3 layers); 40 stay digital: linear/kernel."
        assert lines[1] == "Measuring input scales and converter ranges on 40 training images."
        assert lines[2].startswith("halves+: ") and len(lines) == 3
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
        assert small.run(*ADAPT, "--task", f"npz:{task}", *given, "--norms", norms, "--replace") == 0
    assert seen == [(40, 16, 16, 3)] * 2
    assert capsys.readouterr().out.count("Measuring") == 1
    (stored,) = describe(tmp_path / "bank")["tasks"].values()
    assert (stored["meta"]["accuracy"], stored["method"]["norms"]) == (0.5, "affine")


@pytest.fixture
def on_small(tmp_path, monkeypatch, with_tiny) -> Callable[..., list[object]]:
    """A call on the small backbone, whose chip is calibrated on the task's images; nothing is learned."""
    small.write_weights(tmp_path / "w.npz")
    small.write_npz(tmp_path / "halves.npz")
    monkeypatch.setattr(commands, "adapt", small.made_up)
    given = ("--model", "tiny", "--weights", tmp_path / "w.npz", "--bank", tmp_path / "bank")
    return lambda *options: [*ADAPT, "--task", f"npz:{tmp_path / 'halves.npz'}", *given, *options]


def test_interrupt_stores_the_chip_alone_to_carry_on_with(tmp_path, capsys, monkeypatch, on_small):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands, "adapt", interrupted)
        assert small.run(*on_small()) == 130
    assert "interrupted" in capsys.readouterr().err
    assert describe(tmp_path / "bank")["tasks"] == {}
    before = tiny.leaves(load_chip(tmp_path / "bank" / "chip"))
    assert small.run(*on_small()) == 0
    assert "Measuring" not in capsys.readouterr().out
    tiny.assert_same_bits(load_chip(tmp_path / "bank" / "chip"), before)


def test_a_taken_name_is_refused_before_any_work_unless_it_is_to_be_replaced(tmp_path, capsys, monkeypatch, on_small):
    assert small.run(*on_small()) == 0
    assert small.run(*on_small("--name", "other")) == 0
    capsys.readouterr()
    before = small.everything(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(commands, "program", None)
        for given in ((), ("--name", "halves")):
            assert small.run(*on_small(*given)) == 2
            line = "xbm: --name = 'halves': a name that is free, or --replace; the bank has halves, other\n"
            assert capsys.readouterr() == ("", line)
    assert small.everything(tmp_path) == before
    assert small.run(*on_small("--replace", "--norms", "affine")) == 0
    assert describe(tmp_path / "bank")["tasks"]["halves"]["method"]["norms"] == "affine"


def test_a_name_that_is_taken_meanwhile_keeps_both_tasks(tmp_path, capsys, monkeypatch, on_small):
    def overtaken(chip, data, **options):
        task = small.made_up(chip, data, **options)
        MaskBank.open(tmp_path / "bank", chip).put("halves", task.replace(meta={**task.meta, "accuracy": 0.25}))
        return task

    monkeypatch.setattr(commands, "adapt", overtaken)
    assert small.run(*on_small()) == 1
    said = "xbm: --name = 'halves': was taken while this task was learned; it is stored as halves+2\n"
    assert capsys.readouterr().err == said
    accuracy = {name: task["meta"]["accuracy"] for name, task in describe(tmp_path / "bank")["tasks"].items()}
    assert accuracy == {"halves": 0.25, "halves+2": 0.5}


def test_of_two_that_make_a_bank_at_once_both_learn_on_the_first_ones_chip(tmp_path, monkeypatch, on_small):
    dark = small.arrays()
    small.write_npz(tmp_path / "dark.npz", x_train=dark["x_train"] // 8)
    learned_on, measured = [], commands.chip_for_bank

    def watched(chip, data, **options):
        assert (tmp_path / "bank" / "bank.json").exists()
        learned_on.append(tiny.leaves(chip))
        return small.made_up(chip, data, **options)

    def overtaken(console, bank, chip, data):
        own = measured(console, bank, chip, data)
        with monkeypatch.context() as patch:
            patch.setattr(commands, "chip_for_bank", measured)
            assert small.run(*on_small("--task", f"npz:{tmp_path / 'dark.npz'}")) == 0
        with pytest.raises(AssertionError):
            tiny.assert_same_bits(own, learned_on[0])
        return own

    monkeypatch.setattr(commands, "adapt", watched)
    monkeypatch.setattr(commands, "chip_for_bank", overtaken)
    assert small.run(*on_small()) == 0
    tiny.assert_same_bits(learned_on[1], learned_on[0])
    tiny.assert_same_bits(load_chip(tmp_path / "bank" / "chip"), learned_on[0])
    assert list(describe(tmp_path / "bank")["tasks"]) == ["dark", "halves"]


def test_the_seed_draws_a_chip_and_apart_from_it_a_task(monkeypatch, on_small):
    drawn = []

    def watched(chip, data, *, key, **options):
        drawn.extend([chip, key])
        return small.made_up(chip, data, **options)

    monkeypatch.setattr(commands, "adapt", watched)
    assert small.run(*on_small("--seed", "3")) == 0
    seed = jax.random.key(3)
    wanted = models.program(tiny.weights(), tiny.SPECS["ideal"], seed).tiles["conv1"].key_data
    assert np.array_equal(drawn[0].tiles["conv1"].key_data, wanted)
    assert drawn[1] == stream(seed, Command.TASK)


def test_a_training_that_diverges_is_one_line_and_stores_no_task(with_tiny, tmp_path, capsys, monkeypatch):
    fast = dataclasses.replace(tiny.METHODS["norm_only-full"], norm_lr=1e30, head_lr=1e30)
    monkeypatch.setattr(commands.methods, "by_name", lambda *_, **__: fast)
    small.write_npz(tmp_path / "halves.npz")
    small.write_weights(tmp_path / "tiny.npz")
    model = ("--model", "tiny", "--weights", tmp_path / "tiny.npz")
    arguments = (*ADAPT, *model, "--task", f"npz:{tmp_path / 'halves.npz'}", "--bank", tmp_path / "bank")
    assert small.run(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xbm: loss at step 2 of 2, epoch 1, of 'halves' = nan: finite numbers; lower the learning")
    assert describe(tmp_path / "bank")["tasks"] == {}
