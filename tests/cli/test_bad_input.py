"""Bad input: exit code 2 and one line with the field, the value and what is allowed, before anything is learned."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from cli import small
from tasks import tiny
from xbm_jax import models
from xbm_jax.banks import save_chip
from xbm_jax.cli import bank as bank_commands
from xbm_jax.cli import commands, quickstart
from xbm_jax.masks.methods import METHODS


@pytest.fixture(autouse=True)
def nothing_is_learned(monkeypatch):
    def fail(*_args, **_options):
        raise AssertionError("training had begun")

    monkeypatch.setattr(commands, "adapt", fail)
    monkeypatch.setattr(quickstart, "adapt", fail)
    small.register(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Inputs, good and bad, and a bank of the small backbone."""
    root = tmp_path_factory.mktemp("inputs")
    small.write_npz(root / "good.npz")
    whole = (root / "good.npz").read_bytes()
    (root / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    labels = small.arrays()["y_train"]
    small.write_npz(root / "outside.npz", y_train=np.where(np.arange(40) == 7, 5, labels))
    small.write_npz(root / "negative.npz", y_test=small.arrays()["y_test"] - 1)
    small.write_npz(root / "empty_class.npz", class_names=np.array(["left", "right", "up"]))
    broken = small.arrays()["x_train"].astype(np.float32)
    broken[3, 0, 0, 0] = np.nan
    small.write_npz(root / "nan.npz", x_train=broken)
    small.write_npz(root / "float.npz", x_train=np.zeros((40, 16, 16, 3), np.float32))
    small.write_npz(root / "four.npz", **{k: v for k, v in small.arrays(channels=4).items() if k.startswith("x")})
    small.write_npz(root / "few.npz", **small.arrays(train=8))
    (root / "no_images" / "left").mkdir(parents=True)
    (root / "in_the_way").write_text("a file\n")
    (root / "file_in_bank").mkdir()
    (root / "file_in_bank" / "chip").write_text("a file\n")
    (root / "nothing").mkdir()
    for name in ("weights_folder.npz", "task_folder.npz", "picture_in_out/inspection.png", "page_in_out/REPORT.md"):
        (root / name).mkdir(parents=True)
    small.write_npz(root / "wide.npz", **{k: v[..., :1] for k, v in small.arrays().items() if k.startswith("x")})
    (root / "dangling").symlink_to(root / "nowhere" / "at" / "all")
    (root / "other_run").mkdir()
    (root / "other_run" / "config.json").write_text("[1, 2]\n")
    (root / "damaged").mkdir()
    (root / "damaged" / "bank.json").write_text(json.dumps({"format": 1, "chip": {"network": "tiny"}}))
    weights(root)
    save_chip(tiny.chip("ideal"), root / "chip")
    return root


def weights(root: Path) -> None:
    small.write_weights(root / "tiny.npz")
    own = small.own_weights()
    wrong: dict[str, np.ndarray | None] = {
        "bn1/scale": np.full_like(own["bn1/scale"], np.nan),
        "bn2/mean": None,
        "conv1/kernel": own["conv1/kernel"][:, :2],
        "extra/kernel": np.zeros(3),
    }
    small.write_weights(root / "misshapen.npz", wrong)
    (root / "weights.h5").write_text("something\n")
    (root / "torn.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")


def adapt(*options: str) -> list[str]:
    """A good call, with what ``options`` change (the last of two counts)."""
    return ["adapt", "--task", "npz:{}/good.npz", "--bank", "{}/new", "--batch-size", "16", *options]


CASES = {
    "method": (adapt("--method", "ksm"), "method", "'ksm'", "one of head_only, norm_only, xbm"),
    "model": (adapt("--model", "resnet18"), "model", "'resnet18'", "one of cifar-resnet20, cifar-resnet56"),
    "model without weights": (adapt("--model", "cifar-resnet56"), "weights", "None", "a weight file"),
    "weights missing": (adapt("--weights", "{}/none.npz"), "weights", "none.npz", "an existing file"),
    "weights of another kind": (adapt("--weights", "{}/weights.h5"), "weights", "weights.h5", ".npz, .safetensors"),
    "weights torn": (adapt("--weights", "{}/torn.safetensors"), "weights", "torn", "a whole .safetensors file"),
    "rows": (adapt("--rows", "3"), "CrossbarSpec.rows", "3", "8"),
    "active rows": (adapt("--rows", "96", "--active-rows", "64"), "CrossbarSpec.active_rows", "64", "the 96 rows"),
    "adc bits": (adapt("--adc-bits", "0"), "Adc.bits", "0", "1"),
    "cell bits": (adapt("--cell-bits", "9"), "Cell.bits", "9", "8"),
    "programming error": (adapt("--programming-sigma", "-0.5"), "sigma", "-0.5", "0"),
    "epochs": (adapt("--epochs", "0"), "Recipe.epochs", "0", "1"),
    "batch size": (adapt("--batch-size", "1"), "Recipe.batch_size", "1", "2"),
    "image size": (adapt("--image-size", "0"), "image_size", "0", "1..4096"),
    "task name": (adapt("--name", "my task"), "--name", "'my task'", "as in my_task"),
    "no such file": (adapt("--task", "npz:{}/none.npz"), "npz:", "no such file", "the path of an .npz"),
    "truncated task": (adapt("--task", "npz:{}/truncated.npz"), "npz:", "no zip archive", "a whole .npz with x_train"),
    "label outside the head": (adapt("--task", "npz:{}/outside.npz"), "y_train", "5 (1 times)", "0..1"),
    "negative label": (adapt("--task", "npz:{}/negative.npz"), "y_test", "-1 (10 times)", "0..1"),
    "empty class": (adapt("--task", "npz:{}/empty_class.npz"), "y_train", "'up'", "at least one training image"),
    "NaN images": (adapt("--task", "npz:{}/nan.npz"), "x_train", "NaN or infinity in 1 of 40", "uint8 images"),
    "float images": (adapt("--task", "npz:{}/float.npz"), "x_train.dtype", "'float32'", "uint8 images"),
    "four channels": (adapt("--task", "npz:{}/four.npz"), "channels", "4", "1 or 3 channels"),
    "no images": (adapt("--task", "folder:{}/no_images"), "folder:", "no images", "train/ and test/"),
    "no folder": (adapt("--task", "folder:{}/none"), "folder:", "no such folder", "one folder per class"),
    "path without its kind": (adapt("--task", "{}/good.npz"), "source", "good.npz", "write npz:"),
    "bundled name": (adapt("--task", "mnist"), "source", "'mnist'", "fashion_mnist, quickdraw, omniglot, npz:PATH"),
    "TFDS name": (adapt("--task", "tfds:no_such_set"), "source", "'tfds:no_such_set'", "a name that TFDS knows"),
    "bank is a file": (adapt("--bank", "{}/in_the_way"), "--bank", "in_the_way", "a writable folder"),
    "bank has a file": (adapt("--bank", "{}/file_in_bank"), "--bank", "file_in_bank", "a writable folder"),
    "out is a file": (["quickstart", "--out", "{}/in_the_way"], "--out", "in_the_way", "a writable folder"),
    "out under a file": (["quickstart", "--out", "{}/in_the_way/run"], "--out", "in_the_way/run", "a writable folder"),
    "out of another program": (["quickstart", "--out", "{}/other_run"], "--out", "other_run", "a new folder"),
    "source data": (["quickstart", "--out", "{}/q", "--source-data", "{}/nan.npz"], "x_train", "NaN", "uint8 images"),
    "inspect no images": (
        ["inspect", "{}/chip", "--task", "npz:{}/good.npz", "--images", "0"],
        "--images",
        "0",
        "least 1",
    ),
    "inspect no chip": (["inspect", "{}/nothing", "--task", "npz:{}/good.npz"], "folder", "nothing", "was saved to"),
    "inspect no task": (["inspect", "{}/chip", "--task", "mnist"], "source", "'mnist'", "fashion_mnist"),
    "inspect out is a file": (
        ["inspect", "{}/chip", "--task", "npz:{}/good.npz", "--out", "{}/in_the_way"],
        *("--out", "in_the_way", "a writable folder"),
    ),
    "list of nothing": (["bank", "list", "{}/nothing"], "bank", "nothing", "a bank.json in it"),
    "show of nothing": (["bank", "show", "{}/nowhere"], "bank", "nowhere", "a bank.json in it"),
    "another backbone's rows": (adapt("--rows", "7"), "CrossbarSpec.rows", "7", "8"),
    "on/off ratio": (adapt("--on-off", "nan"), "Cell.on_off", "nan", "1"),
    "infinite error": (adapt("--programming-sigma", "inf"), "sigma", "inf", "0"),
    "too many epochs": (adapt("--epochs", "999999999999"), "Recipe.epochs", "999999999999", "100000"),
    "no batch": (adapt("--batch-size", "0"), "Recipe.batch_size", "0", "2"),
    "image size below zero": (adapt("--image-size", "-5"), "image_size", "-5", "1..4096"),
    "empty name": (adapt("--name", ""), "--name", "''", "letters, digits"),
    "name of a folder": (adapt("--name", "../chip"), "--name", "'../chip'", "as in chip"),
    "name of another script": (adapt("--name", "é[red]"), "--name", "'é[red]'", "as in red_"),
    "long name": (adapt("--name", "n" * 300), "--bank", "nnn", "File name too long"),
    "no task": (adapt("--task", ""), "source", "''", "fashion_mnist"),
    "task is a folder": (adapt("--task", "npz:{}/task_folder.npz"), "task_folder.npz", "no such file", "an .npz file"),
    "task is a file": (adapt("--task", "folder:{}/good.npz"), "good.npz", "no such folder", "one folder per class"),
    "task of nobody": (
        adapt("--task", "npz:~nobody-of-that-name/t.npz"),
        "path",
        "~nobody-of-that-name",
        "the home folder of a user",
    ),
    "weights are a folder": (adapt("--weights", "{}/weights_folder.npz"), "weights", "weights_folder", "existing file"),
    "too few images": (adapt("--task", "npz:{}/few.npz"), "data.x_train", "8 images", "more than batch_size = 16"),
    "bank is a dangling link": (adapt("--bank", "{}/dangling"), "--bank", "dangling", "a writable folder"),
    "bank under a file": (adapt("--bank", "{}/good.npz/bank"), "--bank", "good.npz/bank", "a writable folder"),
    "bank of a pattern": (adapt("--bank", "{}/b[1]"), "--bank", "b[1]", "without [ ]"),
    "bank of no text": (adapt("--bank", "{}/b\udcff"), "--bank", "b\\udcff", "UTF-8"),
    "bank of a long name": (adapt("--bank", "{}/" + "b" * 300), "--bank", "bbb", "File name too long"),
    "seed below zero": (adapt("--seed", "-1"), "--seed", "-1", "from 0 to 4,294,967,295"),
    "seed of another": (adapt("--seed", "4294967296"), "--seed", "4294967296", "from 0 to 4,294,967,295"),
    "huge seed": (adapt("--seed", "99999999999999999999"), "--seed", "99999999999999999999", "from 0 to"),
    "quickstart's seed": (["quickstart", "--out", "{}/q", "--seed", "-1"], "--seed", "-1", "from 0 to"),
    "quickstart's page": (["quickstart", "--out", "{}/page_in_out"], "--out", "page_in_out", "REPORT.md is no folder"),
    "source data missing": (
        ["quickstart", "--out", "{}/q", "--source-data", "{}/none.npz"],
        *("npz:", "no such file", "the path of an .npz"),
    ),
    "source data of one channel": (
        ["quickstart", "--out", "{}/q", "--source-data", "{}/wide.npz"],
        *("images.shape", "1)", "3]"),
    ),
    "inspect's seed": (
        ["inspect", "{}/chip", "--task", "npz:{}/good.npz", "--seed", "9" * 30],
        *("--seed", "9" * 30, "from 0 to"),
    ),
    "inspect's image size": (
        ["inspect", "{}/chip", "--task", "npz:{}/good.npz", "--image-size", "0"],
        *("image_size", "0", "1..4096"),
    ),
    "inspect images below zero": (
        ["inspect", "{}/chip", "--task", "npz:{}/good.npz", "--images", "-3"],
        *("--images", "-3", "least 1"),
    ),
    "inspect's picture": (
        ["inspect", "{}/chip", "--task", "npz:{}/good.npz", "--out", "{}/picture_in_out"],
        *("--out", "picture_in_out", "inspection.png is no folder"),
    ),
    "inspect a file": (["inspect", "{}/good.npz", "--task", "npz:{}/good.npz"], "folder", "good.npz", "was saved to"),
    "list of a file": (["bank", "list", "{}/good.npz"], "bank", "good.npz", "a bank.json in it"),
    "damaged bank": (["bank", "list", "{}/damaged"], "bank.chip", "'tiny'", "an undamaged chip card"),
}


@pytest.mark.parametrize(("args", "field", "value", "allowed"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_one_line(folder, capsys, args, field, value, allowed):
    before = small.everything(folder)
    assert small.run(*(arg.format(folder) for arg in args)) == 2
    line = error_line(capsys)
    assert re.fullmatch(f"xbm: .*{re.escape(field)}.* = .*{re.escape(value)}.*: .*{re.escape(allowed)}.*", line)
    assert small.everything(folder) == before


def error_line(capsys) -> str:
    """What stands on standard error, which has to be one line."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_misshapen_weights_are_all_listed(folder, capsys):
    assert small.run(*on_small(folder, "--weights", folder / "misshapen.npz")) == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "xbm: weights = '4 mismatches': the arrays of tiny:"
    assert rest == [
        "  bn1/scale holds NaN or infinity",
        "  bn2/mean is missing",
        "  conv1/kernel has shape (3, 2, 3, 8), not (3, 3, 3, 8)",
        "  extra/kernel is unknown",
    ]


def test_weights_of_another_model_are_told_by_their_layers(folder, capsys):
    assert small.run(*(arg.format(folder) for arg in adapt("--weights", "{}/tiny.npz"))) == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"xbm: weights = '\d+ mismatches': the arrays of cifar-resnet20:", first)
    assert "  layer1_0/conv1/kernel is missing" in rest and "  conv2/kernel is unknown" in rest
    assert all(line.startswith("  ") for line in rest)


def on_small(folder: Path, *options: object) -> list[object]:
    """A call on the small backbone; of options given twice the last counts."""
    given = ("--model", "tiny", "--weights", folder / "tiny.npz", "--bank", folder / "bank")
    return ["adapt", "--task", f"npz:{folder}/good.npz", "--batch-size", "16", *given, *options]


@pytest.fixture
def bank(folder, monkeypatch) -> Path:
    """A bank of the small backbone with one task in it."""
    if not (folder / "bank" / "bank.json").exists():
        monkeypatch.setattr(commands, "adapt", small.made_up)
        assert small.run(*on_small(folder)) == 0
        monkeypatch.undo()
        small.register(monkeypatch)
    return folder / "bank"


OTHER_CHIPS: dict[str, tuple[tuple[str, ...], str]] = {
    "rows": (("--rows", "32"), r"spec\.rows = 32: 64"),
    "active rows": (("--active-rows", "16"), r"spec\.active_rows = 16: None"),
    "seed": (("--seed", "1"), "chip.identity"),
    "network": (("--model", "tiny2"), "chip.network = 'tiny2': tiny, what"),
}


@pytest.mark.parametrize(("options", "difference"), OTHER_CHIPS.values(), ids=OTHER_CHIPS.keys())
def test_bank_of_another_chip_is_refused_by_name(folder, bank, capsys, options, difference):
    capsys.readouterr()
    before = small.everything(folder)
    assert small.run(*on_small(folder, "--name", "new", *options)) == 2
    assert small.everything(folder) == before
    line = error_line(capsys)
    assert re.fullmatch(rf"xbm: --bank = '{bank}': a new folder, or the --model, .*that it was made with \(.*\)", line)
    assert re.search(difference, line)


def test_task_that_the_bank_does_not_hold(bank, capsys):
    capsys.readouterr()
    assert small.run("bank", "show", bank, "--task", "flowers") == 2
    assert error_line(capsys) == "xbm: --task = 'flowers': one of good"


def test_bank_without_its_chip_or_with_another_is_refused_by_name(folder, bank, tmp_path, capsys):
    kept = shutil.copytree(bank, tmp_path / "kept")
    shutil.rmtree(kept / "chip")
    for reason in ("chip = 'missing': the chip that the bank was made with", "chip.conv1.spec.adc"):
        before = small.everything(tmp_path)
        assert small.run(*on_small(folder, "--name", "new", "--bank", kept)) == 2
        assert small.everything(tmp_path) == before
        line = error_line(capsys)
        assert line.startswith(f"xbm: --bank = '{kept}': a new folder, or the --model,") and reason in line
        save_chip(models.program(tiny.weights(), tiny.SPECS["ideal"], jax.random.key(9)), kept / "chip")


USAGE: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "quickstart"),
    "unknown command": (["train"], "train"),
    "nothing to inspect on": (["inspect", "chip"], "--task"),
    "task missing": (["adapt", "--bank", "b"], "--task"),
    "no number": (["adapt", "--task", "t", "--bank", "b", "--rows", "many"], "many"),
    "norm policy": (["adapt", "--task", "t", "--bank", "b", "--norms", "some"], "some"),
    "unknown option": (["quickstart", "--speed", "9"], "--speed"),
    "bank without action": (["bank"], "list"),
    "no bank": (["adapt", "--task", "t", "--bank="], "empty path"),
    "home of nobody": (["adapt", "--task", "t", "--bank=~nobody-of-that-name/b"], "no user"),
}


@pytest.mark.parametrize(("args", "named"), USAGE.values(), ids=USAGE.keys())
def test_usage_error(capsys, args, named):
    assert small.run(*args) == 2
    shown = capsys.readouterr()
    assert named in shown.err and "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["quickstart"], ("--out", "--seed", "--full", "--source-data")),
        (["adapt"], ("--task", "--bank", "--method", "--norms", "--weights", "--rows", "--adc-bits", "--image-size")),
        (["inspect"], ("--task", "--images", "--image-size", "--out", "--seed")),
        (["bank", "show"], ("--task",)),
    ],
)
def test_help_names_every_option(capsys, command, options):
    assert small.run(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert [option for option in options if option not in shown] == []


def test_help_names_every_method(capsys):
    assert small.run("adapt", "--help") == 0
    shown = re.split(r"[^a-z0-9_]+", capsys.readouterr().out)
    assert [name for name in METHODS if name not in shown] == []


def test_a_file_that_cannot_be_read_is_one_line(monkeypatch, capsys):
    def unreadable(*_):
        raise PermissionError(13, "Permission denied", "b/bank.json")

    monkeypatch.setattr(bank_commands, "describe", unreadable)
    assert small.run("bank", "list", "b") == 2
    assert error_line(capsys) == "xbm: [Errno 13] Permission denied: 'b/bank.json'"


def test_a_bug_is_no_user_error(monkeypatch):
    def broken(*_):
        raise TypeError("a bug")

    monkeypatch.setattr(bank_commands, "describe", broken)
    with pytest.raises(TypeError, match="a bug"):
        small.run("bank", "list", "b")
