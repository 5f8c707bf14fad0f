"""``xbm bank``: what it prints, what it leaves with, what it refuses."""

import json

import pytest

from cli import small
from tasks import tiny
from xbm_jax.banks import MaskBank, load_bank, save_chip
from xbm_jax.masks import methods


@pytest.fixture(autouse=True)
def with_tiny(monkeypatch):
    small.register(monkeypatch)


@pytest.fixture
def bank(tmp_path):
    chip = tiny.chip("ideal")
    save_chip(chip, tmp_path / "bank" / "chip")
    bank = MaskBank.create(tmp_path / "bank", chip)
    for seed in range(2):
        bank.put("t", tiny.made_up_task(chip, methods.xbm(), seed=seed))
    bank.put("u", tiny.made_up_task(chip, methods.head_only()))
    return bank


def test_list_says_what_the_tasks_take(bank, capsys):
    assert small.run("bank", "list", bank.folder) == 0
    title, note, *_ = capsys.readouterr().out.splitlines()
    assert title.startswith("tiny, chip ")
    parameters = json.loads((bank.folder / "bank.json").read_text())["parameters"]
    wanted = [array.size for path, array in tiny.weights().arrays.items() if not path.endswith(("/mean", "/var"))]
    assert parameters == sum(wanted)
    assert f"bytes on disk for 2 tasks; fine-tuned checkpoints ({parameters:,} parameters at 32 bits)" in note


def test_a_task_is_removed_restored_renamed_and_tidied(bank, capsys):
    folder = bank.folder
    assert small.run("bank", "remove", folder, "t") == 0
    assert "xbm bank restore" in capsys.readouterr().out and bank.names == ["u"]
    assert small.run("bank", "history", folder, "t") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines[-3:]] == ["3", "2", "1"]
    assert lines[-3][1] == "current" and "removed" in lines[-3] and "xbm" in lines[-2]
    assert small.run("bank", "restore", folder, "t", "--generation", "1") == 0
    assert bank.meta("t")["task"] == "made up 0"
    assert small.run("bank", "rename", folder, "t", "v") == 0
    assert bank.names == ["u", "v"]
    assert small.run("bank", "gc", folder, "--removed") == 0
    assert "1 removed tasks" in capsys.readouterr().out
    assert small.run("bank", "verify", folder) == 0
    assert "every byte is as it was written" in capsys.readouterr().out


def test_verify_names_what_is_damaged(bank, capsys):
    data = next((bank.folder / "tasks" / "t" / "000001").rglob("data/0"))
    data.write_bytes(data.read_bytes()[:-1])
    assert small.run("bank", "verify", bank.folder) == 1
    assert capsys.readouterr().err.startswith("xbm: task 't', generation 1: ")
    assert small.run("bank", "list", bank.folder) == 0
    cells = next((bank.folder / "chip").rglob("data/0"))
    cells.write_bytes(b"\xff" + cells.read_bytes()[1:])
    assert small.run("bank", "verify", bank.folder) == 1
    assert "xbm: the bank's chip: " in capsys.readouterr().err


def test_a_bank_goes_through_a_file(bank, tmp_path, capsys):
    file, new = tmp_path / "f.safetensors", tmp_path / "new"
    assert small.run("bank", "export", bank.folder, file, "--task", "t") == 0
    assert f"{file.stat().st_size:,} bytes" in capsys.readouterr().out
    assert small.run("bank", "list", file) == 0 and small.run("bank", "show", file) == 0
    assert small.run("bank", "import", file, new) == 0
    assert load_bank(new).get("t") == bank.get("t") and load_bank(new).names == ["t"]
    assert small.run("bank", "import", file, new) == 2
    assert small.run("bank", "import", file, new, "--replace") == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("verify", "{}/nothing"), "a folder with a bank.json in it"),
        (("gc", "{}/nothing"), "a folder with a bank.json in it"),
        (("history", "{}/bank", "no"), "one of t, u"),
        (("restore", "{}/bank", "u"), "an undamaged older generation"),
        (("restore", "{}/bank", "t", "--generation", "9"), "an undamaged one of 't'"),
        (("rename", "{}/bank", "t", "u"), "free"),
        (("rename", "{}/bank", "t", "../x"), "letters, digits"),
        (("remove", "{}/bank", "../chip"), "letters, digits"),
        (("remove", "{}/bank", "no"), "one of t, u"),
        (("export", "{}/bank", "{}/f.npz"), "ends in .safetensors"),
        (("export", "{}/bank", "{}/f.safetensors", "--task", "no"), "some of t, u"),
        (("import", "{}/no.safetensors", "{}/bank"), "a file that can be read"),
        (("verify", "{}/no.safetensors"), "a file that can be read"),
        (("push", "{}/bank", "name"), "owner/repository"),
        (("pull", "hf://name", "{}/new"), "hf://owner/repository"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_refused_is_one_line(bank, tmp_path, capsys, args, said):
    assert small.run("bank", *(arg.format(tmp_path) for arg in args)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("xbm: ") and said in line
    assert bank.names == ["t", "u"]
