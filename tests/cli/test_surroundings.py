"""What a command prints, and where: pipes, narrow terminals, other encodings, odd names, damaged tasks, a tilde."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import small
from tasks import tiny
from xbm_jax import cli
from xbm_jax.banks import MaskBank, describe, save_chip
from xbm_jax.cli import bank as bank_commands
from xbm_jax.cli import commands
from xbm_jax.masks import methods

LONG = "cubs_cropped.piggyback_ternary.ideal_chip.rows_128.seed_0003"
TASKS = {
    LONG: "xbm",
    "plain": "xbm[lr=2e-4]",
    "red": "norm_only [red]warm[/red]",
    "half": "half[/]",
    "heart": "a :red_heart: b",
    "lines": "two\nlines\x1b[31m",
}
SHOWN = TASKS | {"lines": r"two\nlines\x1b[31m"}


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    """A bank of tasks with names of all kinds, in a folder with a letter that ASCII lacks."""
    folder = tmp_path_factory.mktemp("surroundings") / "my bank é"
    chip = tiny.chip("ideal")
    save_chip(chip, folder / "chip")
    made = MaskBank.create(folder, chip)
    for name, method in TASKS.items():
        made.put(name, tiny.made_up_task(chip, dataclasses.replace(methods.norm_only(), name=method)))
    return folder


@pytest.fixture(autouse=True)
def with_tiny(monkeypatch):
    small.register(monkeypatch)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["20", "80"])
def test_list_into_a_pipe_has_whole_names_whatever_the_width(bank, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert small.run("bank", "list", bank) == 0
    title, *lines = map(str.rstrip, capsys.readouterr().out.splitlines())
    assert title.startswith("tiny, chip ") and title.endswith(", 24 rows")
    rows = [line for line in lines if line.endswith("full")]
    assert len(rows) == len(TASKS)
    for row, (name, method) in zip(rows, sorted(SHOWN.items()), strict=True):
        assert row.split(maxsplit=1)[0] == name
        assert row.split(maxsplit=1)[1].rsplit(maxsplit=3)[0].rstrip() == method


@pytest.mark.parametrize("columns", [20, 60])
def test_list_on_a_narrow_terminal_goes_on_in_the_next_line(bank, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert small.run("bank", "list", bank) == 0
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in terminal.getvalue().splitlines()]
    assert "…" not in terminal.getvalue()
    assert max(len(line) for line in lines if not line.startswith(("tiny", "("))) <= columns
    assert LONG in "".join(line.split(maxsplit=1)[0] for line in lines if not line.startswith((" ", "tiny", "(")))


def test_show_is_strict_json_of_names_and_all(bank, capsys):
    assert small.run("bank", "show", bank) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {name: task["method"]["name"] for name, task in shown["tasks"].items()} == TASKS


def test_show_has_null_where_an_older_version_stored_no_number(bank, capsys, monkeypatch):
    described = describe(bank)
    described["tasks"]["plain"]["meta"] = {"history": [{"loss": math.nan}, {"loss": math.inf}], "accuracy": 0.5}
    monkeypatch.setattr(bank_commands, "describe", lambda _: described)
    assert small.run("bank", "show", bank, "--task", "plain") == 0
    meta = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["tasks"]["plain"]["meta"]
    assert meta == {"history": [{"loss": None}, {"loss": None}], "accuracy": 0.5}


def test_a_damaged_task_is_named_and_the_others_are_listed(tmp_path, capsys):
    chip = tiny.chip("ideal")
    made = MaskBank.create(tmp_path, chip)
    for name in "xyz":
        made.put(name, tiny.made_up_task(chip, methods.norm_only()))
    (description,) = (tmp_path / "tasks" / "y").rglob("_CHECKPOINT_METADATA")
    description.write_text("xxxx")
    assert small.run("bank", "list", tmp_path) == 1
    shown = capsys.readouterr()
    assert [line.split() for line in shown.out.splitlines()[-3:]] == [
        ["x", "norm_only", "4", "50.0%", "full"],
        ["y", "damaged", "-", "-", "-"],
        ["z", "norm_only", "4", "50.0%", "full"],
    ]
    (line,) = shown.err.splitlines()
    assert line.startswith("xbm: task 'y' is damaged: ")
    assert small.run("bank", "show", tmp_path) == 1
    shown = capsys.readouterr()
    assert list(json.loads(shown.out)["tasks"]["y"]) == ["error"] and shown.err.startswith("xbm: task 'y' is damaged: ")
    assert small.run("bank", "show", tmp_path, "--task", "z") == 0


def test_output_that_has_ascii_alone_gets_the_rest_as_escapes(bank, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", output := io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    monkeypatch.setattr(commands, "adapt", small.made_up)
    small.write_weights(tmp_path / "w.npz")
    small.write_npz(tmp_path / "été.npz")
    task, out = f"npz:{tmp_path / 'été.npz'}", tmp_path / "looké"
    given = ("--model", "tiny", "--weights", tmp_path / "w.npz", "--bank", tmp_path / "é")
    assert small.run("adapt", "--task", task, "--batch-size", "16", *given) == 0
    assert small.run("inspect", bank / "chip", "--task", task, "--images", "4", "--out", out) == 0
    assert small.run("bank", "list", tmp_path / "é") == 0
    lines = output.buffer.getvalue().decode("ascii").splitlines()
    assert next(line for line in lines if line.startswith("t_: ")).endswith(rf"Stored in {tmp_path}/\xe9.")
    assert rf"Written to {tmp_path}/look\xe9: inspection.json and inspection.png." in lines
    assert small.run("adapt", "--task", "npz:нет.npz", "--bank", tmp_path / "b") == 2
    assert small.run("adapt", "--help") == 0


def test_no_output_at_all_is_no_error(bank, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert small.run("bank", "list", bank) == 0
    assert small.run("bank", "show", bank) == 0


@pytest.mark.parametrize("command", ["list", "show"])
def test_a_reader_that_goes_away_ends_the_command_without_a_word(bank, command):
    code = "import sys; from xbm_jax.cli import main; main()"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        given = [sys.executable, "-c", code, "bank", command, str(bank)]
        done = subprocess.run(given, stdout=writer, stderr=subprocess.PIPE, timeout=120, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


TILDES = {
    "adapt": ["adapt", "--task", "t", "--bank=~/b", "--weights=~/w.npz"],
    "inspect": ["inspect", "~/b/chip", "--task", "t", "--out=~/o"],
    "list": ["bank", "list", "~/b"],
    "show": ["bank", "show", "~/b"],
    "quickstart": ["quickstart", "--out=~/q", "--source-data=~/s.npz"],
}


@pytest.mark.parametrize("args", TILDES.values(), ids=TILDES)
def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch, args):
    monkeypatch.setenv("HOME", "/home of mine")
    values = fields(cli._parsed(args))
    wanted = [Path("/home of mine", arg.split("~/")[1]) for arg in args if "~" in arg]
    assert [Path(value) for value in values if str(value).startswith("/home of mine")] == wanted
    assert not any("~" in str(value) for value in values)
    paths = [value for value in values if isinstance(value, Path)]
    assert len(paths) >= len(wanted) - (args[0] == "adapt")  # no path option without a tilde here


def test_an_address_on_the_hub_is_no_path():
    command = cli._parsed(["adapt", "--task", "t", "--bank", "b", "--weights", "hf://owner/repository/w.npz"])
    assert fields(command).count("hf://owner/repository/w.npz") == 1


def fields(command: Any) -> list[Any]:
    """All values of a command, in order."""
    values = [getattr(command, field.name) for field in dataclasses.fields(command)]
    return [v for value in values for v in (fields(value) if dataclasses.is_dataclass(value) else [value])]
