"""``xbm report``: of a bank with its chip, without it, of a saved run, and of what is none of these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from cli import small
from report.pages import Elements
from tasks import tiny
from xbm_jax.banks import MaskBank, save_chip
from xbm_jax.masks import methods
from xbm_jax.report.web.gather import found_in
from xbm_jax.tasks.watching import active_mask
from xbm_jax.training import Recipe, Saves, adapt


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Iterator[Path]:
    """A bank of one task learned and one made by hand, with its chip, and the folder of the run."""
    with pytest.MonkeyPatch.context() as patch:
        small.register(patch)
        out, chip, data = tmp_path_factory.mktemp("bank"), tiny.chip("adc"), tiny.stripes()
        save_chip(chip, out / "chip")
        stored = MaskBank.create(out, chip)
        recipe = Recipe(epochs=2, batch_size=64)
        save = Saves(out / "run", log_steps=1)
        task = adapt(chip, data, method=methods.xbm(), key=jax.random.key(0), config=recipe, save=save)
        stored.put("stripes", task)
        stored.put("made", tiny.made_up_task(chip, methods.head_only(), 5))
        yield out


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    small.register(monkeypatch)


def page_of(path: Path) -> Elements:
    return Elements(path.read_text(encoding="utf-8"))  # type: ignore[arg-type]


def test_a_bank_shows_what_it_stores_and_the_masks_themselves(bank, capsys):
    assert small.run("report", bank) == 0
    assert f"Written to {bank}/report.html: " in capsys.readouterr().out
    text = page_of(bank / "report.html").text
    for words in ("all bits", "inference J", "Learning curves", "Masks", "Conversions that clip", "tiny on"):
        assert words in text
    found, chip = found_in(bank), tiny.chip("adc")
    task = MaskBank.open(bank, chip).get("stripes")
    (shown,) = found.maps
    assert shown.name == "stripes" and list(shown.layers) == list(tiny.LAYERS)
    for path, on in shown.layers.items():
        np.testing.assert_array_equal(on, active_mask(chip, task, path))


def test_images_show_the_chips_health_and_what_tasks_answer(bank, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("xbm_jax.cli.report.load", lambda *_, **__: tiny.stripes())
    out = tmp_path / "page.html"
    assert small.run("report", bank, "--data", "stripes", "--images", "40", "--out", out) == 0
    text = page_of(out).text
    assert "stripes, 40 test images" in text and "SNR dB" in text and "Confusion" in text


def test_without_its_chip_a_bank_says_what_is_missing(bank, tmp_path, capsys):
    for name in ("bank.json", "index", "tasks"):
        (tmp_path / name).symlink_to(bank / name)
    assert small.run("report", tmp_path) == 0
    assert "Without its chip a bank shows no masks" in capsys.readouterr().out
    assert small.run("report", tmp_path, "--chip", bank / "chip") == 0
    assert "Without its chip" not in capsys.readouterr().out
    assert small.run("report", tmp_path, "--data", "fashion_mnist") == 2
    assert "--chip says where" in capsys.readouterr().err


def test_a_saved_run_shows_its_log_and_what_was_asked(bank):
    found = found_in(bank / "run")
    assert (
        found.title == "Run stripes xbm"
        and found.rows[0]["accuracy"] == MaskBank.open(bank, tiny.chip("adc")).meta("stripes")["accuracy"]
    )
    panels = {curve.panel.partition(": ")[2] for curve in found.curves}
    assert panels >= {"loss", "accuracy", "val accuracy", "rates"}
    assert found.context["config"][0]["method"]["name"] == "xbm"


def test_what_a_bank_from_elsewhere_says_wrongly_is_noted(bank, monkeypatch):
    described = {
        "chip": {},
        "parameters": None,
        "tasks": {
            "a": {"method": {"name": "m"}, "bytes": 1, "meta": {"history": [1], "confusion": [[1]], "class_names": 3}},
            "b": {"method": 3, "bytes": 1, "meta": {}},
            "c": {"error": "gone"},
        },
    }
    monkeypatch.setattr("xbm_jax.report.web.of_bank.describe", lambda _: described)
    found = found_in(bank)
    assert [row["task"] for row in found.rows] == ["a", "b"]
    assert "Task c is damaged: gone" in found.notes and sum("not all of it can be shown" in n for n in found.notes) >= 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--images", "0"], "--images = 0: at least 1"),
        (["--seed", "-1"], "--seed = -1"),
        (["--out", "/proc/none/page.html"], "--out = '/proc/none'"),
        (["--chip", "none"], "none"),
    ],
)
def test_bad_options(args, message, bank, capsys):
    assert small.run("report", bank, *args) in (0, 2)
    said = capsys.readouterr()
    assert message in said.err + said.out


def test_json_of_an_experiment(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps({"rows": [{"task": "t", "accuracy": 0.5}]}))
    assert small.run("report", tmp_path / "a.json") == 0
    assert (tmp_path / "a.html").is_file()
